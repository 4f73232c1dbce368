"""Camera, rigid transforms, depth maps and shading: differentiable, batched, no knowledge of plugins."""

from recon_toolkit.geometry.camera import (
    ROTATION_CENTRE_DEPTH,
    Camera,
    backproject,
    grid_faces,
    inverse_transform,
    lambert,
    normals_from_depth,
    rotation_matrix,
    shade,
    transform,
    view_matrix,
)

__all__ = [
    "ROTATION_CENTRE_DEPTH",
    "Camera",
    "backproject",
    "grid_faces",
    "inverse_transform",
    "lambert",
    "normals_from_depth",
    "rotation_matrix",
    "shade",
    "transform",
    "view_matrix",
]

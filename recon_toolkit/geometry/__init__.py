"""Camera, rigid transforms, depth maps and shading: differentiable, batched, no knowledge of plugins."""

from recon_toolkit.geometry.camera import Camera
from recon_toolkit.geometry.depth import backproject, grid_faces, normals_from_depth
from recon_toolkit.geometry.rigid import (
    ROTATION_CENTRE_DEPTH,
    inverse_transform,
    rotation_matrix,
    transform,
    view_matrix,
)
from recon_toolkit.geometry.shading import lambert, shade

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

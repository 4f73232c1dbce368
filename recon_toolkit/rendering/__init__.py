"""Rasterise once, interpolate everything: the rasteriser op and the depth-mesh renderer on top of it."""

from recon_toolkit.rendering.backends import Backend, check_depth_map, check_mesh, check_picture, choose_backend
from recon_toolkit.rendering.depth_mesh import (
    DepthMeshRenderer,
    DepthRenderer,
    grid_vertices,
    render_object,
    warp_to_view,
)
from recon_toolkit.rendering.rasterize import (
    FAR,
    NEAR,
    Fragments,
    interpolate,
    pool_samples,
    rasterize,
    rasterize_depth,
    sum_by_index,
)

__all__ = [
    "FAR",
    "NEAR",
    "Backend",
    "DepthMeshRenderer",
    "DepthRenderer",
    "Fragments",
    "check_depth_map",
    "check_mesh",
    "check_picture",
    "choose_backend",
    "grid_vertices",
    "interpolate",
    "pool_samples",
    "rasterize",
    "rasterize_depth",
    "render_object",
    "sum_by_index",
    "warp_to_view",
]

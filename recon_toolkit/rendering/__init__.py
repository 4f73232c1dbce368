"""Rasterise once, interpolate everything: the rasteriser op and the depth-mesh renderer on top of it."""

from recon_toolkit.rendering.depth_mesh import DepthMeshRenderer, DepthRenderer, warp_to_view
from recon_toolkit.rendering.grid_vertices import grid_vertices
from recon_toolkit.rendering.rasterize import Backend, Fragments, interpolate, rasterize, rasterize_depth

__all__ = [
    "Backend",
    "DepthMeshRenderer",
    "DepthRenderer",
    "Fragments",
    "grid_vertices",
    "interpolate",
    "rasterize",
    "rasterize_depth",
    "warp_to_view",
]

"""Rasterise once, interpolate everything: the rasteriser op and the depth-mesh renderer on top of it."""

from recon_toolkit.rendering.backends import Backend, choose_backend
from recon_toolkit.rendering.depth_mesh import DepthMeshRenderer, DepthRenderer, warp_to_view
from recon_toolkit.rendering.factors import render_object
from recon_toolkit.rendering.grid_vertices import grid_vertices
from recon_toolkit.rendering.rasterize import Fragments, interpolate, rasterize, rasterize_depth

__all__ = [
    "Backend",
    "DepthMeshRenderer",
    "DepthRenderer",
    "Fragments",
    "choose_backend",
    "grid_vertices",
    "interpolate",
    "rasterize",
    "rasterize_depth",
    "render_object",
    "warp_to_view",
]

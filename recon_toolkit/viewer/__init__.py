"""A page to look at reconstructed objects in 3D: one HTML file that needs no network and no server."""

from recon_toolkit.viewer.page import viewer_document, viewer_part
from recon_toolkit.viewer.scene import Scene, ShapeScene, ViewerScene, scene_of

__all__ = ["Scene", "ShapeScene", "ViewerScene", "scene_of", "viewer_document", "viewer_part"]

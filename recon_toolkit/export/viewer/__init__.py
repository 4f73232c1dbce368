"""A page to look at reconstructed objects in 3D: one HTML file that needs no network and no server."""

from recon_toolkit.export.viewer.page import viewer_document, viewer_part
from recon_toolkit.export.viewer.scene import ViewerScene, scene_of
from recon_toolkit.export.viewer.shape_scene import Scene, ShapeScene

__all__ = ["Scene", "ShapeScene", "ViewerScene", "scene_of", "viewer_document", "viewer_part"]

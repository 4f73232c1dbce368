"""Point clouds from one image: Lin, Kong and Lucey, AAAI 2018."""

from collections.abc import Iterator

from recon_toolkit import Component, hookimpl


@hookimpl
def recon_components() -> Iterator[Component]:
    """The model, its network and its losses."""
    at = "recon_point_cloud"
    yield Component("model", "point-cloud", f"{at}.model:PointCloud", "A cloud of points from one image (Lin et al.).")
    yield Component("encoder", "structure-generator", f"{at}.model:StructureGenerator", "Image → coordinates, 2D only.")
    yield Component("loss", "view-mask", f"{at}.losses:ViewMask", "Masks from many sides, cross-entropy.")
    yield Component("loss", "view-depth", f"{at}.losses:ViewDepth", "Depths from many sides, absolute error.")
    yield Component("loss", "view-grid", f"{at}.losses:view_grid", "Points near the pixels that predict them.")

"""PyTorch3D's rasteriser as a renderer, for those who have it installed."""

from collections.abc import Iterator

from recon_toolkit import Component, hookimpl


@hookimpl
def recon_components() -> Iterator[Component]:
    """The adapter; pytorch3d itself is imported when a pipeline names it."""
    yield Component(
        "renderer", "pytorch3d", "recon_pytorch3d.renderer:PyTorch3DRenderer", "PyTorch3D, hard or soft, if installed."
    )

"""Neural 3D Mesh Renderer (Kato, Ushiku and Harada, CVPR 2018), as it computes, without its build.

``from recon_neural_renderer import Renderer`` draws any mesh; the component ``neural-renderer`` draws the depth maps of
a pipeline. Names are imported when first used, so that listing plugins imports no torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from recon_toolkit import Component, hookimpl

if TYPE_CHECKING:
    from recon_neural_renderer.cameras import lambert_light, look, look_at, perspective, points_from_angles, project
    from recon_neural_renderer.raster import Maps, rasterize
    from recon_neural_renderer.renderer import Images, Renderer

_HOME = {
    "cameras": ("look", "look_at", "perspective", "points_from_angles", "project"),
    "lighting": ("lambert_light",),
    "raster": ("Maps", "rasterize"),
    "renderer": ("Images", "Renderer"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Images",
    "Maps",
    "Renderer",
    "lambert_light",
    "look",
    "look_at",
    "perspective",
    "points_from_angles",
    "project",
    "rasterize",
]


@hookimpl
def recon_components() -> Iterator[Component]:
    """The renderer of a pipeline."""
    yield Component(
        "renderer",
        "neural-renderer",
        "recon_neural_renderer.renderer:NeuralRenderer",
        "Neural 3D Mesh Renderer (Kato et al. 2018) over the grid mesh.",
    )


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'recon_neural_renderer' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"recon_neural_renderer.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value

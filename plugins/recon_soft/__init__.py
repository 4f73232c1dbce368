"""Probabilistic rasterisation of the depth map's mesh: SoftRas (Liu, Li, Chen and Li, ICCV 2019)."""

from collections.abc import Iterator

from recon_toolkit import Component, hookimpl


@hookimpl
def recon_components() -> Iterator[Component]:
    """The renderer; the op is in :mod:`recon_soft.renderer`."""
    yield Component("renderer", "soft", "recon_soft.renderer:SoftRenderer", "SoftRas: faces blended by distance.")

"""Ray casting: the canonical depth map as a height field, met by one ray per sample, with implicit gradients."""

from collections.abc import Iterator

from recon_toolkit import Component, hookimpl


@hookimpl
def recon_components() -> Iterator[Component]:
    """The renderer."""
    yield Component(
        "renderer",
        "heightfield",
        "recon_heightfield.renderer:HeightfieldRenderer",
        "Rays cast against the depth map; no mesh, any device.",
    )

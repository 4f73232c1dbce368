"""A renderer that is a network: it learns from the exact one what an object looks like in another view and light."""

from collections.abc import Iterator

from recon_toolkit import Component, hookimpl


@hookimpl
def recon_components() -> Iterator[Component]:
    """The renderer, the model that trains it by itself, and the loss of that."""
    own = "recon_learned_renderer"
    yield Component("renderer", "learned", f"{own}.renderer:LearnedRenderer", "A network in the place of geometry.")
    yield Component(
        "model", "learned-renderer", f"{own}.model:LearnedRendererModel", "Trains the renderer `learned` by itself."
    )
    yield Component("loss", "factor-supervision", f"{own}.model:factor_supervision", "Rendered depth and coverage.")

"""LeMul: shapes from several images of one object, without a symmetry prior (Ho et al., ICCV 2021)."""

from collections.abc import Iterator

from recon_toolkit import Component, hookimpl


@hookimpl
def recon_components() -> Iterator[Component]:
    """The model; networks, renderers and losses are those of others."""
    yield Component("model", "lemul", "recon_lemul.model:LeMul", "One shape for two images of an object; no symmetry.")

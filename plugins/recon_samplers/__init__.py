"""Samplers: which images a training step sees."""

from __future__ import annotations

from collections.abc import Iterable

from recon_toolkit import Component, hookimpl


@hookimpl
def recon_components() -> Iterable[Component]:
    core = "recon_toolkit.data.sampling"
    yield Component("sampler", "shuffled", f"{core}:Shuffled", "Every image once an epoch, in random order.")
    yield Component("sampler", "grouped", f"{core}:Grouped", "Several images of one person, video or object together.")
    yield Component(
        "sampler", "balanced", "recon_samplers.balanced:Balanced", "Categories, or parts of a mixture, by shares."
    )

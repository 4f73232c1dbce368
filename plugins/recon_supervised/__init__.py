"""The supervised baseline of Wu et al. (CVPR 2020, Table 2): depth regressed from the image, with true depth."""

from collections.abc import Iterator

from recon_toolkit import Component, hookimpl


@hookimpl
def recon_components() -> Iterator[Component]:
    """The model; its network and its loss are other plugins'."""
    yield Component(
        "model", "supervised-depth", "recon_supervised.model:SupervisedDepth", "Depth alone, learned from true depth."
    )

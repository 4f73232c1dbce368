"""Losses beside the reference method's own: filters, structure, perception, priors on factors, ground truth."""

from collections.abc import Iterator

from recon_toolkit import Component, hookimpl

#: Name in a pipeline, where it is, and one line about it.
_LOSSES = (
    ("ssim", "image:ssim", "Structural dissimilarity of Wang et al."),
    ("edges", "image:edges", "Difference of Sobel derivatives."),
    ("laplacian-pyramid", "image:LaplacianPyramid", "Difference in every band of a Laplacian pyramid."),
    ("filter-bank", "image:FilterBank", "Difference in oriented band-pass filters."),
    ("lpips", "lpips_map:LpipsMap", "Learned perceptual distance of Zhang et al."),
    ("albedo-smoothness", "factors:AlbedoSmoothness", "Albedo smooth where colour and depth are (LeMul)."),
    ("normal-consistency", "factors:normal_consistency", "Bending of the canonical surface."),
    ("symmetry", "factors:symmetry", "Canonical maps against their mirror images."),
    ("supervised-depth", "factors:supervised_depth", "Depth against the true one."),
    ("silhouette", "factors:silhouette", "Differentiable coverage against the true mask."),
)


@hookimpl
def recon_components() -> Iterator[Component]:
    """One loss component for each name."""
    for name, target, summary in _LOSSES:
        yield Component("loss", name, f"recon_losses.{target}", summary)

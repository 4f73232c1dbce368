"""The reference method: Wu, Rupprecht and Vedaldi, CVPR 2020 ("Unsup3D")."""

from collections.abc import Iterator

from recon_toolkit import Component, hookimpl


@hookimpl
def recon_components() -> Iterator[Component]:
    """The model, its networks, its renderer and its losses."""
    networks, losses = "recon_unsup3d.networks", "recon_unsup3d.losses"
    importer = "recon_unsup3d.importer"
    yield Component("model", "unsup3d", "recon_unsup3d.model:Unsup3D", "Depth, albedo, light and view from one image.")
    yield Component("encoder", "conv-autoencoder", f"{networks}:ConvAutoencoder", "Image to image: depth, albedo.")
    yield Component("encoder", "conv-regressor", f"{networks}:ConvRegressor", "Image to vector: light, view.")
    yield Component("encoder", "conv-confidence", f"{networks}:ConvConfidence", "Image to two confidence maps.")
    yield Component(
        "renderer", "depth-mesh", "recon_toolkit.rendering:DepthMeshRenderer", "The exact grid-mesh renderer."
    )
    yield Component("importer", "unsup3d", f"{importer}:import_unsup3d", "Checkpoints of elliottwu/unsup3d.")
    yield Component("importer", "lemul", f"{importer}:import_lemul", "Checkpoints of VinAIResearch/LeMul.")
    yield Component("loss", "photometric", f"{losses}:photometric", "Absolute colour difference.")
    perceptual = "recon_unsup3d.losses:Perceptual"
    yield Component("loss", "perceptual", perceptual, "Squared difference of ImageNet features.")
    yield Component("loss", "depth-smoothness", f"{losses}:depth_smoothness", "Gradient of the canonical depth.")

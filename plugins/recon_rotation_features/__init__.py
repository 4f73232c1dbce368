"""Features learned without labels, by telling how a picture is turned (RotNet), and the perceptual loss on them."""

from collections.abc import Iterator

from recon_toolkit import Component, hookimpl


@hookimpl
def recon_components() -> Iterator[Component]:
    """The network, the model that trains it, its losses, and the loss that uses the trained features."""
    own = "recon_rotation_features"
    yield Component("encoder", "conv-features", f"{own}.model:ConvFeatures", "Image to features at a quarter of it.")
    yield Component(
        "model", "rotation-classifier", f"{own}.model:RotationClassifier", "Trains features to tell rotations apart."
    )
    yield Component("loss", "rotation", f"{own}.model:rotation", "Cross-entropy of the rotation.")
    yield Component(
        "loss",
        "rotation-accuracy",
        f"{own}.model:rotation_accuracy",
        "Share of rotations told; for the log, weight 0.",
    )
    yield Component(
        "loss",
        "self-supervised-perceptual",
        f"{own}.perceptual:SelfSupervisedPerceptual",
        "Squared difference of features learned without labels.",
    )

"""The published checkpoints' networks and ours: which is which, of what width and size, under which names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recon_toolkit import CheckpointError
from recon_unsup3d.networks import SIZES, ConvAutoencoder, ConvConfidence, ConvRegressor


@dataclass(frozen=True)
class Slot:
    """A network of a published checkpoint.

    Attributes:
        key: its name there.
        role: its role in our model.
        component: our encoder's name.
        outputs: channels that it puts out.
    """

    key: str
    role: str
    component: str
    outputs: int


SLOTS = (
    Slot("netD", "depth", "conv-autoencoder", 1),
    Slot("netA", "albedo", "conv-autoencoder", 3),
    Slot("netL", "light", "conv-regressor", 4),
    Slot("netV", "view", "conv-regressor", 6),
    Slot("netC", "confidence", "conv-confidence", 2),
)
#: LeMul's confidence for pairs of images.
SECOND_CONFIDENCE = "netC2"
_CLASSES: dict[str, Callable[..., nn.Module]] = {
    "conv-autoencoder": ConvAutoencoder,
    "conv-regressor": ConvRegressor,
    "conv-confidence": ConvConfidence,
}
#: Parts of the published confidence network, and ours; the others are called ``network`` in both.
_PARTS = {"out_net1": "fine", "out_net2": "coarse"}
_CONFIDENCE_HEADS = ("fine.6.weight", "coarse.0.weight")


@dataclass(frozen=True)
class FoundNetwork:
    """A network that was recognised.

    Attributes:
        slot: which one.
        image_size: side of its pictures in pixels.
        options: of our encoder: ``width`` and, where it has one, ``latent``.
        weights: by our encoder's names.
    """

    slot: Slot
    image_size: int
    options: dict[str, int]
    weights: dict[str, Tensor]

    def text(self) -> str:
        """The network in a few words."""
        options = ", ".join(f"{name} {value}" for name, value in self.options.items())
        return f"{self.slot.role} ({self.slot.key}, {options})"


def find_network(slot: Slot, state: Any, where: str) -> FoundNetwork:
    """Recognise a published network by the shapes of its layers.

    Args:
        slot: which one it is to be.
        state: its state dict.
        where: the file, for messages.

    Raises:
        CheckpointError: it is no state dict, has other layers than ours at every image size, or values that are not
            finite.
    """
    tensors = _tensors(slot, state, where)
    # Shapes come before values: only tensors of the size that they should have are gone through or copied.
    if slot.role == "confidence":
        tensors = _two_channels(tensors)
    first = tensors.get("network.0.weight")
    width = len(first) if first is not None and first.ndim == 4 else 0
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    for size in SIZES:
        options = _options(slot, size, width, shapes)
        if options is not None and _shapes(slot, size, options) == shapes:
            _check_values(slot, tensors, where)
            return FoundNetwork(slot, size, options, {k: v.float() for k, v in tensors.items()})
    sizes = ", ".join(map(str, SIZES))
    raise CheckpointError(
        f"the layers of {slot.key} ({slot.role}) are not those of the published network for any of {sizes} pixels",
        where=where,
        remedy="only networks with the published layers can be imported",
    )


def _tensors(slot: Slot, state: Any, where: str) -> dict[str, Tensor]:
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(
            f"{slot.key} holds a {type(state).__name__}, not weights by name",
            where=where,
            remedy="name the file that the training wrote",
        )
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        part, dot, rest = str(name).partition(".")
        found[_PARTS.get(part, part) + dot + rest] = tensor
    return found


def _check_values(slot: Slot, tensors: Mapping[str, Tensor], where: str) -> None:
    for name, tensor in tensors.items():
        # The extremes are not finite if any number is not, and finding them takes no copy.
        if not tensor.is_floating_point() or not all(bool(extreme.isfinite()) for extreme in tensor.aminmax()):
            raise CheckpointError(
                f"{slot.key}.{_theirs(name)} has values that are not finite numbers",
                where=where,
                remedy="the training that wrote it had failed; use an earlier checkpoint",
            )


def _theirs(name: str) -> str:
    """The published name of a tensor of ours."""
    part, dot, rest = name.partition(".")
    return {ours: theirs for theirs, ours in _PARTS.items()}.get(part, part) + dot + rest


def _two_channels(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """LeMul's confidence has one channel, ours one for each of the plain and the flipped image: both are the same."""
    return {
        name: tensor.expand(2, *tensor.shape[1:]) if name in _CONFIDENCE_HEADS and tensor.shape[:1] == (1,) else tensor
        for name, tensor in tensors.items()
    }


def _options(slot: Slot, size: int, width: int, shapes: Mapping[str, torch.Size]) -> dict[str, int] | None:
    """Options of our encoder if the network is one for pictures of this size, or None where it cannot be."""
    if slot.component == "conv-regressor":
        return {"width": width} if 0 < width <= 1024 else None
    stages = size.bit_length() - 3
    # Every stage but the last has a convolution, a normalisation and an activation; the last has no normalisation.
    bottleneck = shapes.get(f"network.{3 * (stages - 1) + 2}.weight", torch.Size())
    if not 0 < width <= 1024 or width % 4 or len(bottleneck) != 4 or not 0 < bottleneck[0] <= 4096:
        return None
    return {"width": width, "latent": bottleneck[0]}


def _shapes(slot: Slot, size: int, options: Mapping[str, int]) -> dict[str, torch.Size]:
    with torch.device("meta"):  # shapes without memory
        network = _CLASSES[slot.component](3, slot.outputs, size, **options)
    return {name: tensor.shape for name, tensor in network.state_dict().items()}

"""Images mirrored left to right, with everything that is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from recon_toolkit.data.fields import KINDS, FieldSpec
from recon_toolkit.errors import ReconError
from recon_toolkit.structures import Batch

#: What the mirror image of a value is multiplied by, along its second axis.
SIGNS: dict[str, tuple[float, ...] | None] = {
    "map": None,
    "directions": (-1.0, 1.0, 1.0),
    "light": (1.0, 1.0, -1.0, 1.0, 1.0),
    "view": (1.0, -1.0, -1.0, -1.0, 1.0, 1.0),
    "plain": None,
}


def check_mirrorable(fields: Mapping[str, FieldSpec]) -> None:
    """Raise ReconError if there is a field among these that does not say what it is in the mirror."""
    strange = sorted(name for name, spec in fields.items() if spec.meaning(name) is None)
    if strange:
        raise ReconError(
            f"images cannot be mirrored together with {', '.join(strange)}, whose mirror image is not known",
            where="training.augment_flip",
            remedy="set it to false, or let the data set say what the field is (FieldSpec.kind)",
        )


def mirror(batch: Batch, chosen: Tensor, fields: Mapping[str, FieldSpec] | None = None) -> Batch:
    """The batch with the chosen images (B,) mirrored, and their ground truth with them.

    Args:
        batch: the images.
        chosen: (B,) bool.
        fields: how the data set describes the fields that are not a batch's own.
    """
    pick = chosen.to(batch.image.device)

    def flipped(name: str, tensor: Tensor) -> Tensor:
        spec = (fields or {}).get(name)
        kind = KINDS.get(name) if spec is None else spec.meaning(name)
        if kind is None or kind == "plain":
            return tensor
        other = tensor.flip(-1) if kind in ("map", "directions") else tensor
        signs = SIGNS[kind]
        if signs is not None:
            other = other * torch.tensor(signs).reshape(-1, *[1] * (tensor.ndim - 2)).to(other)
        return torch.where(pick.reshape(-1, *[1] * (tensor.ndim - 1)), other, tensor)

    own = {name: getattr(batch, name) for name in KINDS}
    changed = {name: flipped(name, value) for name, value in own.items() if value is not None}
    return replace(batch, **changed, extra={name: flipped(name, value) for name, value in batch.extra.items()})

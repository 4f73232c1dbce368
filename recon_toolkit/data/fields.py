"""How the fields of a packed data set are stored, become the values of a batch, and are mirrored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from recon_toolkit.errors import ReconError
from recon_toolkit.structures import Batch

StorageType = Literal["uint8", "uint16", "int8", "int32", "float16", "float32"]
#: What a field is in the mirror: a map; a map of directions (B, 3, H, W); a light (B, 5); a view (B, 6); or anything
#: that stays as it is, such as a label.
FieldKind = Literal["map", "directions", "light", "view", "plain"]


#: Fields that a batch has by name; all others are in its ``extra``.
NAMED_FIELDS = frozenset(f.name for f in fields(Batch)) - {"index", "extra", "draw"}


#: What the fields are in the mirror that a batch has by name.
KINDS: dict[str, FieldKind] = {
    "image": "map", "depth": "map", "mask": "map", "albedo": "map", "normals": "directions", "light": "light",
    "view": "view", "group": "plain",
}  # fmt: skip


class FieldSpec(BaseModel):
    """How one field is stored: value = offset + stored / steps.

    Args:
        dtype: the storage type.
        shape: the shape of one image's entry, e.g. (3, H, W).
        steps: stored steps per unit, e.g. 255 for a colour in [0, 1] kept in a byte.
        offset: the value of a stored zero.
        each: how many consecutive images share one entry, for what belongs to an object with several images.
        kind: what it is in the mirror; known of the fields that a batch has by name.
        words: of a field of whole numbers, what each number from 0 on means.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: StorageType
    shape: tuple[int, ...]
    steps: float = 1.0
    offset: float = 0.0
    each: int = Field(1, ge=1)
    kind: FieldKind | None = None
    words: tuple[str, ...] = ()

    def meaning(self, name: str) -> FieldKind | None:
        """What the field ``name`` is in the mirror; None where nobody says."""
        return self.kind or KINDS.get(name)

    def entries(self, count: int) -> int:
        """How many entries ``count`` images have."""
        return -(-count // self.each)

    @property
    def row_bytes(self) -> int:
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape, dtype=np.int64))

    def encode(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values (N, *shape) → storage. Arrays that already have the storage type pass through; floats are scaled."""
        if values.dtype == self.dtype:
            return values
        if values.dtype == np.bool_:
            return values.astype(self.dtype)
        if not np.issubdtype(values.dtype, np.floating):
            raise TypeError(f"expected {self.dtype} or a floating type, got {values.dtype}")
        stored = (values - self.offset) * self.steps
        if np.issubdtype(np.dtype(self.dtype), np.integer):
            limits = np.iinfo(self.dtype)
            stored = np.clip(np.rint(stored), limits.min, limits.max)
        return stored.astype(self.dtype)

    def decode(self, stored: Tensor) -> Tensor:
        """Stored (N, *shape) → float32 values; whole numbers of 32 bits → int64."""
        if self.dtype == "int32" and self.steps == 1.0:
            return stored.long() + int(self.offset)
        if stored.dtype == torch.uint16:  # few operations exist for it; the conversion does
            stored = stored.to(torch.int32)
        values = stored.to(torch.float32)
        if self.steps != 1.0:
            values = values / self.steps
        return values + self.offset if self.offset else values


def field_specs(
    size: int, names: Iterable[str] = ("image",), *, depth_range: tuple[float, float] | None = None
) -> dict[str, FieldSpec]:
    """The usual specifications of the named fields for images of ``size`` × ``size`` pixels.

    Args:
        size: image height and width in pixels.
        names: of ``image``, ``depth``, ``mask``, ``normals``, ``albedo``, ``light``, ``view``, ``group``.
        depth_range: with it, depth is stored as 16-bit steps over this range; without, as float32.

    Raises:
        KeyError: for a name that is none of these.
    """
    plane, colour = (size, size), (3, size, size)
    depth = FieldSpec(dtype="float32", shape=plane)
    if depth_range is not None:
        low, high = depth_range
        depth = FieldSpec(dtype="uint16", shape=plane, steps=65535 / (high - low), offset=low)
    known = {
        "image": FieldSpec(dtype="uint8", shape=colour, steps=255),
        "depth": depth,
        "mask": FieldSpec(dtype="uint8", shape=plane),
        # float16 rather than int8: a step of 1/127 tilts a normal by half a degree, which MAD would see.
        "normals": FieldSpec(dtype="float16", shape=colour),
        "albedo": FieldSpec(dtype="uint8", shape=colour, steps=255),
        "light": FieldSpec(dtype="float32", shape=(5,)),
        "view": FieldSpec(dtype="float32", shape=(6,)),
        "group": FieldSpec(dtype="int32", shape=()),
    }
    return {name: known[name] for name in names}


def decode_fields(fields: Mapping[str, FieldSpec], raw: Mapping[str, Tensor], indices: Tensor) -> Batch:
    """Stored entries (B, *shape) per field → a :class:`Batch` on the same device."""
    values = {name: fields[name].decode(tensor) for name, tensor in raw.items() if name != "mask"}
    if "normals" in values:  # unit again after rounding
        values["normals"] = torch.nn.functional.normalize(values["normals"], dim=1)
    if "mask" in raw:
        values["mask"] = raw["mask"] != 0
    extra = {name: values.pop(name) for name in values.keys() - NAMED_FIELDS}
    return Batch(index=indices.to(raw["image"].device), extra=extra, **values)


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

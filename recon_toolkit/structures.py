"""What flows between the parts: a batch, a model's output, a reconstruction.

Shape letters: B batch, C channels, H and W image height and width. Images are RGB float in [0, 1]; depth is z in
units of the object's distance (about 1); angles are radians. Normals are unit vectors in the camera frame (x right,
y down, z forward) and, as in Wu et al., point along the line of sight: a surface that faces the camera has n_z > 0.
The light's direction is the way the light travels, so diffuse shading is max(0, n·l).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from recon_toolkit.errors import ReconError

T = TypeVar("T")
#: What the texture of a reconstructed object can be made of.
TEXTURES = ("photo", "model", "albedo")


def to_device(value: T, device: torch.device | str) -> T:
    """A copy of a dataclass of tensors on ``device``; fields that are not tensors stay as they are."""
    moved = {
        f.name: getattr(value, f.name).to(device)
        for f in fields(value)  # type: ignore[arg-type]
        if isinstance(getattr(value, f.name), Tensor)
    }
    return replace(value, **moved)  # type: ignore[type-var]


@dataclass(frozen=True)
class Batch:
    """Images and whatever ground truth their data set has, all in the input view."""

    image: Tensor  # (B, 3, H, W) in [0, 1]
    index: Tensor  # (B,) int64, position in the data set
    depth: Tensor | None = None  # (B, H, W) z; the value outside ``mask`` means nothing
    mask: Tensor | None = None  # (B, H, W) bool, where ``depth`` is the object's
    normals: Tensor | None = None  # (B, 3, H, W) unit vectors
    albedo: Tensor | None = None  # (B, 3, H, W) in [0, 1]
    light: Tensor | None = None  # (B, 5): ambient, diffuse, direction (3, unit)
    view: Tensor | None = None  # (B, 6): rotation x, y, z in radians, translation x, y, z
    group: Tensor | None = None  # (B,) int64, which images belong together: of a person, a video, an object
    #: Other fields of the data set, by name, each (B, …): whatever a method compares with.
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    #: (B,) int64 ≥ 0, in training: a random number for each image, another one at each step, so that a model that
    #: chooses at random chooses the same again when the step is repeated.
    draw: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        return self._each(lambda tensor: tensor.to(device))

    def rows(self, low: int, high: int) -> Batch:
        """The images ``low`` … ``high`` − 1."""
        return self._each(lambda tensor: tensor[low:high])

    def of(self, name: str, who: str) -> Tensor:
        """A field by its name, among them those of ``extra``.

        Raises:
            ReconError: the data set has none of that name.
        """
        found = self.extra.get(name, getattr(self, name, None))
        if isinstance(found, Tensor):
            return found
        raise ReconError(f"{who} needs '{name}' of every image, which the data set does not have")

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        changed = {name: change(value) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **changed, extra={name: change(value) for name, value in self.extra.items()})

    def __len__(self) -> int:
        return int(self.image.shape[0])


@dataclass(frozen=True)
class Rendering:
    """What a renderer returns: the canonical object seen in the input view."""

    image: Tensor  # (B, 3, H, W)
    depth: Tensor  # (B, H, W); the background value where ``mask`` is False
    mask: Tensor  # (B, H, W) bool: the pixel is covered


@dataclass(frozen=True)
class ImagePair:
    """A prediction to compare with a target, where, and how unsure the model is of it."""

    prediction: Tensor  # (B, 3, H, W) in [0, 1]
    target: Tensor  # (B, 3, H, W) in [0, 1]
    mask: Tensor | None = None  # (B, H, W) float in [0, 1], no gradient
    spreads: tuple[Tensor, ...] = ()  # each (B, 1, h, w) > 0, one per resolution: the confidence maps' sigma


@dataclass(frozen=True)
class ModelOutput:
    """What a model returns in training: image pairs by name, and its factors for terms that look at those.

    ``pairs`` is what a loss term's ``of`` names (``plain`` by default). ``factors`` holds the named intermediate
    quantities of the method, e.g. ``canonical_depth``. ``diagnostics`` are tensors that the health report reads.
    """

    pairs: Mapping[str, ImagePair]
    factors: Mapping[str, Tensor]
    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)

    def factor(self, name: str, who: str) -> Tensor:
        """A factor that the loss ``who`` needs.

        Raises:
            ReconError: the model offers none of that name.
        """
        if name not in self.factors:
            offered = ", ".join(sorted(self.factors)) or "none"
            raise ReconError(
                f"the loss {who} needs the factor '{name}', and the model offers: {offered}",
                remedy="take the term out with --set losses.NAME=null, or use a model that offers it",
            )
        return self.factors[name]


@dataclass(frozen=True)
class Losses:
    """What an optimiser minimises, and what it is made of."""

    total: Tensor  # a scalar
    terms: Mapping[str, Tensor] = field(default_factory=dict)  # every term's mean before its weight, without gradient


@dataclass(frozen=True)
class Reconstruction:
    """The typed result of a model for a batch of photographs. Fields a model does not predict are None."""

    image: Tensor  # (B, 3, H, W) the input, in [0, 1]
    depth: Tensor | None = None  # (B, H, W) in the input view
    mask: Tensor | None = None  # (B, H, W) bool
    normals: Tensor | None = None  # (B, 3, H, W) in the input view
    albedo: Tensor | None = None  # (B, 3, H, W) in the input view
    shading: Tensor | None = None  # (B, 1, H, W) in the input view
    reconstruction: Tensor | None = None  # (B, 3, H, W) the rendered image
    canonical_depth: Tensor | None = None  # (B, H, W)
    canonical_albedo: Tensor | None = None  # (B, 3, H, W)
    canonical_normals: Tensor | None = None  # (B, 3, H, W)
    canonical_shading: Tensor | None = None  # (B, 1, H, W)
    canonical_image: Tensor | None = None  # (B, 3, H, W)
    canonical_mask: Tensor | None = None  # (B, H, W) bool: the object without what is around it
    light: Tensor | None = None  # (B, 5): ambient, diffuse, direction
    view: Tensor | None = None  # (B, 6): rotation x, y, z in radians, translation x, y, z
    confidence: Tensor | None = None  # (B, 1, H, W) sigma of the plain reconstruction
    points: Tensor | None = None  # (B, N, 3) of the object's surface in its own frame, z up, about its middle
    points_mask: Tensor | None = None  # (B, N) bool, which of them belong to the object; all if None

    def to(self, device: torch.device | str) -> Reconstruction:
        return to_device(self, device)

    def at(self, index: int) -> Reconstruction:
        """One image, as a batch of one."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        rows = slice(index, index + 1)
        return replace(self, **{name: value[rows] for name, value in values.items() if isinstance(value, Tensor)})

    def clouds(self) -> list[Tensor] | None:
        """The points (N, 3) that belong to each object; None where the model predicts none."""
        if self.points is None:
            return None
        if self.points_mask is None:
            return list(self.points)
        return [points[mask] for points, mask in zip(self.points, self.points_mask, strict=True)]

    def __len__(self) -> int:
        return int(self.image.shape[0])


class Reconstructs(Protocol):
    """A trained model, as evaluation and inference need it: images (B, 3, H, W) in [0, 1] → a reconstruction."""

    def reconstruct(self, images: Tensor) -> Reconstruction: ...

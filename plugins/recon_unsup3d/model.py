"""Unsup3D (Wu et al., CVPR 2020): an image becomes depth, albedo, light and view of a probably symmetric object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recon_toolkit import Batch, ImagePair, ModelOutput, Rendering
from recon_toolkit.geometry import Camera
from recon_toolkit.models import Canonical, PhotoGeometric


class Unsup3D(PhotoGeometric):
    """The model of Wu et al. 2020, with every part that its ablations remove as an option.

    Args:
        encoders: networks by role: ``depth``, ``albedo``, ``light``, ``view`` and, for confidence, ``confidence``.
        renderer: callable (canonical depth, canonical image, view) → Rendering.
        camera: the camera of all views.
        image_size: side of the square images in pixels.
        flip_depth, flip_albedo: also reconstruct from the mirrored map; without either there is no symmetry prior.
        options: those of :class:`~recon_toolkit.models.PhotoGeometric`.
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        renderer: Callable[[Tensor, Tensor, Tensor], Rendering],
        camera: Camera,
        image_size: int,
        *,
        flip_depth: bool = True,
        flip_albedo: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(encoders, renderer, camera, image_size, **options)
        self.flip_depth, self.flip_albedo = flip_depth, flip_albedo

    @classmethod
    def encoder_channels(cls, **_options: Any) -> dict[str, tuple[int, int]]:
        """Channels in and out of each role's network; ``confidence`` may be left out of a pipeline."""
        return {**super().encoder_channels(), "confidence": (3, 2)}

    @classmethod
    def optional_encoders(cls, **_options: Any) -> frozenset[str]:
        """Roles that a pipeline may leave out."""
        return frozenset({"confidence"})

    @classmethod
    def image_pairs(cls, *, flip_depth: bool = True, flip_albedo: bool = True, **_options: Any) -> frozenset[str]:
        """What a loss term's ``of`` can name."""
        return frozenset({"plain", "flipped"} if flip_depth or flip_albedo else {"plain"})

    def forward(self, batch: Batch) -> ModelOutput:
        """The plain and the flipped reconstruction of a batch, with confidence maps where there is a network."""
        factors, spreads = self.canonical(batch.image), self._spreads(batch.image)
        # Geometry needs full precision: above depth 1 a step of bfloat16 is 0.0078, 4 % of the depth's range.
        with torch.autocast(batch.image.device.type, enabled=False):
            return self._reconstruct_pairs(batch.image, factors, spreads)

    def _reconstruct_pairs(
        self, images: Tensor, factors: Canonical, spreads: Mapping[str, tuple[Tensor, ...]]
    ) -> ModelOutput:
        count = len(images)
        depth, albedo = factors.depth, factors.albedo
        flip = self.flip_depth or self.flip_albedo
        if flip:
            depth = torch.cat((depth, depth.flip(-1) if self.flip_depth else depth))
            albedo = torch.cat((albedo, albedo.flip(-1) if self.flip_albedo else albedo))
        repeats = 2 if flip else 1
        light, view = factors.light.repeat(repeats, 1), factors.view.repeat(repeats, 1)
        rendering = self.render(depth, self.lit(depth, albedo, light).image, albedo, light, view)
        mask = rendering.mask.reshape(repeats, count, *rendering.mask.shape[1:]).all(0).to(depth.dtype).detach()
        names = ("plain", "flipped")[:repeats]
        pairs = {
            name: ImagePair(rendering.image[i * count : (i + 1) * count], images, mask, spreads.get(name, ()))
            for i, name in enumerate(names)
        }
        return ModelOutput(
            pairs=pairs,
            factors={
                "canonical_depth": factors.depth,
                "canonical_albedo": factors.albedo,
                "light": factors.light,
                "view": factors.view,
                "depth": rendering.depth[:count],
                "mask": mask,
                "depth_range": self._depth_limits,
            },
            diagnostics=self.diagnostics(factors, mask),
        )

    def confidence(self, images: Tensor) -> Tensor | None:
        """σ of the plain reconstruction, where there is a network for it."""
        sigmas = self._spreads(images).get("plain")
        return sigmas[0] if sigmas else None

    def _spreads(self, images: Tensor) -> dict[str, tuple[Tensor, ...]]:
        """Confidence maps (B, 1, h, w) by pair: channel 0 for the plain, 1 for the flipped reconstruction."""
        if "confidence" not in self.encoders:
            return {}
        maps = [F.softplus(raw.float()) for raw in self.encoders["confidence"](images * 2 - 1)]
        return {"plain": tuple(m[:, :1] for m in maps), "flipped": tuple(m[:, 1:] for m in maps)}

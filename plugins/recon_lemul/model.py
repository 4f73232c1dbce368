"""LeMul (Ho et al., ICCV 2021): two images of one object are drawn with each other's shape and albedo."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recon_toolkit import Batch, ImagePair, ModelOutput, ParameterGroup, ReconError, Rendering
from recon_toolkit.geometry import Camera
from recon_toolkit.models import Canonical, PhotoGeometric

Pairs = Literal["group", "flip", "none"]
#: A random whole number is taken modulo this, to be compared with a share of it.
_DRAWS = 1 << 20


class LeMul(PhotoGeometric):
    """The model of Ho et al. 2021.

    An image is drawn twice: from its own depth and albedo, and from those of its partner under its own light and view
    (the pair ``swapped``). So what two images of one object have in common must be in depth and albedo, and what
    differs in light and view. Nothing is taken to be symmetric.

    Args:
        encoders: networks by role: ``depth``, ``albedo``, ``light``, ``view``; and, for confidence, ``confidence`` of
            an image and ``pair_confidence`` of six channels, first the image whose depth and albedo are used.
        renderer: callable (canonical depth, canonical image, view) → Rendering.
        camera: the camera of all views.
        image_size: side of the square images in pixels.
        pairs: an image's partner: ``group``, another image of its group (a person, an object); ``flip``, its mirror
            image; ``none``: it has none, and there is no pair ``swapped``, as in the paper's fine-tuning of textures.
            An image that is drawn as its own partner (``sampler.singles: repeat``) meets its mirror image.
        mirrored: with ``group``, the share of pairs that are an image and its mirror image instead, as the paper mixes
            them: what turns an object's mirror image the other way is a strong sign of how it is turned.
        trains: roles of the networks that learn; all if empty.
        options: those of :class:`~recon_toolkit.models.PhotoGeometric`.

    Raises:
        ValueError: ``trains`` names a role that there is none of, or ``mirrored`` is no share.
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        renderer: Callable[[Tensor, Tensor, Tensor], Rendering],
        camera: Camera,
        image_size: int,
        *,
        pairs: Pairs = "group",
        mirrored: float = 0.0,
        trains: Sequence[str] = (),
        **options: Any,
    ) -> None:
        super().__init__(encoders, renderer, camera, image_size, **options)
        unknown = sorted(set(trains) - set(encoders))
        if unknown:
            raise ValueError(f"trains names '{unknown[0]}', which is none of the networks: {', '.join(encoders)}")
        if not 0 <= mirrored <= 1:
            raise ValueError(f"mirrored {mirrored} is no share: it must be 0 to 1")
        self.pairs, self.mirrored, self.trains = pairs, mirrored, tuple(trains)
        self.group_size = 2 if pairs == "group" else 1
        self.batch_fields = ("image", "group") if pairs == "group" else ("image",)
        self._looked = False

    @classmethod
    def encoder_channels(cls, **_options: Any) -> dict[str, tuple[int, int]]:
        """Channels in and out of each role's network."""
        return {**super().encoder_channels(), "confidence": (3, 1), "pair_confidence": (6, 1)}

    @classmethod
    def optional_encoders(cls, **_options: Any) -> frozenset[str]:
        """Roles that a pipeline may leave out."""
        return frozenset({"confidence", "pair_confidence"})

    @classmethod
    def image_pairs(cls, *, pairs: Pairs = "group", **_options: Any) -> frozenset[str]:
        """What a loss term's ``of`` can name."""
        return frozenset({"plain"} if pairs == "none" else {"plain", "swapped"})

    def optimizers(self) -> Mapping[str, Sequence[ParameterGroup]]:
        """One, over the networks that learn."""
        roles = self.trains or tuple(self.encoders)
        return {"main": [ParameterGroup([p for role in roles for p in self.encoders[role].parameters()])]}

    @property
    def unused_encoders(self) -> frozenset[str]:
        """Networks that do not learn, or that nothing asks."""
        idle = set(self.encoders) - set(self.trains) if self.trains else set()
        return super().unused_encoders | idle | ({"pair_confidence"} if self.pairs == "none" else set())

    def forward(self, batch: Batch) -> ModelOutput:
        """Every image from its own depth and albedo and from its partner's.

        Rows of both pairs and of all factors are those of the batch; with ``pairs: flip`` the mirror images follow.
        """
        images, partner = self._with_partners(batch)
        factors, sigmas = self.canonical(images), self._sigmas(images, partner)
        # Geometry needs full precision: above depth 1 a step of bfloat16 is 0.0078, 4 % of the depth's range.
        with torch.autocast(images.device.type, enabled=False):
            return self._reconstruct_pairs(images, partner, factors, sigmas)

    def _with_partners(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The images (N, 3, H, W), and for each of them the row of its partner (N,)."""
        images, rows = batch.image, torch.arange(len(batch), device=batch.image.device)
        if self.pairs == "none":
            return images, None
        if self.pairs == "flip":
            return torch.cat((images, images.flip(-1))), torch.cat((rows + len(rows), rows))
        partner = rows.view(-1, 2).flip(1).flatten()
        if batch.group is not None and not self._looked:  # once: looking at values makes a GPU wait
            if bool((batch.group != batch.group[partner]).any()):
                raise ReconError(
                    "the sampler gives pairs of images of different groups",
                    where="sampler",
                    remedy="use the sampler 'grouped', or model.pairs=flip",
                )
            self._looked = True
        instead = batch.index == batch.index[partner]
        if self.mirrored and batch.draw is not None:
            drawn = batch.draw.view(-1, 2)[:, :1].expand(-1, 2).flatten()
            instead = instead | (drawn % _DRAWS < self.mirrored * _DRAWS)
        instead = instead & (rows % 2 == 1)
        return torch.where(instead[:, None, None, None], images[partner].flip(-1), images), partner

    def _reconstruct_pairs(
        self,
        images: Tensor,
        partner: Tensor | None,
        factors: Canonical,
        sigmas: Mapping[str, tuple[Tensor, ...]],
    ) -> ModelOutput:
        count = len(images)
        depth, albedo = factors.depth, factors.albedo
        names = ("plain",) if partner is None else ("plain", "swapped")
        if partner is not None:
            depth, albedo = torch.cat((depth, depth[partner])), torch.cat((albedo, albedo[partner]))
        light, view = (factor.repeat(len(names), 1) for factor in (factors.light, factors.view))
        rendering = self.render(depth, self.lit(depth, albedo, light).image, albedo, light, view)
        mask = rendering.mask.to(depth.dtype).detach()
        pairs: dict[str, ImagePair] = {}
        given: dict[str, Tensor] = {"depth_range": self._depth_limits}
        for number, name in enumerate(names):
            own = slice(number * count, (number + 1) * count)
            pairs[name] = ImagePair(rendering.image[own], images, mask[own], sigmas.get(name, ()))
            prefix = "" if name == "plain" else f"{name}_"
            given |= {
                f"{prefix}canonical_depth": depth[own],
                f"{prefix}canonical_albedo": albedo[own],
                f"{prefix}light": factors.light,
                f"{prefix}view": factors.view,
                f"{prefix}depth": rendering.depth[own],
                f"{prefix}mask": mask[own],
                f"{prefix}image": images,
            }
        return ModelOutput(
            pairs=pairs,
            factors=given,
            diagnostics=self.diagnostics(factors, mask[:count]),
        )

    def confidence(self, images: Tensor) -> Tensor | None:
        """σ of the plain reconstruction, where there is a network for it."""
        sigmas = self._sigmas(images, None).get("plain")
        return sigmas[0] if sigmas else None

    def _sigmas(self, images: Tensor, partner: Tensor | None) -> dict[str, tuple[Tensor, ...]]:
        """Confidence maps (N, 1, h, w), one for each resolution, by pair."""
        sigmas = {}
        asked = {"confidence": ("plain", images)}
        if partner is not None:
            asked["pair_confidence"] = ("swapped", torch.cat((images[partner], images), 1))
        for role, (name, seen) in asked.items():
            if role in self.encoders:
                sigmas[name] = tuple(F.softplus(raw.float()) for raw in self.encoders[role](seen * 2 - 1))
        return sigmas

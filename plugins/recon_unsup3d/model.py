"""Unsup3D (Wu et al., CVPR 2020): an image becomes depth, albedo, light and view of a probably symmetric object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recon_toolkit import Batch, ImagePair, ModelOutput, Rendering
from recon_toolkit.geometry import Camera
from recon_toolkit.models import Canonical, Finding, PhotoGeometric, Remedies, shape_findings, sigma_findings

REMEDIES = Remedies(
    start="start from a convex shape: --set model.convex_start_steps=200",
    smooth=(
        "train with 2 or more samples a pixel (renderer.supersampling), a lower learning rate, a warm-up "
        "(training.warmup_steps), or the depth-smoothness loss"
    ),
    alive=(
        "keep the bottleneck of the depth network alive: encoders.depth.bottleneck_slope=0.2 where it has that option, "
        "training.weight_decay=0, or a lower learning rate"
    ),
    rate="lower the learning rate (the published one is 1e-4) or set training.clip_gradient",
)


class Unsup3D(PhotoGeometric):
    """The model of Wu et al. 2020, with every part that its ablations remove as an option.

    Args:
        encoders: networks by role: ``depth``, ``albedo``, ``light``, ``view`` and, for confidence, ``confidence``.
        renderer: callable (canonical depth, canonical image, view) → Rendering.
        camera: the camera of all views.
        image_size: side of the square images in pixels.
        depth_min, depth_max: range of the canonical depth, in units of the object's distance.
        border_depth: depth of the two outermost columns on either side; 0.7 max + 0.3 min if not given.
        repeated_rows: outermost rows above and below that take the depth of the next one inside. The published 0
            leaves them free: no normal sees the outermost ones, and where the head meets the upper border they may
            fold into a shelf before the forehead, which does not go away again.
        rotation_range: largest rotation about each axis, in degrees.
        translation_range: largest translation along x and y.
        translation_z_range: largest translation along z.
        ambient_range, diffuse_range: ranges of the light's strengths.
        flip_depth, flip_albedo: also reconstruct from the mirrored map; without either there is no symmetry prior.
        normal_epsilon: see :func:`~recon_toolkit.geometry.normals_from_depth`; 1e-7 in the original's code.
        shading: multiply the albedo by the shading of the predicted light; without it the albedo is the image.
        convex_start_steps: steps in which the depth network is fitted to an ellipsoid before training starts, as
            GAN2Shape does. Short schedules need it: from a flat start, views roll out of the picture.
        convex_start_rate: learning rate of those steps.
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        renderer: Callable[[Tensor, Tensor, Tensor], Rendering],
        camera: Camera,
        image_size: int,
        *,
        depth_min: float = 0.9,
        depth_max: float = 1.1,
        border_depth: float | None = None,
        repeated_rows: int = 0,
        rotation_range: float = 60.0,
        translation_range: float = 0.1,
        translation_z_range: float = 0.0,
        ambient_range: tuple[float, float] = (0.0, 1.0),
        diffuse_range: tuple[float, float] = (0.0, 1.0),
        flip_depth: bool = True,
        flip_albedo: bool = True,
        normal_epsilon: float = 0.0,
        shading: bool = True,
        convex_start_steps: int = 0,
        convex_start_rate: float = 1e-3,
    ) -> None:
        super().__init__(
            encoders,
            renderer,
            camera,
            image_size,
            depth_min=depth_min,
            depth_max=depth_max,
            border_depth=border_depth,
            repeated_rows=repeated_rows,
            rotation_range=rotation_range,
            translation_range=translation_range,
            translation_z_range=translation_z_range,
            ambient_range=ambient_range,
            diffuse_range=diffuse_range,
            normal_epsilon=normal_epsilon,
            shading=shading,
        )
        self.flip_depth, self.flip_albedo = flip_depth, flip_albedo
        self.warm_start_steps, self.warm_start_rate = convex_start_steps, convex_start_rate
        self.warm_start_name = "convex start"

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
            diagnostics={
                "canonical_depth": factors.depth.detach(),
                "view": factors.view.detach(),
                "view_range": self._view_scale,
                "coverage": mask.mean((1, 2)),
                "depth_range": self._depth_limits,
            },
        )

    def health(self, output: ModelOutput, *, settled: bool) -> list[Finding]:
        """Flat, hollow, rough or equal shapes, views that turn away, confidence that runs away."""
        sigmas = {name: pair.spreads[0] for name, pair in output.pairs.items() if pair.spreads}
        return shape_findings(output.diagnostics, REMEDIES, settled=settled) + sigma_findings(sigmas, REMEDIES)

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

    def convex_depth(self) -> Tensor:
        """The ellipsoid (H, W) that the convex start fits.

        For depths in [0.9, 1.1] it is 1.06 − 0.11 √(1 − (x/0.8)² − (y/0.95)²), with x and y in [−1, 1].
        """
        parameter = next(self.parameters())
        axis = torch.linspace(-1, 1, self.image_size, device=parameter.device)
        bump = (1 - (axis / 0.8).square() - (axis[:, None] / 0.95).square()).clamp(min=0).sqrt()
        low, high = self.depth_range
        return low + (high - low) * (0.8 - 0.55 * bump)

    def warm_start_loss(self, batch: Batch) -> Tensor:
        """What the convex start minimises: squared distance to the ellipsoid, in units of the depth range."""
        low, high = self.depth_range
        error = (self.depth_of(self.encoders["depth"](batch.image * 2 - 1)) - self.convex_depth()) / (high - low)
        return error[:, :, 2:-2].square().mean()

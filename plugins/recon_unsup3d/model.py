"""Unsup3D (Wu et al., CVPR 2020): an image becomes depth, albedo, light and view of a probably symmetric object."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recon_toolkit import Batch, ImagePair, ModelOutput, Reconstruction, Rendering
from recon_toolkit.geometry import Camera, normals_from_depth, shade
from recon_toolkit.rendering import render_object, warp_to_view

Renderer = Callable[[Tensor, Tensor, Tensor], Rendering]


@dataclass(frozen=True)
class Canonical:
    """The object in its own frame, for B images."""

    depth: Tensor  # (B, H, W) in depth_range
    albedo: Tensor  # (B, 3, H, W) in [0, 1]
    light: Tensor  # (B, 5): ambient, diffuse, direction
    view: Tensor  # (B, 6)


class Unsup3D(nn.Module):
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

    #: What training reads of a data set: no ground truth.
    batch_fields = ("image",)
    _view_scale: Tensor
    _depth_limits: Tensor

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        renderer: Renderer,
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
        super().__init__()
        if renderer is None:
            raise ValueError("the model needs a renderer: set renderer.name, e.g. to depth-mesh")
        if not 0 < depth_min < depth_max:
            raise ValueError(f"depth_min {depth_min} must be above 0 and below depth_max {depth_max}")
        self.encoders = nn.ModuleDict(dict(encoders))
        self.renderer, self.camera, self.image_size = renderer, camera, image_size
        self.depth_range = (depth_min, depth_max)
        self.border_depth = 0.7 * depth_max + 0.3 * depth_min if border_depth is None else border_depth
        if not 0 <= repeated_rows < image_size // 2:
            raise ValueError(f"repeated_rows {repeated_rows} must be 0 or more, and less than half the image's side")
        self.repeated_rows = repeated_rows
        rotation = math.radians(rotation_range)
        self.view_range = (rotation,) * 3 + (translation_range, translation_range, translation_z_range)
        self.ambient_range, self.diffuse_range = ambient_range, diffuse_range
        self.flip_depth, self.flip_albedo, self.shading = flip_depth, flip_albedo, shading
        self.normal_epsilon = normal_epsilon
        self.warm_start_steps, self.warm_start_rate = convex_start_steps, convex_start_rate
        # Made once: a tensor made of numbers in every step would be a copy to the device that waits for it.
        self.register_buffer("_view_scale", torch.tensor(self.view_range), persistent=False)
        self.register_buffer("_depth_limits", torch.tensor(self.depth_range), persistent=False)

    @property
    def unused_encoders(self) -> frozenset[str]:
        """Roles whose networks no output depends on, so that no gradient reaches them: without shading, the light's."""
        return frozenset() if self.shading else frozenset({"light"})

    @classmethod
    def encoder_channels(cls, **_options: Any) -> dict[str, tuple[int, int]]:
        """Channels in and out of each role's network; ``confidence`` may be left out of a pipeline."""
        return {"depth": (3, 1), "albedo": (3, 3), "light": (3, 4), "view": (3, 6), "confidence": (3, 2)}

    @classmethod
    def optional_encoders(cls) -> frozenset[str]:
        """Roles that a pipeline may leave out."""
        return frozenset({"confidence"})

    @classmethod
    def image_pairs(cls, flip_depth: bool, flip_albedo: bool) -> frozenset[str]:
        """What a loss term's ``of`` can name."""
        return frozenset({"plain", "flipped"} if flip_depth or flip_albedo else {"plain"})

    def canonical(self, images: Tensor) -> Canonical:
        """Images (B, 3, H, W) in [0, 1] → the factors of each."""
        inputs = images * 2 - 1
        return Canonical(
            depth=self._depth(inputs),
            albedo=torch.tanh(self.encoders["albedo"](inputs).float()) / 2 + 0.5,
            light=self._light(inputs),
            view=torch.tanh(self.encoders["view"](inputs).float()) * self._view_scale,
        )

    def _depth(self, inputs: Tensor) -> Tensor:
        raw = self.encoders["depth"](inputs).float()[:, 0]
        low, high = self.depth_range
        depth = (torch.tanh(raw - raw.mean((1, 2), keepdim=True)) + 1) / 2 * (high - low) + low
        # The outermost columns lie at a fixed depth, so that the object cannot fill the whole picture.
        depth = F.pad(depth[:, :, 2:-2], (2, 2), value=self.border_depth)
        rows = self.repeated_rows
        return F.pad(depth[:, None, rows:-rows], (0, 0, rows, rows), mode="replicate")[:, 0] if rows else depth

    def _light(self, inputs: Tensor) -> Tensor:
        raw = torch.tanh(self.encoders["light"](inputs).float())
        strengths = []
        for value, (low, high) in zip(raw[:, :2].unbind(1), (self.ambient_range, self.diffuse_range), strict=True):
            strengths.append((value + 1) / 2 * (high - low) + low)
        direction = torch.cat((raw[:, 2:], torch.ones_like(raw[:, :1])), dim=1)
        return torch.cat((torch.stack(strengths, 1), F.normalize(direction, dim=1)), dim=1)

    def _normals(self, depth: Tensor) -> Tensor:
        return normals_from_depth(depth, self.camera, epsilon=self.normal_epsilon)

    def _lit(self, depth: Tensor, albedo: Tensor, light: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Canonical image, shading and normals."""
        normals = self._normals(depth)
        if not self.shading:
            return albedo, torch.ones_like(albedo[:, :1]), normals
        image, shading = shade(albedo, normals, light)
        return image, shading, normals

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
        image, _, _ = self._lit(depth, albedo, light)
        rendering = render_object(self.renderer, depth, image, albedo, light if self.shading else None, view)
        mask = rendering.mask.reshape(repeats, count, *rendering.mask.shape[1:]).all(0).to(image.dtype).detach()
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
        error = (self._depth(batch.image * 2 - 1) - self.convex_depth()) / (high - low)
        return error[:, :, 2:-2].square().mean()

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Reconstruction:
        """Everything the model sees in images (B, 3, H, W) in [0, 1]; H = W = image_size."""
        factors, spreads = self.canonical(images), self._spreads(images).get("plain")
        with torch.autocast(images.device.type, enabled=False):
            return self._reconstruction(images, factors, spreads)

    def _reconstruction(self, images: Tensor, factors: Canonical, spreads: tuple[Tensor, ...] | None) -> Reconstruction:
        lit, shading, normals = self._lit(factors.depth, factors.albedo, factors.light)
        light = factors.light if self.shading else None
        rendering = render_object(self.renderer, factors.depth, lit, factors.albedo, light, factors.view)
        maps = torch.cat((factors.albedo, shading), dim=1)
        warped = warp_to_view(maps, rendering.depth, factors.view, self.camera)
        return Reconstruction(
            image=images,
            depth=rendering.depth,
            mask=rendering.mask,
            normals=self._normals(rendering.depth),
            albedo=warped[:, :3],
            shading=warped[:, 3:],
            reconstruction=rendering.image.clamp(0, 1),
            canonical_depth=factors.depth,
            canonical_albedo=factors.albedo,
            canonical_normals=normals,
            canonical_shading=shading,
            canonical_image=lit.clamp(0, 1),
            light=factors.light,
            view=factors.view,
            confidence=spreads[0] if spreads else None,
        )

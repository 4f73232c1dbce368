"""What methods that take an image apart into depth, albedo, light and view share (Wu et al., CVPR 2020, Sec. 3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recon_toolkit.geometry import Camera, normals_from_depth, shade
from recon_toolkit.models.health import Finding, Remedies, shape_findings, sigma_findings
from recon_toolkit.models.model import Model
from recon_toolkit.rendering import render_object, warp_to_view
from recon_toolkit.structures import Batch, ModelOutput, Reconstruction, Rendering

Renderer = Callable[[Tensor, Tensor, Tensor], Rendering]


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


@dataclass(frozen=True)
class Canonical:
    """Objects in their own frame, for B images."""

    depth: Tensor  # (B, H, W) in depth_range
    albedo: Tensor  # (B, 3, H, W) in [0, 1]
    light: Tensor  # (B, 5): ambient, diffuse, direction
    view: Tensor  # (B, 6)


@dataclass(frozen=True)
class Lit:
    """Objects in their own frame in their light, for B images."""

    image: Tensor  # (B, 3, H, W); brighter than 1 where the light is strong
    shading: Tensor  # (B, 1, H, W)
    normals: Tensor  # (B, 3, H, W)


class PhotoGeometric(Model):
    """A model with canonical depth, albedo, light and view: how they come of what networks say, and an image of them.

    A subclass has the encoders ``depth`` (1 channel out), ``albedo`` (3), ``light`` (4) and ``view`` (6), and a
    ``forward`` of its own; :meth:`canonical`, :meth:`lit`, :meth:`render` and :meth:`reconstruct` are what it is made
    of. It may override :meth:`canonical`, for a code that several images share for example, and keeps the rest.

    Args:
        encoders: networks by role.
        renderer: callable (canonical depth, canonical image, view) → Rendering.
        camera: the camera of all views.
        image_size: side of the square images in pixels.
        depth_min, depth_max: range of the canonical depth, in units of the object's distance.
        border_depth: depth of the two outermost columns on either side; 0.7 max + 0.3 min if not given.
        repeated_rows: outermost rows above and below that take the depth of the next one inside. The published 0
            leaves them free: no normal sees the outermost ones, and where the head meets the upper border they may
            fold into a shelf before the forehead, which does not go away again.
        rotation_range: largest rotation about each axis, in degrees.
        translation_range, translation_z_range: largest translations along x and y, and along z.
        ambient_range, diffuse_range: ranges of the light's strengths.
        normal_epsilon: see :func:`~recon_toolkit.geometry.normals_from_depth`; 1e-7 in the original's code.
        shading: multiply the albedo by the shading of the light; without it the albedo is the image.
        convex_start_steps: steps in which the depth network is fitted to an ellipsoid before training starts, as
            GAN2Shape does. Short schedules need it: from a flat start, views roll out of the picture.
        convex_start_rate: learning rate of those steps.

    Raises:
        ValueError: there is no renderer, or a range makes no sense.
    """

    #: What training reads of a data set: no ground truth.
    batch_fields: Collection[str] | None = ("image",)
    _view_scale: Tensor
    _depth_limits: Tensor

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        renderer: Renderer | None,
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
        self.normal_epsilon, self.shading = normal_epsilon, shading
        self.warm_start_steps, self.warm_start_rate = convex_start_steps, convex_start_rate
        self.warm_start_name = "convex start"
        # Made once: a tensor made of numbers in every step would be a copy to the device that waits for it.
        self.register_buffer("_view_scale", torch.tensor(self.view_range), persistent=False)
        self.register_buffer("_depth_limits", torch.tensor(self.depth_range), persistent=False)

    @property
    def unused_encoders(self) -> frozenset[str]:
        """Without shading, no gradient reaches the light's network."""
        return frozenset() if self.shading else frozenset({"light"})

    @classmethod
    def encoder_channels(cls, **_options: Any) -> dict[str, tuple[int, int]]:
        """Channels in and out of each role's network."""
        return {"depth": (3, 1), "albedo": (3, 3), "light": (3, 4), "view": (3, 6)}

    def canonical(self, images: Tensor) -> Canonical:
        """Images (B, 3, H, W) in [0, 1] → the factors of each."""
        inputs = images * 2 - 1
        return Canonical(
            depth=self.depth_of(self.encoders["depth"](inputs)),
            albedo=self.albedo_of(self.encoders["albedo"](inputs)),
            light=self.light_of(self.encoders["light"](inputs)),
            view=self.view_of(self.encoders["view"](inputs)),
        )

    def depth_of(self, raw: Tensor) -> Tensor:
        """A network's answer (B, 1, H, W) → depth (B, H, W) in range, about the same mean in every image.

        The outermost columns lie at a fixed depth, so that the object cannot fill the whole picture.
        """
        raw = raw.float()[:, 0]
        low, high = self.depth_range
        depth = (torch.tanh(raw - raw.mean((1, 2), keepdim=True)) + 1) / 2 * (high - low) + low
        depth = F.pad(depth[:, :, 2:-2], (2, 2), value=self.border_depth)
        rows = self.repeated_rows
        return F.pad(depth[:, None, rows:-rows], (0, 0, rows, rows), mode="replicate")[:, 0] if rows else depth

    def albedo_of(self, raw: Tensor) -> Tensor:
        """A network's answer (B, 3, H, W) → albedo in [0, 1]."""
        return torch.tanh(raw.float()) / 2 + 0.5

    def light_of(self, raw: Tensor) -> Tensor:
        """A network's answer (B, 4) → ambient and diffuse strength in range, and a direction from before: (B, 5)."""
        raw = torch.tanh(raw.float())
        strengths = []
        for value, (low, high) in zip(raw[:, :2].unbind(1), (self.ambient_range, self.diffuse_range), strict=True):
            strengths.append((value + 1) / 2 * (high - low) + low)
        direction = torch.cat((raw[:, 2:], torch.ones_like(raw[:, :1])), dim=1)
        return torch.cat((torch.stack(strengths, 1), F.normalize(direction, dim=1)), dim=1)

    def view_of(self, raw: Tensor) -> Tensor:
        """A network's answer (B, 6) → rotation and translation in range."""
        return torch.tanh(raw.float()) * self._view_scale

    def normals(self, depth: Tensor) -> Tensor:
        """Unit normals (B, 3, H, W) of depth (B, H, W)."""
        return normals_from_depth(depth, self.camera, epsilon=self.normal_epsilon)

    def lit(self, depth: Tensor, albedo: Tensor, light: Tensor) -> Lit:
        """The canonical object in its light."""
        normals = self.normals(depth)
        if not self.shading:
            return Lit(albedo, torch.ones_like(albedo[:, :1]), normals)
        image, shading = shade(albedo, normals, light)
        return Lit(image, shading, normals)

    def render(self, depth: Tensor, image: Tensor, albedo: Tensor, light: Tensor, view: Tensor) -> Rendering:
        """The canonical object in the input view, by the pipeline's renderer."""
        return render_object(self.renderer, depth, image, albedo, light if self.shading else None, view)

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

    def diagnostics(self, factors: Canonical, mask: Tensor) -> dict[str, Tensor]:
        """What :meth:`health` reads of an output; ``mask`` (B, H, W) is that of the plain reconstruction."""
        return {
            "canonical_depth": factors.depth.detach(),
            "view": factors.view.detach(),
            "view_range": self._view_scale,
            "coverage": mask.mean((1, 2)),
            "depth_range": self._depth_limits,
        }

    def health(self, output: ModelOutput, *, settled: bool) -> list[Finding]:
        """Flat, hollow, rough or equal shapes, views that turn away, confidence that runs away."""
        sigmas = {name: pair.spreads[0] for name, pair in output.pairs.items() if pair.spreads}
        found = shape_findings(output.diagnostics, REMEDIES, settled=settled) if output.diagnostics else []
        return found + sigma_findings(sigmas, REMEDIES)

    def confidence(self, images: Tensor) -> Tensor | None:
        """σ (B, 1, H, W) of the plain reconstruction, where the method has one."""
        return None

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Reconstruction:
        """Everything the model sees in images (B, 3, H, W) in [0, 1]; H = W = image_size."""
        factors, confidence = self.canonical(images), self.confidence(images)
        # Geometry needs full precision: above depth 1 a step of bfloat16 is 0.0078, 4 % of the depth's range.
        with torch.autocast(images.device.type, enabled=False):
            lit = self.lit(factors.depth, factors.albedo, factors.light)
            rendering = self.render(factors.depth, lit.image, factors.albedo, factors.light, factors.view)
            maps = torch.cat((factors.albedo, lit.shading), dim=1)
            warped = warp_to_view(maps, rendering.depth, factors.view, self.camera)
            return Reconstruction(
                image=images,
                depth=rendering.depth,
                mask=rendering.mask,
                normals=self.normals(rendering.depth),
                albedo=warped[:, :3],
                shading=warped[:, 3:],
                reconstruction=rendering.image.clamp(0, 1),
                canonical_depth=factors.depth,
                canonical_albedo=factors.albedo,
                canonical_normals=lit.normals,
                canonical_shading=lit.shading,
                canonical_image=lit.image.clamp(0, 1),
                light=factors.light,
                view=factors.view,
                confidence=confidence,
            )

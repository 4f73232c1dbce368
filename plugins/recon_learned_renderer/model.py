"""The model ``learned-renderer``: a learned renderer by itself, taught by an exact one on synthetic factors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recon_learned_renderer.renderer import LAYERS, WIDTH, LearnedRenderer, Prediction
from recon_toolkit import Batch, ImagePair, Model, ModelOutput, ReconError, Rendering
from recon_toolkit.geometry import Camera, normals_from_depth, shade
from recon_toolkit.io.maps import depth_picture
from recon_toolkit.rendering import render_object


@dataclass(frozen=True)
class Factors:
    """What a renderer is given, for B objects."""

    depth: Tensor  # (B, H, W) canonical, within the depth range
    albedo: Tensor  # (B, 3, H, W) canonical, in [0, 1]
    light: Tensor  # (B, 5): ambient, diffuse, direction (3, unit)
    view: Tensor  # (B, 6): rotation x, y, z in radians, translation x, y, z


@dataclass(frozen=True)
class Ranges:
    """What views and lights are drawn from, evenly.

    Args:
        rotation: largest angle about x, y and z, in degrees.
        translation: largest shift along x, y and z.
        ambient, diffuse: strengths of the light.
        side_light: light travels along normalise(x, y, 1) with x and y within ± this.
    """

    rotation: tuple[float, float, float]
    translation: tuple[float, float, float]
    ambient: tuple[float, float]
    diffuse: tuple[float, float]
    side_light: float


def draw(indices: Tensor, ranges: Ranges, seed: int, stream: int) -> tuple[Tensor, Tensor]:
    """Light (B, 5) and view (B, 6) of images, each from a generator of its own.

    An image's numbers depend on its index, the seed and the stream, not on the batch that it comes in; so a run goes
    on as it would have, and threads may divide a batch.

    Args:
        indices: (B,) positions in a split, 0 or more.
        ranges: what to draw from.
        seed: 0 or more.
        stream: 0 for training, 1 for scoring.
    """
    numbers = np.empty((len(indices), 10))
    for row, index in enumerate(indices.tolist()):
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, stream, int(index)))))
        numbers[row] = generator.random(10)
    unit = torch.from_numpy(numbers).to(torch.float32)
    signed = unit[:, :6] * 2 - 1
    limits = [math.radians(angle) for angle in ranges.rotation] + list(ranges.translation)
    view = signed * torch.tensor(limits)
    strengths = [
        low + (high - low) * value
        for (low, high), value in zip((ranges.ambient, ranges.diffuse), unit[:, 6:8].unbind(1), strict=True)
    ]
    side = (unit[:, 8:] * 2 - 1) * ranges.side_light
    direction = F.normalize(torch.cat((side, torch.ones(len(side), 1)), dim=1), dim=1)
    light = torch.cat((torch.stack(strengths, 1), direction), dim=1)
    return light.to(indices.device), view.to(indices.device)


def canonical_object(batch: Batch, depth_range: tuple[float, float], border_depth: float) -> tuple[Tensor, Tensor]:
    """Canonical depth (B, H, W) and albedo (B, 3, H, W): the true ones on the object.

    Around it there is a plane at ``border_depth`` with the picture's own colours, as a model that explains whole
    photographs has it; where the data set has no albedo the picture's colours stand in for it.

    Raises:
        ReconError: the data set has no true depth.
    """
    if batch.depth is None:
        raise ReconError(
            "the model learned-renderer needs true depth, which the data set does not have",
            where="dataset",
            remedy="use one with depth, such as synthetic-faces or depth-pairs",
        )
    mask = torch.ones_like(batch.depth, dtype=torch.bool) if batch.mask is None else batch.mask.bool()
    mask = mask & batch.depth.isfinite()
    depth = batch.depth.where(mask, border_depth).clamp(*depth_range)
    albedo = batch.image if batch.albedo is None else batch.albedo.where(mask[:, None], batch.image)
    return depth, albedo.clamp(0, 1)


def factor_supervision(output: ModelOutput, *, depth_share: float = 1.0, coverage_share: float = 0.4) -> Tensor:
    """Depth and coverage against the exact renderer's: a scalar.

    The mean absolute error of depth where the exact renderer covers a pixel, in units of the depth range, and the
    binary cross-entropy of coverage over all pixels.

    Args:
        output: of the model ``learned-renderer``.
        depth_share, coverage_share: factors of the two.
    """
    factors = output.factors
    low, high = factors["depth_range"].unbind(-1)
    mask = factors["target_mask"]
    error = (factors["depth"] - factors["target_depth"]).abs() * mask
    depth = error.sum() / mask.sum().clamp(min=1) / (high - low)
    return depth_share * depth + coverage_share * F.binary_cross_entropy_with_logits(factors["coverage_logits"], mask)


_TRAINING, _SCORING = 0, 1  # streams of random numbers


class LearnedRendererModel(Model):
    """Trains a :class:`~recon_learned_renderer.renderer.LearnedRenderer` to draw what an exact renderer draws.

    The factors are synthetic: depth and albedo are the data set's true ones, as if each photograph showed its object
    from the front, and a view and a light are drawn for each image by its index. The target is the picture that the
    pipeline's renderer, the teacher, makes of them.

    The pair ``plain`` compares the pictures where the teacher covers a pixel; beyond, its picture shows nothing.
    Pictures brighter than white are white in the target. ``scored_pair`` is the same pair with views and lights that
    training does not draw, so a score on held-out images is one on unseen objects in unseen views.

    Args:
        renderer: the teacher, callable (canonical depth, canonical image, view) → Rendering; never trained here.
        camera: the camera of all views.
        image_size: side of the square images in pixels.
        width, layers: size of the network, see :class:`~recon_learned_renderer.renderer.RendererNetwork`.
        depth_min, depth_max: range of the canonical depth, in units of the object's distance.
        border_depth: depth of the plane around the object; 0.7 max + 0.3 min if not given.
        rotation_range: largest angles about x, y and z, in degrees; views are drawn evenly.
        translation_range: largest shifts along x, y and z.
        ambient_range, diffuse_range: ranges of the light's strengths.
        side_light: light travels along normalise(x, y, 1) with x and y within ± this.
        factor_seed: of the views and lights.

    Raises:
        ReconError: the pipeline has no renderer, or the data set no depth.
    """

    #: What training reads of a data set.
    batch_fields = ("image", "depth", "mask", "albedo")

    def __init__(
        self,
        renderer: Callable[[Tensor, Tensor, Tensor], Rendering] | None,
        camera: Camera,
        image_size: int,
        *,
        width: int = WIDTH,
        layers: int = LAYERS,
        depth_min: float = 0.9,
        depth_max: float = 1.1,
        border_depth: float | None = None,
        rotation_range: tuple[float, float, float] = (30.0, 60.0, 30.0),
        translation_range: tuple[float, float, float] = (0.02, 0.02, 0.0),
        ambient_range: tuple[float, float] = (0.0, 1.0),
        diffuse_range: tuple[float, float] = (0.0, 1.0),
        side_light: float = 1.0,
        factor_seed: int = 0,
    ) -> None:
        super().__init__()
        if renderer is None:
            raise ReconError(
                "the model learned-renderer learns from the pipeline's renderer, and there is none",
                where="renderer",
                remedy="add one, such as renderer: {name: depth-mesh}",
            )
        if not 0 < depth_min < depth_max:
            raise ValueError(f"depth_min {depth_min} must be above 0 and below depth_max {depth_max}")
        if factor_seed < 0:
            raise ValueError(f"factor_seed is 0 or more, not {factor_seed}")
        self.depth_range = (depth_min, depth_max)
        self.border_depth = 0.7 * depth_max + 0.3 * depth_min if border_depth is None else border_depth
        self.ranges = Ranges(
            rotation=rotation_range,
            translation=translation_range,
            ambient=ambient_range,
            diffuse=diffuse_range,
            side_light=side_light,
        )
        self.camera, self.factor_seed = camera, factor_seed
        self.teacher = renderer.requires_grad_(False) if isinstance(renderer, nn.Module) else renderer
        self.student = LearnedRenderer(camera=camera, depth_range=self.depth_range, width=width, layers=layers)
        self.student.set_image_size(image_size)

    @classmethod
    def image_pairs(cls, **_options: Any) -> frozenset[str]:
        """What a loss term's ``of`` can name."""
        return frozenset({"plain"})

    def factors(self, batch: Batch, stream: int) -> Factors:
        """The synthetic factors of a batch."""
        depth, albedo = canonical_object(batch, self.depth_range, self.border_depth)
        light, view = draw(batch.index, self.ranges, self.factor_seed, stream)
        return Factors(depth=depth, albedo=albedo, light=light, view=view)

    @torch.no_grad()
    def target(self, factors: Factors) -> tuple[Rendering, Tensor]:
        """What the teacher draws, and the lit image (B, 3, H, W) in the canonical view that it draws it from."""
        # Geometry needs full precision.
        with torch.autocast(factors.depth.device.type, enabled=False):
            image, _ = shade(factors.albedo, normals_from_depth(factors.depth, self.camera), factors.light)
            drawn = render_object(self.teacher, factors.depth, image, factors.albedo, factors.light, factors.view)
        return drawn, image

    def forward(self, batch: Batch) -> ModelOutput:
        """The pair ``plain`` of a batch, with depth and coverage of both renderers among the factors."""
        factors = self.factors(batch, _TRAINING if self.training else _SCORING)
        target, _ = self.target(factors)
        found = self._predict(factors)
        return ModelOutput(
            pairs={"plain": _pair(found, target)},
            factors={
                "canonical_depth": factors.depth,
                "canonical_albedo": factors.albedo,
                "light": factors.light,
                "view": factors.view,
                "depth": found.depth,
                "coverage_logits": found.coverage,
                "target_depth": target.depth,
                "target_mask": target.mask.to(found.coverage.dtype),
                "depth_range": factors.depth.new_tensor(self.depth_range),
            },
        )

    def _predict(self, factors: Factors) -> Prediction:
        return self.student.predict(factors.depth, factors.albedo, factors.light, factors.view)

    @torch.no_grad()
    def scored_pair(self, batch: Batch) -> ImagePair:
        """Prediction and target in views and lights kept for scoring, with the teacher's mask."""
        factors = self.factors(batch, _SCORING)
        return _pair(self._predict(factors), self.target(factors)[0])

    @torch.no_grad()
    def sheet_columns(self, batch: Batch) -> dict[str, Tensor]:
        """Columns of the contact sheet, (B, C, H, W) in [0, 1]: what goes in, the target, and what comes out."""
        factors = self.factors(batch, _SCORING)
        target, lit = self.target(factors)
        found = self.student.render_factors(factors.depth, factors.albedo, factors.light, factors.view)
        limits: dict[str, Any] = {"depth_range": (self.student.nearest, self.student.background)}
        return {
            "given depth": depth_picture(factors.depth),
            "albedo": factors.albedo,
            "lit": lit.clamp(0, 1),
            "target": target.image.clamp(0, 1).where(target.mask[:, None], 0.5),
            "prediction": found.image.where(found.mask[:, None], 0.5),
            "target depth": depth_picture(target.depth, target.mask, **limits),
            "predicted depth": depth_picture(found.depth, found.mask, **limits),
        }


def _pair(found: Prediction, target: Rendering) -> ImagePair:
    return ImagePair(found.image, target.image.clamp(0, 1), target.mask.to(found.image.dtype))

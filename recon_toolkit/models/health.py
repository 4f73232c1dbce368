"""Ways in which the training of shapes goes wrong, recognised from a few cheap numbers and named in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from pydantic import BaseModel
from torch import Tensor


class Finding(BaseModel):
    """A failure that the health check sees: its short name, what it means, what to try."""

    name: str
    message: str
    remedy: str


@dataclass(frozen=True)
class Remedies:
    """What a method says to try when its training goes wrong.

    Attributes:
        start: of a flat or hollow shape, and of views that turn away.
        smooth: of a shape that is rough.
        alive: of one shape for all.
        rate: of numbers that run away.
    """

    start: str
    smooth: str
    alive: str
    rate: str


def shape_findings(diagnostics: Mapping[str, Tensor], remedies: Remedies, *, settled: bool) -> list[Finding]:
    """What is wrong with the canonical shapes, views and coverage of a method that has them.

    Args:
        diagnostics: ``canonical_depth`` (B, H, W) with ``depth_range`` (2,), ``view`` (B, 6) with ``view_range`` (6,),
            and ``coverage`` (B,), each optional.
        remedies: what to say to each.
        settled: training is past its start, when all shapes are alike.
    """
    found: list[Finding] = []
    if "canonical_depth" in diagnostics and "depth_range" in diagnostics:
        depth = diagnostics["canonical_depth"].float()
        found += _depth(depth, diagnostics["depth_range"], remedies)
        found += _one_shape(depth, diagnostics["depth_range"], remedies) if settled else []
    if "view" in diagnostics and "view_range" in diagnostics:
        found += _view(diagnostics["view"].float(), diagnostics["view_range"], remedies)
    if "coverage" in diagnostics:
        found += _coverage(float(diagnostics["coverage"].mean()), remedies)
    return found


def sigma_findings(sigmas: Mapping[str, Tensor], remedies: Remedies) -> list[Finding]:
    """Confidence maps (B, 1, H, W) by image pair that ran away."""
    found = []
    for name, sigma in sigmas.items():
        mean = float(sigma.mean())
        if mean > 2 or mean < 2e-3:
            message = f"the confidence of the {name} reconstruction ran away (mean σ {mean:.3g})"
            found.append(_finding(f"confidence-{name}", message, remedies.rate))
    return found


def _finding(name: str, message: str, remedy: str) -> Finding:
    return Finding(name=name, message=message, remedy=remedy)


def _depth(depth: Tensor, depth_range: Tensor, remedies: Remedies) -> list[Finding]:
    """Flat, saturated or hollow canonical depth, judged without the border columns."""
    low, high = depth_range.tolist()
    inner = depth[:, :, 3:-3]
    height, width = inner.shape[1:]
    found = []
    relief = float(inner.flatten(1).std(1).mean()) / (high - low)
    if relief < 0.02:
        found.append(_finding("flat-depth", f"the depth is flat (relief {relief:.1%} of its range)", remedies.start))
    mixed = inner[:, 1:, 1:] - inner[:, 1:, :-1] - inner[:, :-1, 1:] + inner[:, :-1, :-1]
    spread = inner.flatten(1).std(1)[:, None, None]
    # Mean of |mixed| / spread, measured: 0.006 on a sound model, 0.48 on a ruined one. By share of the pixels, for a
    # silhouette has large values too, but few.
    if relief >= 0.02 and float((mixed.abs() > 0.1 * spread).float().mean()) > 0.5:
        message = "the depth is a checkerboard, to which normals by central differences are blind"
        found.append(_finding("rough-depth", message, remedies.smooth))
    margin = 0.02 * (high - low)
    saturated = float(((inner < low + margin) | (inner > high - margin)).float().mean())
    if saturated > 0.4:
        message = f"{saturated:.0%} of the depth sits at the limits of its range: the shape is over-deep"
        found.append(_finding("over-deep", message, remedies.smooth))
    v, u = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    radius = (u.square() + v.square()).to(inner.device).flatten()
    radius = radius - radius.mean()
    mean = inner.mean(0).flatten()
    correlation = float((radius * (mean - mean.mean())).sum() / (radius.norm() * (mean - mean.mean()).norm() + 1e-12))
    if relief >= 0.02 and correlation < -0.3:
        message = "the shape is hollow: its centre is farther than its rim"
        found.append(_finding("inverted-depth", message, remedies.start))
    return found


def _one_shape(depth: Tensor, depth_range: Tensor, remedies: Remedies) -> list[Finding]:
    """The same canonical depth for every image of the batch."""
    if len(depth) < 4:
        return []
    low, high = depth_range.tolist()
    spread = float(depth[:, 3:-3, 3:-3].std(0).mean()) / (high - low)
    # Measured on synthetic faces: 0.000 where the bottleneck was dead, 0.009 to 0.018 where shapes differ a little.
    if not spread < 0.0025:  # so that NaN, of which "nan" tells, is none
        return []
    message = f"all images get the same shape (its spread over a batch is {spread:.2%} of the depth's range)"
    return [_finding("one-shape", message, remedies.alive)]


def _view(view: Tensor, view_range: Tensor, remedies: Remedies) -> list[Finding]:
    """All views alike and far from frontal, or pinned to the limit."""
    found = []
    rotation, limit = view[:, :3], view_range[:3]
    pinned = float((rotation.abs() > 0.95 * limit).any(1).float().mean())
    if pinned > 0.5:
        message = f"{pinned:.0%} of the views sit at the limit of their range"
        found.append(_finding("view-limit", message, remedies.start))
    mean, spread = rotation.mean(0).abs(), rotation.std(0, correction=0)
    turned = mean > math.radians(25)
    if len(view) > 1 and bool((turned & (spread < 0.3 * mean)).any()):
        degrees = ", ".join(f"{math.degrees(v):.0f}°" for v in rotation.mean(0).tolist())
        message = f"the views have collapsed: nearly every image is seen from the same turned side (mean {degrees})"
        found.append(_finding("view-collapse", message, remedies.start))
    return found


def _coverage(coverage: float, remedies: Remedies) -> list[Finding]:
    if not coverage < 0.4:  # so that NaN, of which "nan" tells, is none
        return []
    message = f"the object covers {coverage:.0%} of the picture: it lowers the loss by leaving it (mask escape)"
    return [_finding("mask-escape", message, remedies.start)]

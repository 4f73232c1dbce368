"""The renderer under test: how it is built and called, always through the renderer protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from recon_toolkit.conformance.truth import CAMERA, DEPTH_RANGE
from recon_toolkit.structures import Rendering

Factory = Callable[..., Any]


class ProtocolFault(Exception):
    """The renderer's answer is no rendering of the object; says what it is instead."""


@dataclass(frozen=True)
class Gradients:
    """A rendering, and the gradients of one scalar of it."""

    rendering: Rendering
    depth: Tensor  # (B, H, W)
    image: Tensor  # (B, C, H, W)
    view: Tensor  # (B, 6)

    def finite(self) -> bool:
        return all(bool(g.isfinite().all()) for g in (self.depth, self.image, self.view))


class Subject:
    """Builds the renderer once and calls it with checks on what it returns.

    Args:
        factory: called with ``camera`` and ``depth_range``; returns the renderer.
        device: where everything runs.
    """

    def __init__(self, factory: Factory, device: torch.device | str = "cpu") -> None:
        self.factory, self.device = factory, torch.device(device)

    @cached_property
    def renderer(self) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            built = self.factory(camera=CAMERA, depth_range=DEPTH_RANGE)
        return built.to(self.device) if isinstance(built, nn.Module) else built

    @cached_property
    def double(self) -> bool:
        """Whether it takes float64 and answers in it."""
        depth = torch.ones(1, 16, 16, dtype=torch.float64)
        try:
            return self(depth, torch.full((1, 3, 16, 16), 0.5).double(), torch.zeros(1, 6).double()).depth.dtype == (
                torch.float64
            )
        except Exception:
            return False

    @property
    def best(self) -> torch.dtype:
        """The most exact type that it takes."""
        return torch.float64 if self.double else torch.float32

    def __call__(self, depth: Tensor, image: Tensor, view: Tensor) -> Rendering:
        """Render, on the subject's device.

        Raises:
            ProtocolFault: what comes back has another form than the protocol says.
        """
        found = self.renderer(depth.to(self.device), image.to(self.device), view.to(self.device))
        batch, height, width = depth.shape
        shapes = {
            "image": (batch, image.shape[1], height, width),
            "depth": (batch, height, width),
            "mask": (batch, height, width),
        }
        for name, shape in shapes.items():
            value = getattr(found, name, None)
            if not isinstance(value, Tensor):
                raise ProtocolFault(f"it returned a {type(found).__name__} whose '{name}' is no tensor")
            if tuple(value.shape) != shape:
                raise ProtocolFault(f"its {name} has the shape {tuple(value.shape)}, not {shape}")
        if found.mask.dtype != torch.bool:
            raise ProtocolFault(f"its mask is {found.mask.dtype}, not torch.bool")
        return found  # type: ignore[no-any-return]

    def gradients(
        self, depth: Tensor, image: Tensor, view: Tensor, loss: Callable[[Rendering], Tensor] | None = None
    ) -> Gradients:
        """Gradients of a scalar: by default the sum of all depths and colours. Zeros where none arrives."""
        inputs = [t.detach().clone().to(self.device).requires_grad_() for t in (depth, image, view)]
        with torch.enable_grad():
            found = self(*inputs)
            total = loss(found) if loss is not None else found.depth.sum() + found.image.sum()
            grads = (
                torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)
                if total.requires_grad
                else [torch.zeros_like(t) for t in inputs]
            )
        return Gradients(found, *grads)


def smooth_image(batch: int, size: int, dtype: torch.dtype = torch.float32, channels: int = 3) -> Tensor:
    """A smooth picture (batch, channels, size, size) in [0, 1], another in each channel and of each item."""
    axis = torch.linspace(0, 1, size, dtype=torch.float64)
    waves = [
        torch.sin(3.0 * (k % 3 + 1) * axis + k)[:, None] * torch.cos(4.0 * axis - 0.7 * k)[None]
        for k in range(batch * channels)
    ]
    return (torch.stack(waves) * 0.45 + 0.5).reshape(batch, channels, size, size).to(dtype)

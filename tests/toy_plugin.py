"""A small plugin with one component of each kind, as a third party would write it; tests load it by its path."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recon_toolkit import Model, dataset, encoder, loss, model, renderer


@encoder("toy-encoder")
class ToyEncoder(nn.Module):
    """One linear layer."""

    def __init__(self, in_channels: int, out_channels: int, image_size: int, *, width: int = 8, norm: bool = True):
        super().__init__()
        if width % 2:
            raise ValueError(f"width {width} is odd")
        self.shape = (in_channels, out_channels, image_size)
        self.layer = nn.Linear(in_channels, out_channels * width)


@encoder("not-a-module")
def function_encoder(in_channels: int, out_channels: int, image_size: int) -> int:
    """Returns a number."""
    return in_channels


@renderer("toy-renderer")
class ToyRenderer:
    """Keeps what it is given."""

    def __init__(self, *, camera: Any, depth_range: tuple[float, float], supersampling: int = 2):
        self.camera, self.depth_range, self.supersampling = camera, depth_range, supersampling


@model("toy-model")
class ToyModel(Model):
    """Depth and, if wanted, light."""

    def __init__(
        self,
        encoders: dict[str, nn.Module],
        renderer: Any,
        camera: Any,
        image_size: int,
        *,
        depth_min: float = 0.8,
        depth_max: float = 1.2,
        flip: bool = True,
        light: bool = True,
    ):
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.renderer, self.camera, self.image_size = renderer, camera, image_size

    @classmethod
    def encoder_channels(cls, *, light: bool, **_: Any) -> dict[str, tuple[int, int]]:
        return {"depth": (3, 1), "extra": (3, 9), **({"light": (3, 4)} if light else {})}

    @classmethod
    def optional_encoders(cls, **_: Any) -> set[str]:
        return {"extra"}

    @classmethod
    def image_pairs(cls, flip: bool) -> tuple[str, ...]:
        return ("plain", "flipped") if flip else ("plain",)


@dataset("toy-data")
class ToyData:
    """Options of many types."""

    splits = ("train", "test")

    def __init__(
        self,
        *,
        root: Path | None = None,
        crop: int | tuple[int, int] | None = None,
        mode: Literal["fast", "exact"] = "fast",
        names: list[str] | None = None,
        folders: list[Path] = [],  # noqa: B006  third parties write this
        share: Annotated[float, Field(ge=0, le=1)] = 0.5,
        options: dict[str, float] = {},  # noqa: B006
        untyped=3.0,  # type: ignore[no-untyped-def]
        json: str = "the name of a method of pydantic's",
        device: torch.device = torch.device("cpu"),  # noqa: B008  a default that YAML cannot hold
    ):
        self.root, self.crop, self.folders, self.untyped, self.device = root, crop, folders, untyped, device


@dataset("needs-root")
class NeedsRoot:
    """An option without a default."""

    splits = ("train",)

    def __init__(self, root: Path):
        self.root = root


@loss("toy-colour")
def colour(first: Tensor, second: Tensor, *, scale: float = 1.0) -> Tensor:
    """Difference of colours."""
    return scale * (first - second).abs()


@loss("toy-features")
class Features(nn.Module):
    """A loss with state."""

    def __init__(self, *, layers: int = 2, weights: Path | None = None):
        super().__init__()
        self.layers, self.weights = layers, weights

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).square()


@loss("toy-smooth")
def smooth(output: Any, *, order: int = 1) -> Tensor:
    """Looks at the model's output."""
    return torch.zeros(())


@loss("three-arguments")
def three(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Cannot be called by the core."""
    return a


@loss("weighty")
def weighty(a: Tensor, b: Tensor, *, weight: float = 1.0) -> Tensor:
    """An option with the name of a pipeline's own key."""
    return a


@loss("anything")
def anything(a: Tensor, b: Tensor, **options: Any) -> Tensor:
    """Takes any option."""
    return a

"""The renderer ``learned``: images from factors by a network, with weights from a run that trained it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recon_toolkit import CheckpointError, Rendering
from recon_toolkit.engine.checkpoint import inference_checkpoint
from recon_toolkit.geometry import Camera

#: Side of the patch that a token stands for; two stride-2 convolutions.
PATCH = 4
#: Length of the vector that describes view and light, see :func:`describe`.
DESCRIPTION = 14
#: Frequencies along an axis by which a place is told.
FREQUENCIES = 4
#: Largest translation that is described by a number of about 1, as the angles are.
_TRANSLATION_UNIT = 0.1


def describe(light: Tensor, view: Tensor) -> Tensor:
    """View (B, 6) and light (B, 5) as numbers of about 1: (B, 14): sines, cosines, translation, light."""
    angles = view[:, :3]
    return torch.cat((angles.sin(), angles.cos(), view[:, 3:] / _TRANSLATION_UNIT, light), dim=1)


def positions(height: int, width: int, like: Tensor) -> Tensor:
    """Sines and cosines of the pixels' places, (4 · FREQUENCIES, H, W); the slowest has half a period a side."""
    y = torch.linspace(-1, 1, height, device=like.device)
    x = torch.linspace(-1, 1, width, device=like.device)
    rates = math.pi / 2 * 2 ** torch.arange(FREQUENCIES, device=like.device)
    across, down = rates[:, None] * x, rates[:, None] * y
    return torch.cat(
        [f(a)[:, None, :].expand(-1, height, -1) for a in (across,) for f in (torch.sin, torch.cos)]
        + [f(a)[:, :, None].expand(-1, -1, width) for a in (down,) for f in (torch.sin, torch.cos)]
    )


class FilmBlock(nn.Module):
    """A residual pair of convolutions whose features the description scales and shifts (Perez et al. 2018)."""

    def __init__(self, channels: int, code: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(channels // 8, channels)
        self.film = nn.Linear(code, 2 * channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, features: Tensor, code: Tensor) -> Tensor:
        """(B, C, h, w) and (B, code) → (B, C, h, w)."""
        scale, shift = self.film(code)[:, :, None, None].chunk(2, dim=1)
        hidden = self.first(F.silu(self.norm(features) * (1 + scale) + shift))
        return features + self.second(F.silu(hidden))  # type: ignore[no-any-return]


class Look(nn.Module):
    """Cross-attention: every place of the picture asks the canonical map what is to be seen there."""

    def __init__(self, channels: int, code: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ask = nn.Conv2d(channels, channels, 1)
        self.offer = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        self.norm = nn.GroupNorm(1, channels)
        self.norm_source = nn.GroupNorm(1, channels)
        self.block = FilmBlock(channels, code)

    def forward(self, picture: Tensor, canonical: Tensor, code: Tensor) -> Tensor:
        """(B, C, h, w) twice and (B, code) → (B, C, h, w)."""
        batch, channels, height, width = picture.shape
        source = self.norm_source(canonical)
        query, key, value = (
            part.reshape(batch, self.heads, channels // self.heads, -1).transpose(2, 3)
            for part in (self.ask(self.norm(picture)), self.offer(source), self.value(canonical))
        )
        seen = F.scaled_dot_product_attention(query, key, value)
        picture = picture + self.out(seen.transpose(2, 3).reshape(batch, channels, height, width))
        return self.block(picture, code)  # type: ignore[no-any-return]


class RendererNetwork(nn.Module):
    """Canonical depth, albedo, view and light → picture, depth and coverage.

    Args:
        width: channels at half the image's size, a multiple of 8; twice as many at a quarter of it.
        layers: how often the picture looks at the canonical map.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        if width < 8 or width % 8:
            raise ValueError(f"width is a multiple of 8 (normalisation groups have eight channels), not {width}")
        if layers < 1:
            raise ValueError(f"layers is 1 or more, not {layers}")
        code, inner = 4 * width, 2 * width
        self.code = nn.Sequential(nn.Linear(DESCRIPTION, code), nn.SiLU(), nn.Linear(code, code), nn.SiLU())
        self.enter = nn.Conv2d(4 * 4, width, 3, padding=1)
        self.lit = FilmBlock(width, code)
        self.down = nn.Conv2d(width, inner, 4, stride=2, padding=1)
        self.place = nn.Conv2d(4 * FREQUENCIES, inner, 1)
        self.canonical = nn.ModuleList(FilmBlock(inner, code) for _ in range(2))
        self.blank = FilmBlock(inner, code)
        self.looks = nn.ModuleList(Look(inner, code, heads=max(1, inner // 16)) for _ in range(layers))
        self.up = nn.Conv2d(inner, 4 * width, 3, padding=1)
        self.fine = FilmBlock(width, code)
        self.leave = nn.Conv2d(width, 4 * 5, 3, padding=1)

    def forward(self, depth: Tensor, albedo: Tensor, light: Tensor, view: Tensor) -> Tensor:
        """Raw picture, depth and coverage (B, 5, H, W).

        Args:
            depth: (B, H, W) in [−1, 1].
            albedo: (B, 3, H, W) in [0, 1].
            light: (B, 5).
            view: (B, 6).
        """
        code = self.code(describe(light, view))
        maps = torch.cat((depth[:, None], albedo * 2 - 1), dim=1)
        canonical = self.down(self.lit(self.enter(F.pixel_unshuffle(maps, 2)), code))
        place = self.place(positions(canonical.shape[-2], canonical.shape[-1], canonical))
        canonical = canonical + place
        for block in self.canonical:
            canonical = block(canonical, code)
        picture = self.blank(place.expand_as(canonical), code)
        for look in self.looks:
            picture = look(picture, canonical, code)
        picture = self.fine(F.pixel_shuffle(self.up(picture), 2), code)
        return F.pixel_shuffle(self.leave(picture), 2)


WIDTH, LAYERS = 32, 2
_REMEDY = (
    "train one with `recon run --pipeline learned-renderer --out RUN` and name its folder: --set renderer.weights=RUN"
)


@dataclass(frozen=True)
class Prediction:
    """What the network says of every pixel, covered or not."""

    image: Tensor  # (B, 3, H, W) in [0, 1]
    depth: Tensor  # (B, H, W), half the depth range beyond either end of it at most
    coverage: Tensor  # (B, H, W) logit: above 0 the pixel is covered


class LearnedRenderer(nn.Module):
    """A network from canonical depth, albedo, view and light to the picture, with no geometry of its own.

    Nothing in it warps, projects or rasterises. Image, depth and coverage are all predicted, and mean what the exact
    renderer that taught the network means by them: it was trained on that renderer's picture where this covers a
    pixel, on its depth there, and on its mask everywhere. The image therefore lies in [0, 1], where the exact one may
    be brighter. Gradients flow from image and depth to every factor and to the weights; the mask has none.

    Called as other renderers are, with an image in the place of albedo and light, it takes that for an albedo in
    ambient light of strength 1.

    Args:
        camera, depth_range: of the pipeline; they must be those that the weights were trained for.
        width: channels, a multiple of 8; that of the weights, or 32 without weights.
        layers: how often the picture looks at the canonical map; that of the weights, or 2 without.
        weights: a run folder of the pipeline ``learned-renderer``, or of one that fine-tuned a learned renderer, or
            a safetensors file from either. None: new weights, which only make sense where they are trained.
        trainable: train the weights with the rest of the model; False keeps them as they are.

    Raises:
        CheckpointError: there are no such weights, or they are not a learned renderer's.
        ValueError: the options contradict the weights, or new weights were not to be trained.
    """

    setting: Tensor

    def __init__(
        self,
        *,
        camera: Camera,
        depth_range: tuple[float, float],
        width: int | None = None,
        layers: int | None = None,
        weights: Path | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__()
        if weights is None and not trainable:
            raise ValueError(f"new weights that are not trained render nothing; {_REMEDY}, or set trainable: true")
        stored = {} if weights is None else read_weights(Path(weights))
        width, layers = _shape(stored, width, layers)
        near, far = depth_range
        margin = (far - near) / 2
        self.middle, self.reach = (near + far) / 2, margin
        self.nearest, self.background = near - margin, far + margin
        self.network = RendererNetwork(width, layers)
        #: Nearest and farthest canonical depth, field of view, and image size (0 before there is one): what weights
        #: are good for.
        self.register_buffer("setting", torch.tensor([near, far, camera.fov, 0.0]))
        if stored:
            self._load(stored, str(weights))
        self.requires_grad_(trainable)

    def _load(self, stored: Mapping[str, Tensor], source: str) -> None:
        theirs, ours = stored["setting"], self.setting
        if not torch.allclose(theirs[:3], ours[:3], rtol=0, atol=1e-4):
            said = "depths {:.3g} to {:.3g} and a field of view of {:.3g}°"
            raise ValueError(
                f"the weights in {source} were trained for {said.format(*theirs[:3].tolist())}, "
                f"the pipeline has {said.format(*ours[:3].tolist())}"
            )
        try:
            self.load_state_dict(dict(stored))
        except RuntimeError as error:
            raise CheckpointError(
                f"these are not the weights of a learned renderer: {error}", where=source, remedy=_REMEDY
            ) from error
        self._image_size = int(theirs[3])

    _image_size = 0

    def set_image_size(self, size: int) -> None:
        """Say which size of image the weights are trained at; another one is warned of when they are used."""
        self._image_size = size
        self.setting[3] = size

    def predict(self, depth: Tensor, albedo: Tensor, light: Tensor, view: Tensor) -> Prediction:
        """Image, depth and coverage of every pixel.

        Args:
            depth: canonical depth (B, H, W); H and W multiples of 4, as all powers of two from 4 on are.
            albedo: canonical albedo (B, 3, H, W) in [0, 1].
            light: (B, 5) ambient, diffuse, unit direction.
            view: (B, 6) rotation x, y, z in radians, translation x, y, z.

        Raises:
            ValueError: a side of the image is not a multiple of 4.
        """
        if depth.shape[-2] % PATCH or depth.shape[-1] % PATCH:
            raise ValueError(f"image sides must be multiples of {PATCH}, got {tuple(depth.shape[-2:])}")
        if self._image_size and depth.shape[-1] != self._image_size:
            warnings.warn(
                f"the learned renderer was trained at {self._image_size} pixels and is used at {depth.shape[-1]}",
                stacklevel=2,
            )
        raw = self.network((depth - self.middle) / self.reach, albedo, light, view).float()
        return Prediction(
            image=raw[:, :3].sigmoid(),
            depth=self.nearest + (self.background - self.nearest) * raw[:, 3].sigmoid(),
            coverage=raw[:, 4],
        )

    def render_factors(
        self, canonical_depth: Tensor, canonical_albedo: Tensor, light: Tensor, view: Tensor
    ) -> Rendering:
        """The object in the input view and light; arguments as for :meth:`predict`."""
        found = self.predict(canonical_depth, canonical_albedo, light, view)
        mask = found.coverage > 0
        return Rendering(image=found.image, depth=torch.where(mask, found.depth, self.background), mask=mask)

    def forward(self, canonical_depth: Tensor, canonical_image: Tensor, view: Tensor) -> Rendering:
        """The object in the input view, its image (B, 3, H, W) being lit already."""
        light = view.new_tensor([1.0, 0, 0, 0, 1]).expand(len(view), 5)
        return self.render_factors(canonical_depth, canonical_image, light, view)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state of a learned renderer in a run folder or a safetensors file of one.

    Raises:
        CheckpointError: there is nothing there, it cannot be read, or there is no learned renderer in it.
    """
    if not path.exists():
        raise CheckpointError("there are no weights of a learned renderer here", where=str(path), remedy=_REMEDY)
    saved, file = inference_checkpoint(path)
    tensors = saved.weights
    for prefix in ("student.", "renderer."):
        found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        if "setting" in found and "network.enter.weight" in found:
            return found
    raise CheckpointError("there is no learned renderer in this run", where=str(file), remedy=_REMEDY)


def _shape(stored: Mapping[str, Tensor], width: int | None, layers: int | None) -> tuple[int, int]:
    """Width and layers, as the weights have them where there are any."""
    if not stored:
        return WIDTH if width is None else width, LAYERS if layers is None else layers
    found = len(stored["network.enter.weight"]), len({k.split(".")[2] for k in stored if k.startswith("network.looks")})
    for name, given, own in zip(("width", "layers"), (width, layers), found, strict=True):
        if given is not None and given != own:
            raise ValueError(f"{name} is {given}, but the weights were trained with {own}; leave it out")
    return found

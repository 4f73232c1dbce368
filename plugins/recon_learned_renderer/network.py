"""The network of the learned renderer: convolutions, attention and nothing that knows what a camera is."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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

"""The part of each ray that can meet the surface, as a straight segment in the canonical picture."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from recon_heightfield.surface import FAR, NEAR, Surface

#: Added where zero would give no sign or no quotient.
TINY = 1e-30
#: The slab of depths is widened by this share on either side, so that flat maps have a slab at all.
SLAB_MARGIN = 1e-4


@dataclass(frozen=True)
class Segments:
    """N segments: canonical pixel coordinates, inverse canonical depth and weighted depth, linear in s in [0, 1].

    The depth in the input view, times the inverse canonical depth, is linear too: z = ``weighted`` / ``inverse``.
    """

    image: Tensor  # [N] int32, or int64 if that many pixels need it: which map
    u: Tensor  # [N] at s = 0
    v: Tensor
    inverse: Tensor
    weighted: Tensor
    du: Tensor  # [N] change over the whole segment
    dv: Tensor
    d_inverse: Tensor
    d_weighted: Tensor

    def select(self, index: Tensor) -> Segments:
        """Those of an index (M)."""
        return Segments(*(getattr(self, f.name).index_select(0, index) for f in fields(self)))

    def part(self, first: Tensor, share: Tensor) -> Segments:
        """From s = first (N), with a length of share (N): both in this one's s."""
        starts, changes = (
            (self.u, self.v, self.inverse, self.weighted),
            (self.du, self.dv, self.d_inverse, self.d_weighted),
        )
        moved = (torch.addcmul(a, first, d) for a, d in zip(starts, changes, strict=True))
        return Segments(self.image, *moved, *(d * share for d in changes))

    def height(self, surface: Surface, s: float) -> Tensor:
        """Inverse depth of the surface less the ray's (N) at one s: negative before the surface, NaN over holes."""
        u, v = torch.add(self.u, self.du, alpha=s), torch.add(self.v, self.dv, alpha=s)
        return surface.value(u, v, self.image).sub_(self.inverse).sub_(self.d_inverse, alpha=s)

    def depth(self, s: Tensor) -> Tensor:
        """Depth (N) in the input view at s (N)."""
        return torch.addcmul(self.weighted, s, self.d_weighted) / torch.addcmul(self.inverse, s, self.d_inverse)


def slab(surface: Surface) -> tuple[Tensor, Tensor]:
    """Smallest and largest depth of each map, widened a little: (B), (B); holes aside."""
    largest, smallest = surface.extremes()
    return (1 - SLAB_MARGIN) / largest.flatten(1).amax(1), (1 + SLAB_MARGIN) / smallest.flatten(1).amin(1)


def cut_rays(
    directions: Tensor,  # [B, 3, N]
    origin: Tensor,  # [B, 3]
    slab: tuple[Tensor, Tensor],  # [B], [B]
    focal: float,
    height: int,
    width: int,
) -> tuple[Segments, Tensor]:
    """Cut rays P(z) = z · direction + origin, in the canonical frame, to the slab and to the picture.

    Returns:
        The segments that are not empty, and the places of their rays in (B, N), flat.
    """
    # A ray that runs along the border must not leave the picture by rounding.
    tolerance = 1e-3 if directions.dtype == torch.float32 else 1e-6
    cx, cy = (width - 1) / 2, (height - 1) / 2
    # Half spaces a · P + b ≥ 0, in pixels: the four sides of the picture; then the two sides of the slab.
    sides = directions.new_tensor(
        [
            [focal, 0, cx + tolerance],
            [-focal, 0, cx + tolerance],
            [0, focal, cy + tolerance],
            [0, -focal, cy + tolerance],
        ]
    )
    first = directions.new_full(directions.shape[::2], NEAR)
    last = torch.full_like(first, FAR)
    for along, at in zip((sides @ directions).unbind(1), (origin @ sides.T).unbind(1), strict=True):
        first, last = _clip(first, last, along, at)
    first, last = _clip(first, last, directions[:, 2], origin[:, 2] - slab[0])
    first, last = _clip(first, last, -directions[:, 2], slab[1] - origin[:, 2])
    rays = (first < last).flatten().nonzero()[:, 0]
    image = _image_numbers(first, height * width).index_select(0, rays)
    first, last = first.flatten()[rays], last.flatten()[rays]
    # [3, M] directions and origins of what is left
    directions = directions.transpose(0, 1).reshape(3, -1).index_select(1, rays)
    origin = origin.T.index_select(1, image)
    start = _project(directions, origin, first, focal, cx, cy)
    end = _project(directions, origin, last, focal, cx, cy)
    return Segments(image, *start, *(b.sub_(a) for a, b in zip(start, end, strict=True))), rays


def _clip(first: Tensor, last: Tensor, along: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Keep of first..last (B, N) where along · z + at ≥ 0, with along (B, N) and at (B)."""
    along = along + TINY  # neither zero nor minus zero
    crossing = -at[:, None] / along
    # Infinity with a sign selects one of the two without a branch, which the CPU could not predict.
    inwards = along.mul_(torch.inf)
    return torch.maximum(first, torch.minimum(crossing, inwards)), torch.minimum(last, torch.maximum(crossing, inwards))


def _image_numbers(like: Tensor, pixels: int) -> Tensor:
    """The map's number for each ray of (B, N), flat, in the type that indices of cells and bounds fit in."""
    batch, count = like.shape
    small = batch * pixels * 32 < 2**31
    numbers = torch.arange(batch, dtype=torch.int32 if small else torch.int64, device=like.device)
    return numbers[:, None].expand(batch, count).reshape(-1)


def _project(directions: Tensor, origin: Tensor, z: Tensor, focal: float, cx: float, cy: float) -> list[Tensor]:
    x, y, depth = torch.addcmul(origin, directions, z)
    inverse = 1 / depth
    return [x * inverse * focal + cx, y * inverse * focal + cy, inverse, z * inverse]

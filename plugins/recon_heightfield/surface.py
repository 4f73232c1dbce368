"""The canonical depth map as a surface: inverse depth, bounds over windows, and the first crossing of a ray with it."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

#: Depths outside this range are not drawn, as for the core's rasteriser.
NEAR, FAR = 1e-3, 100.0


@dataclass(frozen=True)
class Samples:
    """The surface at N places: value and slopes of the inverse depth, and where in which cell they were read."""

    value: Tensor  # [N]
    slope_u: Tensor  # [N] per pixel
    slope_v: Tensor  # [N]
    cell: Tensor  # [N] int32 or int64, a row of Surface.cells
    right: Tensor  # [N] position in the cell, 0 to 1
    down: Tensor  # [N]


class Surface:
    """Inverse depth of B maps, to be read at any place of the pixel grid.

    Args:
        depth: (B, H, W); pixels that are not within NEAR..FAR are holes, and so are the cells that they touch.
    """

    def __init__(self, depth: Tensor) -> None:
        self.batch, self.height, self.width = depth.shape
        self.inverse = torch.where((depth > NEAR) & (depth < FAR), 1 / depth, torch.nan)
        a, b = self.inverse[:, :-1, :-1], self.inverse[:, :-1, 1:]
        c, d = self.inverse[:, 1:, :-1], self.inverse[:, 1:, 1:]
        #: (B (H−1) (W−1), 4): value at the upper left, slopes along u and v, and their product's coefficient.
        self.cells = torch.stack((a, b - a, c - a, d - c - b + a), dim=-1).reshape(-1, 4)

    def extremes(self) -> tuple[Tensor, Tensor]:
        """The inverse depth (B, H, W) twice, with numbers in its holes that change no maximum and no minimum."""
        return self.inverse.nan_to_num(nan=1 / FAR), self.inverse.nan_to_num(nan=1 / NEAR)

    def cell_of(self, u: Tensor, v: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cell (N) and position in it (N), (N), of pixel coordinates (N); places outside count as on the border."""
        u, v = u.clamp(0, self.width - 1), v.clamp(0, self.height - 1)
        column, row = u.floor().clamp_(max=self.width - 2), v.floor().clamp_(max=self.height - 2)
        cell = image * ((self.height - 1) * (self.width - 1))
        cell += row.to(cell.dtype).mul_(self.width - 1)
        cell += column.to(cell.dtype)
        return cell, u.sub_(column), v.sub_(row)

    def value(self, u: Tensor, v: Tensor, image: Tensor) -> Tensor:
        """Inverse depth (N) at pixel coordinates (N), (N) of the maps ``image`` (N); NaN in holes."""
        cell, right, down = self.cell_of(u, v, image)
        base, along, across, twist = self.cells.index_select(0, cell).unbind(1)
        return torch.addcmul(base, right, along).addcmul_(torch.addcmul(across, right, twist), down)

    def samples(self, u: Tensor, v: Tensor, image: Tensor) -> Samples:
        """The same with slopes."""
        cell, right, down = self.cell_of(u, v, image)
        base, along, across, twist = self.cells.index_select(0, cell).unbind(1)
        slope_u, slope_v = torch.addcmul(along, down, twist), torch.addcmul(across, right, twist)
        value = torch.addcmul(base, right, along).addcmul_(slope_v, down)
        return Samples(value, slope_u, slope_v, cell, right, down)


class Bounds:
    """Largest and smallest inverse depth over square windows of 1, 2, 4, ... pixels at any place (a sparse table)."""

    def __init__(self, surface: Surface) -> None:
        self.height, self.width = surface.height, surface.width
        inverse = surface.inverse
        largest, smallest = surface.extremes()
        levels = [torch.stack((largest, -smallest), dim=-1)]
        size = 1
        while size < max(self.height, self.width):
            levels.append(_doubled(levels[-1], size))
            size *= 2
        self.level_size = inverse.numel()
        self.table = torch.stack(levels).reshape(-1, 2)

    def over(
        self, first_u: Tensor, last_u: Tensor, first_v: Tensor, last_v: Tensor, image: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Largest and smallest (N), (N) over all cells that a box of pixel coordinates touches."""
        left = first_u.clamp(0, self.width - 2).floor_()
        top = first_v.clamp(0, self.height - 2).floor_()
        columns = last_u.clamp(0, self.width - 2).floor_().sub_(left)
        rows = last_v.clamp(0, self.height - 2).floor_().sub_(top)
        # Cells from column i to column j have the vertices i to j + 1: the window has j − i + 2 of them or more.
        level = torch.maximum(columns, rows).add_(1.5).log2_().ceil_()
        index = image * (self.height * self.width)
        index += top.to(index.dtype).mul_(self.width)
        index += left.to(index.dtype)
        index += level.to(index.dtype).mul_(self.level_size)
        largest, smallest = self.table.index_select(0, index).unbind(1)
        return largest, -smallest


def _doubled(level: Tensor, size: int) -> Tensor:
    """Maxima over windows of twice the size (B, H, W, 2); windows are cut off at the lower and right border."""
    level = torch.cat((torch.maximum(level[:, :, :-size], level[:, :, size:]), level[:, :, -size:]), dim=2)
    return torch.cat((torch.maximum(level[:, :-size], level[:, size:]), level[:, -size:]), dim=1)


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


#: Rounds of bounding before the march. Each shortens most segments several times.
ROUNDS = 2
#: The march goes on with the rays that have not arrived once they are no more than this share of those it carries.
#: Moving them together costs as much as two steps.
REMAINING = 0.6
#: Refinements that every ray gets.
EVERY = 3


def first_crossings(segments: Segments, surface: Surface, *, max_steps: int, refinements: int) -> tuple[Tensor, Tensor]:
    """Where the segments first pass from before the surface to behind it.

    Returns:
        The segments that do (M), in ascending order, and their s (M) in [0, 1].
    """
    bounds = Bounds(surface)
    first, last = torch.zeros_like(segments.u), torch.ones_like(segments.u)
    for _ in range(ROUNDS):
        first, last = _narrow(segments, bounds, first, last)
    length = torch.maximum(segments.du.abs(), segments.dv.abs()).mul_(last - first)
    # No step at all where the bounds have excluded everything.
    steps = length.ceil_().clamp_(1, max_steps).mul_(first <= last)
    stride = (last - first).div_(steps.clamp(min=1))
    arrival = _march(segments.part(first, stride), surface, steps)
    found = arrival.isfinite().nonzero()[:, 0]
    first, stride, arrival = first[found], stride[found], arrival[found]
    low, high = torch.addcmul(first, stride, arrival - 1), torch.addcmul(first, stride, arrival)
    return found, _refine(segments.select(found), surface, low, high, refinements)


def _narrow(segments: Segments, bounds: Bounds, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """Cut first..last (N) to where the ray is neither nearer nor farther than all of the surface that it passes."""
    u, v = torch.addcmul(segments.u, first, segments.du), torch.addcmul(segments.v, first, segments.dv)
    to_u, to_v = torch.addcmul(segments.u, last, segments.du), torch.addcmul(segments.v, last, segments.dv)
    largest, smallest = bounds.over(
        torch.minimum(u, to_u), torch.maximum(u, to_u), torch.minimum(v, to_v), torch.maximum(v, to_v), segments.image
    )
    margin = 16 * torch.finfo(u.dtype).eps
    slope = segments.d_inverse + TINY
    enter = largest.mul(1 + margin).sub_(segments.inverse).div_(slope)
    leave = smallest.mul(1 - margin).sub_(segments.inverse).div_(slope)
    # Only where the canonical depth grows along the ray do these bound it.
    receding = slope * -torch.inf
    return (
        torch.maximum(first, torch.minimum(enter, receding)),
        torch.minimum(last, torch.maximum(leave, -receding)),
    )


def _march(segments: Segments, surface: Surface, steps: Tensor) -> Tensor:
    """The step (N) with which each ray first passes behind the surface, a float; infinity if none of its steps does.

    Args:
        segments: N, with s = 1 at the end of the first step.
        surface: the maps.
        steps: (N) how many to take.
    """
    result = torch.full_like(steps, torch.inf)
    number, arrival, height = torch.arange(len(steps), device=steps.device), result.clone(), segments.height(surface, 0)
    taken = 0
    while len(number):
        taken += 1
        reached = segments.height(surface, taken)
        # Positive for a ray that was before the surface, is not so now, and had this step to take.
        arrives = torch.minimum(-height, reached + TINY).minimum(steps - (taken - 0.5))
        arrival = torch.fmin(arrival, (arrives * -torch.inf).clamp_(min=taken))
        height = reached
        going = (arrival == torch.inf).logical_and_(steps > taken)
        if int(going.sum()) > REMAINING * len(number):
            continue
        result.index_copy_(0, number, arrival)
        keep = going.nonzero()[:, 0]
        number, arrival, height, steps = number[keep], arrival[keep], height[keep], steps[keep]
        segments = segments.select(keep)
    return result


def _refine(segments: Segments, surface: Surface, low: Tensor, high: Tensor, refinements: int) -> Tensor:
    """Newton's iteration from the middle of the bracket low..high (M), and kept within it: s (M) of the crossing."""
    s = (low + high) / 2
    result, number = s, torch.arange(len(s), device=s.device)
    tolerance = 4 * torch.finfo(s.dtype).eps  # of the inverse depth
    for done in range(1, refinements + 1):
        u, v = torch.addcmul(segments.u, s, segments.du), torch.addcmul(segments.v, s, segments.dv)
        here = surface.samples(u, v, segments.image)
        height = (here.value - segments.inverse).addcmul_(s, segments.d_inverse, value=-1)
        slope = (here.slope_u * segments.du).addcmul_(here.slope_v, segments.dv).sub_(segments.d_inverse)
        in_front = (-height).sub_(TINY).mul_(torch.inf)
        low, high = torch.maximum(low, torch.minimum(s, in_front)), torch.minimum(high, torch.maximum(s, in_front))
        newton = s - height / slope
        moved = torch.where((newton >= low) & (newton <= high), newton, (low + high) / 2)
        change, s = (moved - s).abs_(), moved
        result = s if len(s) == len(result) else result.index_copy_(0, number, s)
        if done < EVERY:
            continue
        # Most have arrived; the others, across a fold between two cells, go on alone.
        going = (change * segments.d_inverse.abs() > tolerance).nonzero()[:, 0]
        if not len(going):
            break
        number, s, low, high = number[going], s[going], low[going], high[going]
        segments = segments.select(going)
    return result

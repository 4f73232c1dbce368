"""The first crossing of each segment with the surface, from before it to behind it: bound, march, refine.

Conditions that differ from ray to ray are applied as infinities with a sign, through minimum and maximum: that is
one pass without branches, where `torch.where` on the CPU mispredicts every other element.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recon_heightfield.segments import TINY, Segments
from recon_heightfield.surface import Bounds, Surface

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

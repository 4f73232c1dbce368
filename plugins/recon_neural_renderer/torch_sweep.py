"""Kato's approximate gradient in vectorised PyTorch, along one axis; what it computes is told in ``sweep_kernels``."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

#: Pairs of a crossing and a sample looked at together.
PIECE = 1 << 22


@dataclass(frozen=True)
class Picture:
    """Maps with the lines of one axis first; ``at_zero``: a distance of 0 counts as positive."""

    winner: Tensor  # (B, lines, length)
    image: Tensor  # (B, lines, length, C), the first channel coverage
    grad: Tensor  # (B, lines, length, C)
    eps: float
    at_zero: bool


@dataclass(frozen=True)
class Crossings:
    """Where edges a → b cross lines of samples, X of them."""

    edge: Tensor  # (X,) which edge
    row: Tensor  # (X,) line, those of the batch laid end to end
    index: Tensor  # (X,) face
    cross: Tensor  # (X,) place on the line
    inside: Tensor  # (X,) sample
    outside: Tensor  # (X,) sample
    outward: Tensor  # (X,) 1 or −1
    limit: Tensor  # (X,) sample at the opposite edge
    scale: Tensor  # (X, 2) distance that an end moves per sample, infinite for the end that the line passes through

    def take(self, which: Tensor) -> Crossings:
        return Crossings(*(getattr(self, name)[which] for name in self.__dataclass_fields__))


def sweep_picture(picture: Picture, mesh: Tensor, index: Tensor, corners: Tensor, *, outward_if_less: int) -> Tensor:
    """Gradient (S, 3) of the second coordinate of corners (S, 3, 2) of the seen faces, lines running along it.

    Args:
        picture: maps.
        mesh, index: (S,) mesh and index of every face that wins a sample.
        corners: (S, 3, 2): the coordinate that numbers the lines, then the one along them.
        outward_if_less: direction of the outside where an edge leads to higher lines.
    """
    out = corners.new_zeros(corners.shape[0], 3)
    for k in range(3):
        order = [k, (k + 1) % 3, (k + 2) % 3]
        crossings = _crossings(picture, mesh, index, corners[:, order], outward_if_less)
        sums = _outer(picture, crossings) + _inner(picture, crossings)
        for end in range(2):
            totals = _by_run(sums[:, end], crossings.edge, len(out))
            out[:, order[end]] -= totals * (2 / picture.winner.shape[2])
    return out


def _by_run(values: Tensor, key: Tensor, size: int) -> Tensor:
    """Sums over runs of equal keys; keys ascend."""
    lengths = torch.bincount(key, minlength=size)
    return torch.segment_reduce(values, "sum", lengths=lengths, initial=0, unsafe=True)


def _repeat(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Items repeated by their counts: (item, position within it)."""
    item = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    first = counts.cumsum(0) - counts
    return item, torch.arange(len(item), device=counts.device) - first[item]


def _crossings(picture: Picture, mesh: Tensor, index: Tensor, corners: Tensor, outward_if_less: int) -> Crossings:
    lines, length = picture.winner.shape[1:]
    a0, b0 = corners[:, 0, 0], corners[:, 1, 0]
    low, high = torch.minimum(a0, b0), torch.maximum(a0, b0)
    real = (low < high) & (high >= 0) & (low <= lines - 1)
    first = torch.where(real, low.clamp(0, lines - 1).ceil(), 0).long()
    last = torch.where(real, high.clamp(0, lines - 1).floor(), -1).long()
    edge, step = _repeat((last - first + 1).clamp(min=0))
    line = first[edge] + step
    d0 = line.to(corners.dtype)
    (a0, a1), (b0, b1), (c0, c1) = (corners[edge, k].unbind(-1) for k in range(3))
    slope = (b1 - a1) / (b0 - a0)
    cross = slope * (d0 - a0) + a1
    outward = torch.where(a0 < b0, outward_if_less, -outward_if_less)
    border = torch.where(outward > 0, cross.floor(), cross.ceil())
    shown = (border >= 0) & (border <= length - 1)
    inside = torch.where(shown, border, 0).long()
    outside = inside + outward
    shown = shown & (outside >= 0) & (outside < length)
    between = (d0 - a0) * (d0 - c0) < 0
    far = torch.where(between, (c1 - a1) / (c0 - a0) * (d0 - a0) + a1, (b1 - c1) / (b0 - c0) * (d0 - c0) + c1)
    edge_of_picture = torch.where(outward > 0, 0, length - 1).to(far.dtype)
    far = torch.where(far.isfinite(), far.clamp(0, length - 1), edge_of_picture)
    limit = torch.where(outward > 0, far.ceil(), far.floor()).long()
    unit = 2 / length
    scale_a = torch.where(b0 != d0, (b0 - a0) / (b0 - d0) * unit, torch.inf)
    scale_b = torch.where(a0 != d0, (b0 - a0) / (d0 - a0) * unit, torch.inf)
    scale = torch.stack((scale_a, scale_b), 1)
    row = mesh[edge] * lines + line
    every = Crossings(edge, row, index[edge], cross, inside, outside, outward, limit, scale)
    return every.take(shown.nonzero()[:, 0])


def _pieces(counts: Tensor) -> list[tuple[int, int]]:
    """Ranges of crossings with about PIECE pairs each."""
    total = counts.cumsum(0)
    cuts = [0]
    while cuts[-1] < len(counts):
        done = int(total[cuts[-1] - 1]) if cuts[-1] else 0
        cuts.append(max(cuts[-1] + 1, int(torch.searchsorted(total, done + PIECE, right=True))))
    return list(pairwise(cuts))


def _flat(picture: Picture) -> tuple[Tensor, Tensor, Tensor]:
    """Winner, image and gradient with all samples laid end to end."""
    channels = picture.image.shape[-1]
    return picture.winner.reshape(-1), picture.image.reshape(-1, channels), picture.grad.reshape(-1, channels)


def _outer(picture: Picture, crossings: Crossings) -> Tensor:
    """Sums (X, 2) of δ / distance over the samples from the outside to the border of the picture."""
    winner, image, grad = _flat(picture)
    length = picture.winner.shape[2]
    seen = image[winner >= 0]
    bound = torch.maximum((image - seen.amin(0)) * grad, (image - seen.amax(0)) * grad)
    # Only samples for which some inside colour gives δ > 0, each line's in one run.
    may = bound.sum(1) > 0
    before = torch.cat((may.new_zeros(1, dtype=torch.int64), may.cumsum(0)))
    listed = may.nonzero()[:, 0]
    base = crossings.row * length
    ahead = crossings.outward > 0
    begin = before[torch.where(ahead, base + crossings.outside, base)]
    end = before[torch.where(ahead, base + length, base + crossings.outside + 1)]
    owner = winner[base + crossings.inside] == crossings.index
    counts = torch.where(owner, end - begin, 0)
    out = crossings.scale.new_zeros(len(counts), 2)
    for start, stop in _pieces(counts):
        item, step = _repeat(counts[start:stop])
        item = item + start
        q = listed[begin[item] + step]
        own = image[base[item] + crossings.inside[item]]
        delta = ((image[q] - own) * grad[q]).sum(1).clamp(min=0)
        place = (q - base[item]).to(image.dtype)
        push = crossings.outward[item].to(image.dtype) * picture.eps
        distance = crossings.scale[item] * (place - crossings.cross[item])[:, None] + push[:, None]
        parts = delta[:, None] / distance
        for k in range(2):
            out[start:stop, k] = _by_run(parts[:, k], item - start, stop - start)
    return out


def _inner(picture: Picture, crossings: Crossings) -> Tensor:
    """Sums (X, 2) of δ / distance over the face's own samples from the inside to the opposite edge."""
    winner, image, grad = _flat(picture)
    base = crossings.row * picture.winner.shape[2]
    low = torch.minimum(crossings.inside, crossings.limit)
    counts = torch.maximum(crossings.inside, crossings.limit) - low + 1
    out = crossings.scale.new_zeros(len(counts), 2)
    for start, stop in _pieces(counts):
        item, step = _repeat(counts[start:stop])
        item = item + start
        q = base[item] + low[item] + step
        own = winner[q] == crossings.index[item]
        item, q = item[own], q[own]
        outside = image[base[item] + crossings.outside[item]]
        delta = ((image[q] - outside) * grad[q]).sum(1).clamp(min=0)
        away = (q - base[item]).to(image.dtype) - crossings.cross[item]
        positive = (away > 0) | (away == 0) if picture.at_zero else away > 0
        push = torch.where(positive, 1, -1).to(image.dtype) * picture.eps
        scale = crossings.scale[item]
        distance = scale * away[:, None] + push[:, None]
        parts = torch.where(scale.isfinite(), delta[:, None] / distance, 0)
        for k in range(2):
            out[start:stop, k] = _by_run(parts[:, k], item - start, stop - start)
    return out

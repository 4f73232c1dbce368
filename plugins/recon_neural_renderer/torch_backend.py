"""The backend for any device: vectorised PyTorch, equal to the Numba kernels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from recon_neural_renderer.raster import Drawing
from recon_toolkit.rendering import sum_by_index

#: Pairs of a crossing and a sample looked at together.
PAIRS = 1 << 22


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
    """Ranges of crossings with about PAIRS pairs each."""
    total = counts.cumsum(0)
    cuts = [0]
    while cuts[-1] < len(counts):
        done = int(total[cuts[-1] - 1]) if cuts[-1] else 0
        cuts.append(max(cuts[-1] + 1, int(torch.searchsorted(total, done + PAIRS, right=True))))
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


#: Candidates tested at once.
PIECE = 1 << 22


def face_corners(points: Tensor, faces: Tensor) -> Tensor:
    """(B, F, 3 corners, 3)."""
    rows = torch.arange(len(points), device=points.device)[:, None, None]
    return points[rows, faces.long()]


def pieces(counts: Tensor, limit: int = PIECE) -> Iterator[tuple[Tensor, Tensor]]:
    """Items repeated by their counts: (item, position within it), in pieces of about ``limit``."""
    total = counts.cumsum(0)
    begin = 0
    while begin < len(counts):
        done = int(total[begin - 1]) if begin else 0
        end = max(begin + 1, int(torch.searchsorted(total, done + limit, right=True)))
        item = torch.repeat_interleave(torch.arange(begin, end, device=counts.device), counts[begin:end])
        first = total[begin:end] - counts[begin:end] - done
        yield item, torch.arange(len(item), device=counts.device) - first[item - begin]
        begin = end


def _edges(corners: Tensor, front: Tensor, px: Tensor, py: Tensor) -> list[Tensor]:
    """The edge functions of candidates, positive inside, with the ends of every edge in a fixed order."""
    out = []
    for k in range(3):
        ax, ay = corners[:, (k + 1) % 3, 0], corners[:, (k + 1) % 3, 1]
        bx, by = corners[:, (k + 2) % 3, 0], corners[:, (k + 2) % 3, 1]
        swap = (bx < ax) | ((bx == ax) & (by < ay))
        ox, oy = torch.where(swap, bx, ax), torch.where(swap, by, ay)
        dx, dy = torch.where(swap, ax - bx, bx - ax), torch.where(swap, ay - by, by - ay)
        turn = swap != front
        dx, dy = torch.where(turn, -dx, dx), torch.where(turn, -dy, dy)
        out.append(dx * (py - oy) - dy * (px - ox))
    return out


def forward(points: Tensor, faces: Tensor, drawing: Drawing) -> tuple[Tensor, Tensor, Tensor]:
    """Winning face per sample, mean depth and mean coverage per pixel."""
    batch, count = len(points), faces.shape[1]
    rows, columns = drawing.height * drawing.samples, drawing.width * drawing.samples
    corners = face_corners(points, faces)
    x, y, z = corners.unbind(-1)
    area = (x[..., 1] - x[..., 0]) * (y[..., 2] - y[..., 0]) - (y[..., 1] - y[..., 0]) * (x[..., 2] - x[..., 0])
    shown = (area < 0) | ((area > 0) & drawing.two_sided)
    shown = shown & (z > 0).all(-1) & corners.isfinite().all(-1).all(-1)
    low, high = corners[..., :2].amin(2), corners[..., :2].amax(2)
    bound = points.new_tensor([columns - 1, rows - 1])
    shown = shown & (high >= 0).all(-1) & (low <= bound).all(-1)
    # Faces that are not drawn may hold anything: their boxes are emptied before they become integers.
    first = torch.where(shown[..., None], low.clamp(min=0).minimum(bound).ceil(), 0).long()
    last = torch.where(shown[..., None], high.clamp(min=0).minimum(bound).floor(), -1).long()
    size = (last - first + 1).clamp(min=0).reshape(-1, 2)
    corners, first, front = corners.reshape(-1, 3, 3), first.reshape(-1, 2), (area < 0).reshape(-1)
    nearest = points.new_full((batch * rows * columns,), drawing.far)
    nobody = 2 * count
    winner = torch.full_like(nearest, nobody, dtype=torch.int64)
    for item, place in pieces(size[:, 0] * size[:, 1]):
        px, py = first[item, 0] + place % size[item, 0], first[item, 1] + place // size[item, 0]
        own = corners[item]
        e0, e1, e2 = _edges(own, front[item], px.to(points.dtype), py.to(points.dtype))
        i0, i1, i2 = (1 / own[:, :, 2]).unbind(1)
        depth = (e0 + e1 + e2) / (e0 * i0 + e1 * i1 + e2 * i2)
        hit = (e0 >= 0) & (e1 >= 0) & (e2 >= 0) & (depth > drawing.near) & (depth < drawing.far)
        item, depth = item[hit], depth[hit]
        sample = (item // count) * (rows * columns) + py[hit] * columns + px[hit]
        index = item % count + torch.where(front[item], 0, count)
        before = nearest.clone()
        nearest.scatter_reduce_(0, sample, depth, "amin")
        winner[nearest < before] = nobody
        best = depth == nearest[sample]
        winner.scatter_reduce_(0, sample[best], index[best], "amin")
    winner = torch.where(winner == nobody, -1, winner).to(torch.int32).reshape(batch, rows, columns)
    maps = torch.stack((nearest.reshape(batch, rows, columns), (winner >= 0).to(points.dtype)), dim=1)
    depth, alpha = F.avg_pool2d(maps, drawing.samples).unbind(1)
    return winner, depth.contiguous(), alpha.contiguous()


@dataclass(frozen=True)
class Hits:
    """Samples that see a face, N of them."""

    mesh: Tensor  # (N,)
    row: Tensor  # (N,)
    column: Tensor  # (N,)
    index: Tensor  # (N,) face, backs from F on
    face: Tensor  # (N,) face
    vertex: Tensor  # (N, 3) vertices of the batch laid end to end
    corners: Tensor  # (N, 3, 3)
    weights: Tensor  # (N, 3) on the screen, in [0, 1], sum 1
    area: Tensor  # (N,)

    def depth(self) -> Tensor:
        return 1 / (self.weights / self.corners[..., 2]).sum(1)


def _hits(points: Tensor, faces: Tensor, winner: Tensor) -> Hits:
    mesh, row, column = (winner >= 0).nonzero(as_tuple=True)
    index = winner[mesh, row, column].long()
    face = index % faces.shape[1]
    vertex = faces[mesh if len(faces) > 1 else torch.zeros_like(mesh), face].long() + mesh[:, None] * points.shape[1]
    corners = points.flatten(0, 1)[vertex]
    x, y = corners[..., 0] - column[:, None].to(points.dtype), corners[..., 1] - row[:, None].to(points.dtype)
    edges = x[:, [1, 2, 0]] * y[:, [2, 0, 1]] - y[:, [1, 2, 0]] * x[:, [2, 0, 1]]
    area = edges.sum(1)
    sliver = area == 0  # lost in rounding: any weights do, and no gradient across
    area = torch.where(sliver, torch.inf, area)
    weights = (edges / area[:, None]).clamp(min=0)
    weights[:, 2] = torch.where(sliver, 1, weights[:, 2])
    return Hits(mesh, row, column, index, face, vertex, corners, weights / weights.sum(1, keepdim=True), area)


def depth_backward(points: Tensor, faces: Tensor, winner: Tensor, grad: Tensor, drawing: Drawing) -> Tensor:
    """Gradient of the mean depth with respect to the points."""
    hits = _hits(points, faces, winner)
    s = drawing.samples
    x, y, z = hits.corners.unbind(-1)
    share = hits.depth().square() * grad[hits.mesh, hits.row // s, hits.column // s] / s**2
    across = ((y[:, [1, 2, 0]] - y[:, [2, 0, 1]]) / z).sum(1) / hits.area
    along = ((x[:, [2, 0, 1]] - x[:, [1, 2, 0]]) / z).sum(1) / hits.area
    slope = torch.stack((across, along), dim=1)[:, None].expand(-1, 3, -1)
    parts = torch.cat((slope, z[..., None] ** -2), dim=2) * (hits.weights * share[:, None])[..., None]
    return sum_by_index(parts.flatten(0, 1), hits.vertex.flatten(), len(points) * points.shape[1]).reshape(points.shape)


def _lookup(hits: Hits, size: int, count: int, eps: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Index into the cubes laid end to end, and trilinear weight, for each of the eight neighbours."""
    place = hits.weights * hits.depth()[:, None] / hits.corners[..., 2] * (size - 1)
    place = place.clamp(min=0, max=max(size - 1 - eps, 0))
    base = place.long()
    fraction = place - base
    cube = hits.mesh * count + hits.face
    for k in range(8):
        step = torch.tensor([k & 1, (k >> 1) & 1, k >> 2], device=place.device)
        at = (base + step).clamp(max=size - 1)
        weight = torch.where(step == 1, fraction, 1 - fraction).prod(1)
        yield ((cube * size + at[:, 0]) * size + at[:, 1]) * size + at[:, 2], weight


def shade(
    points: Tensor, faces: Tensor, textures: Tensor, light: Tensor, background: Tensor, winner: Tensor, drawing: Drawing
) -> tuple[Tensor, Tensor]:
    """Colours per pixel (B, 3, H, W) and per sample (B, rows, columns, 3)."""
    hits = _hits(points, faces, winner)
    flat = textures.reshape(-1, 3)
    found = sum(
        (weight[:, None] * flat[at] for at, weight in _lookup(hits, textures.shape[2], faces.shape[1], drawing.eps)),
        start=points.new_zeros(len(hits.mesh), 3),
    )
    colour = background[:, None, None].expand(*winner.shape, 3).clone()
    colour[hits.mesh, hits.row, hits.column] = found * light[hits.mesh, hits.index]
    return F.avg_pool2d(colour.permute(0, 3, 1, 2), drawing.samples), colour


def shade_backward(
    points: Tensor, faces: Tensor, textures: Tensor, light: Tensor, winner: Tensor, grad: Tensor, drawing: Drawing
) -> tuple[Tensor, Tensor]:
    """Gradients of textures and light."""
    hits = _hits(points, faces, winner)
    s = drawing.samples
    g = grad[hits.mesh, :, hits.row // s, hits.column // s] / s**2
    flat = textures.reshape(-1, 3)
    lit = g * light[hits.mesh, hits.index]
    found = torch.zeros_like(g)
    grad_textures = torch.zeros_like(flat)
    for at, weight in _lookup(hits, textures.shape[2], faces.shape[1], drawing.eps):
        found += weight[:, None] * flat[at]
        grad_textures += sum_by_index(weight[:, None] * lit, at, len(flat))
    grad_light = sum_by_index(g * found, hits.mesh * light.shape[1] + hits.index, light.shape[0] * light.shape[1])
    return grad_textures.reshape(textures.shape), grad_light.reshape(light.shape)


def sweep(
    points: Tensor,
    faces: Tensor,
    winner: Tensor,
    colour: Tensor | None,
    grad_alpha: Tensor | None,
    grad_rgb: Tensor | None,
    drawing: Drawing,
) -> Tensor:
    """Kato's gradient of silhouettes and colours with respect to x and y of the points; z gets 0."""
    image = (winner >= 0).to(points.dtype)[..., None]
    shape = (len(points), drawing.height, drawing.width, 1)
    grad = points.new_zeros(shape) if grad_alpha is None else grad_alpha[..., None]
    if grad_rgb is not None and colour is not None:
        image, grad = torch.cat((image, colour), -1), torch.cat((grad, grad_rgb.permute(0, 2, 3, 1)), -1)
    s = drawing.samples
    grad = grad.repeat_interleave(s, 1).repeat_interleave(s, 2) / s**2
    mesh, index = _seen(winner, 2 * faces.shape[1])
    if not len(mesh):
        return torch.zeros_like(points)
    face = index % faces.shape[1]
    vertex = faces[mesh if len(faces) > 1 else torch.zeros_like(mesh), face].long() + mesh[:, None] * points.shape[1]
    # A back is the face with its corners in reverse.
    vertex = torch.where((index >= faces.shape[1])[:, None], vertex.flip(1), vertex)
    corners = points.flatten(0, 1)[vertex]
    rows = Picture(winner, image, grad, drawing.eps, at_zero=False)
    columns = Picture(winner.transpose(1, 2), image.transpose(1, 2), grad.transpose(1, 2), drawing.eps, at_zero=True)
    across = sweep_picture(rows, mesh, index, corners[..., [1, 0]], outward_if_less=-1)
    along = sweep_picture(columns, mesh, index, corners[..., :2], outward_if_less=1)
    parts = torch.stack((across, along, torch.zeros_like(across)), dim=-1).flatten(0, 1)
    return sum_by_index(parts, vertex.flatten(), len(points) * points.shape[1]).reshape(points.shape)


def _seen(winner: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mesh and index of every face, backs included, that wins a sample."""
    offset = torch.arange(len(winner), device=winner.device)[:, None, None] * count
    found = torch.unique((winner + offset)[winner >= 0])
    return found // count, found % count

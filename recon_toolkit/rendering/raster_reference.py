"""The readable rasteriser: vectorised PyTorch, any device, differentiable by autograd. The truth for fast backends.

Every face lists the samples in its bounding box; the list of (face, sample) candidates is tested at once, so the
cost grows with pixels plus faces, never with their product.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: A face whose projected area is below this fraction of its extent squared counts as edge-on.
EDGE_ON = 1e-6
#: Candidates tested at a time, which bounds the memory that large faces take.
_CHUNK = 1 << 22


def edge_functions(corners: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Signed doubled areas (..., 3) of the triangles between a sample and each edge of a face.

    Entry k belongs to the edge opposite to corner k. The end points are taken in a fixed order, so two faces that
    share an edge get exactly opposite values and no sample falls between them, whatever the rounding.

    Args:
        corners: (..., 3, 2) pixel coordinates of the face.
        u, v: (...) sample coordinates.
    """
    start = corners[..., [1, 2, 0], :]
    end = corners[..., [2, 0, 1], :]
    swap = (end[..., 0] < start[..., 0]) | ((end[..., 0] == start[..., 0]) & (end[..., 1] < start[..., 1]))
    first = torch.where(swap[..., None], end, start)
    second = torch.where(swap[..., None], start, end)
    direction = second - first
    value = direction[..., 0] * (v[..., None] - first[..., 1]) - direction[..., 1] * (u[..., None] - first[..., 0])
    return torch.where(swap, -value, value)


def _candidates(corners: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Bounding boxes (B, F) of visible faces, as first column, first row, columns and rows (0 for no samples)."""
    xy, z = corners[..., :2], corners[..., 2]
    low, high = xy.amin(-2), xy.amax(-2)
    extent = (high - low).amax(-1)
    area = edge_functions(xy, xy[..., 0, 0], xy[..., 0, 1])[..., 0].abs()
    size = torch.tensor([width, height], device=corners.device)
    seen = (high >= 0).all(-1) & (low <= size - 1).all(-1) & (area > EDGE_ON * extent * extent)
    seen &= ((z > 0) & (z < torch.inf)).all(-1)
    first = torch.ceil(torch.where(seen[..., None], low, 0).clamp(min=0))
    last = torch.floor(torch.minimum(torch.where(seen[..., None], high, -1), (size - 1).to(high.dtype)))
    first, last = first.long(), last.long()
    count = (last - first + 1).clamp(min=0) * seen[..., None]
    return first[..., 0], first[..., 1], count[..., 0], count[..., 1]


def nearest_faces(vertices: Tensor, faces: Tensor, height: int, width: int, near: float, far: float) -> Tensor:
    """Index (B, H, W) int32 of the nearest face at every sample, the first one on a tie, −1 for none."""
    batch = vertices.shape[0]
    corners = vertices.detach()[:, faces.long()]  # (B, F, 3, 3)
    x0, y0, columns, rows = (t.reshape(-1) for t in _candidates(corners, height, width))
    corners = corners.reshape(-1, 3, 3)
    counts = columns * rows
    wanted = counts.nonzero()[:, 0]
    ends = counts[wanted].cumsum(0)
    samples = batch * height * width
    nearest = torch.full((samples,), torch.inf, dtype=vertices.dtype, device=vertices.device)
    winner = torch.full((samples,), faces.shape[0], dtype=torch.int64, device=vertices.device)
    begin = 0
    while begin < len(wanted):
        offset = int(ends[begin - 1]) if begin else 0
        stop = max(begin + 1, int(torch.searchsorted(ends, offset + _CHUNK)))
        chunk = wanted[begin:stop]
        flat = torch.repeat_interleave(chunk, counts[chunk])  # one row per (face, sample) candidate
        rank = torch.arange(len(flat), device=flat.device) - (
            ends[begin:stop] - counts[chunk] - offset
        ).repeat_interleave(counts[chunk])
        u = x0[flat] + rank % columns[flat]
        v = y0[flat] + rank // columns[flat]
        edges = edge_functions(corners[flat, :, :2], u.to(vertices.dtype), v.to(vertices.dtype))
        inside = (edges >= 0).all(-1) | (edges <= 0).all(-1)
        scaled = edges * (1 / corners[flat, :, 2])
        depth = (edges[:, 0] + edges[:, 1] + edges[:, 2]) / (scaled[:, 0] + scaled[:, 1] + scaled[:, 2])
        keep = inside & (depth > near) & (depth < far)
        flat, depth = flat[keep], depth[keep]
        face = flat % faces.shape[0]
        sample = (flat // faces.shape[0]) * (height * width) + v[keep] * width + u[keep]
        previous = nearest.clone()
        nearest.scatter_reduce_(0, sample, depth, "amin")
        winner = torch.where(nearest < previous, faces.shape[0], winner)
        first = depth == nearest[sample]
        winner.scatter_reduce_(0, sample[first], face[first], "amin")
        begin = stop
    winner = torch.where(winner == faces.shape[0], -1, winner)
    return winner.reshape(batch, height, width).to(torch.int32)


def barycentrics(vertices: Tensor, faces: Tensor, face: Tensor) -> tuple[Tensor, Tensor]:
    """Perspective-correct barycentrics (B, H, W, 3) and depth (B, H, W) at samples with a known face (B, H, W).

    With e_k the edge functions, b_k = (e_k / z_k) / Σ (e_l / z_l) and depth = Σ e_k / Σ (e_k / z_k). Both are
    differentiable with respect to the vertices; samples with no face give 0 and no gradient.
    """
    batch, height, width = face.shape
    hit = face >= 0
    if not len(faces):  # nothing to gather from
        return vertices.new_zeros(batch, height, width, 3), vertices.new_zeros(batch, height, width)
    index = faces.long()[face.clamp(min=0).long()]  # (B, H, W, 3)
    rows = torch.arange(batch, device=vertices.device)[:, None, None, None]
    corners = vertices[rows, index]  # (B, H, W, 3 corners, 3)
    # Where nothing was hit any proper triangle will do: it keeps the unused branch of `where` finite, gradients too.
    stand_in = vertices.new_tensor([[0, 0, 1], [1, 0, 1], [0, 1, 1]])
    corners = torch.where(hit[..., None, None], corners, stand_in)
    u = torch.arange(width, device=vertices.device, dtype=vertices.dtype).expand(batch, height, width)
    v = torch.arange(height, device=vertices.device, dtype=vertices.dtype)[:, None].expand(batch, height, width)
    u, v = torch.where(hit, u, 0.25), torch.where(hit, v, 0.25)
    edges = edge_functions(corners[..., :2], u, v)
    scaled = edges * (1 / corners[..., 2])
    total = scaled[..., 0] + scaled[..., 1] + scaled[..., 2]
    weights = scaled / total[..., None]
    depth = (edges[..., 0] + edges[..., 1] + edges[..., 2]) / total
    return torch.where(hit[..., None], weights, 0), torch.where(hit, depth, 0)

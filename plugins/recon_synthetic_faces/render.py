"""From scenes to pictures with exact ground truth: deform, draw, colour and shade, average the samples."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from recon_synthetic_faces import background as ground
from recon_synthetic_faces.albedo import ear_albedo, hair_colour, skin_albedo
from recon_synthetic_faces.hair import offset
from recon_synthetic_faces.head import EAR, HAIR, SKIN, template
from recon_synthetic_faces.modes import basis
from recon_toolkit.geometry.camera import Camera
from recon_toolkit.rendering import rasterize

DEPTH_RANGE = (0.9, 1.1)
#: Head frame (mm) → canonical view: this height and depth lie at the centre of rotation (the height is set per scene).
_CENTRE_DEPTH = 60.0


@dataclass(frozen=True)
class Pictures:
    """Pictures (N) with ground truth in the input view; samples at pixel centres, of which H = W = size.

    image (N, 3, H, W) uint8, antialiased; depth (N, H, W) float32, 1.1 outside the mask; mask (N, H, W) bool;
    normals (N, 3, H, W) float32, (0, 0, 1) outside the mask; albedo (N, 3, H, W) float32, 0 outside the mask;
    light (N, 5) float32: ambient, diffuse, direction; view (N, 6) float32: rotation in radians, translation.
    """

    image: NDArray[np.uint8]
    depth: NDArray[np.float32]
    mask: NDArray[np.bool_]
    normals: NDArray[np.float32]
    albedo: NDArray[np.float32]
    light: NDArray[np.float32]
    view: NDArray[np.float32]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The fields by name, as a packed data set takes them."""
        return dict(vars(self))


@dataclass(frozen=True)
class _Mesh:
    """The template in the types that kernels take."""

    points: NDArray[np.float32]
    basis: NDArray[np.float32]  # (K, V, 3)
    faces: NDArray[np.int32]
    part: NDArray[np.int32]
    face_part: NDArray[np.int32]
    chart: NDArray[np.float32]
    outward: NDArray[np.float32]
    gap: NDArray[np.float32]


@cache
def _mesh() -> _Mesh:
    t = template()
    single = (np.ascontiguousarray(a, dtype=np.float32) for a in (t.chart, t.outward, t.gap))
    chart, outward, gap = single
    return _Mesh(t.points.astype(np.float32), basis(), t.faces, t.part, t.face_part, chart, outward, gap)


@njit(nogil=True, cache=True)
def _deform(scenes, n, points, modes, part, chart, outward, gap, faces, rotation, posed, normals):  # type: ignore[no-untyped-def]
    """Mesh of scene ``n`` in camera coordinates, and its unit normals along the line of sight (n_z > 0 is facing)."""
    p = scenes[n]
    for v in range(points.shape[0]):
        for k in range(3):
            posed[v, k] = points[v, k]
    for m in range(modes.shape[0]):
        c = p.coefficients[m]
        if c != 0:
            mode = modes[m]
            for v in range(points.shape[0]):
                posed[v, 0] += c * mode[v, 0]
                posed[v, 1] += c * mode[v, 1]
                posed[v, 2] += c * mode[v, 2]
    for v in range(points.shape[0]):
        if part[v] == HAIR:
            out = np.float32(offset(chart[v, 2], chart[v, 1], gap[v], p))
            for k in range(3):
                posed[v, k] += out * outward[v, k]
    unit = p.head_size / 1000
    for v in range(points.shape[0]):
        x = posed[v, 0] * unit
        y = posed[v, 1] * unit + p.eye_line
        z = (posed[v, 2] - _CENTRE_DEPTH) * unit
        for k in range(3):
            posed[v, k] = rotation[k, 0] * x + rotation[k, 1] * y + rotation[k, 2] * z + p.pose[3 + k]
        posed[v, 2] += 1.0
        normals[v, 0] = normals[v, 1] = normals[v, 2] = 0.0
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ux, uy, uz = posed[b, 0] - posed[a, 0], posed[b, 1] - posed[a, 1], posed[b, 2] - posed[a, 2]
        wx, wy, wz = posed[c, 0] - posed[a, 0], posed[c, 1] - posed[a, 1], posed[c, 2] - posed[a, 2]
        x, y, z = uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx
        for v in (a, b, c):
            normals[v, 0] += x
            normals[v, 1] += y
            normals[v, 2] += z
    for v in range(points.shape[0]):
        length = math.sqrt(normals[v, 0] ** 2 + normals[v, 1] ** 2 + normals[v, 2] ** 2)
        if length > 0:
            for k in range(3):
                normals[v, k] /= length


@njit(nogil=True, cache=True)
def _surface(p, face, w, faces, face_part, chart, normals, colour, normal):  # type: ignore[no-untyped-def]
    """Albedo and unit normal at a sample of a face with barycentrics ``w``."""
    a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
    length = 0.0
    for k in range(3):
        normal[k] = w[0] * normals[a, k] + w[1] * normals[b, k] + w[2] * normals[c, k]
        length += normal[k] ** 2
    length = 1 / math.sqrt(max(length, 1e-20))
    for k in range(3):
        normal[k] *= length
    x = w[0] * chart[a, 0] + w[1] * chart[b, 0] + w[2] * chart[c, 0]
    y = w[0] * chart[a, 1] + w[1] * chart[b, 1] + w[2] * chart[c, 1]
    ta, tb, tc = chart[a, 2], chart[b, 2], chart[c, 2]
    if max(ta, tb, tc) - min(ta, tb, tc) > 3.0:  # the seam at the back of the head: angles jump by a whole turn
        ta, tb, tc = abs(ta), abs(tb), abs(tc)
    theta = w[0] * ta + w[1] * tb + w[2] * tc
    part = face_part[face]
    if part == SKIN:
        skin_albedo(x, y, theta, p, colour)
    elif part == HAIR:
        hair_colour(theta, y, p, colour)
    else:
        ear_albedo(x, y, p, colour)


@njit(nogil=True, cache=True)
def _shade(scenes, n, samples, faces, face_part, chart, normals, face, weights, photographs, image):  # type: ignore[no-untyped-def]
    """The picture (3, H, W) uint8 of scene ``n``: the mean of samples × samples shaded points per pixel."""
    p = scenes[n]
    size = image.shape[1]
    colour, normal, total = np.empty(3), np.empty(3), np.empty(3)
    light = p.light
    for i in range(size):
        for j in range(size):
            total[:] = 0
            for a in range(i * samples, (i + 1) * samples):
                for b in range(j * samples, (j + 1) * samples):
                    if face[a, b] >= 0:
                        _surface(p, face[a, b], weights[a, b], faces, face_part, chart, normals, colour, normal)
                        facing = normal[0] * light[2] + normal[1] * light[3] + normal[2] * light[4]
                        shading = light[0] + light[1] * max(facing, 0.0)
                        for k in range(3):
                            total[k] += min(colour[k] * shading, 1.0)
                    else:
                        u = ((b + 0.5) / samples - 0.5) / (size - 1) * 2 - 1
                        v = ((a + 0.5) / samples - 0.5) / (size - 1) * 2 - 1
                        ground.background(u, v, p, photographs, colour)
                        for k in range(3):
                            total[k] += min(max(colour[k], 0.0), 1.0)
            for k in range(3):
                image[k, i, j] = int(total[k] / (samples * samples) * 255 + 0.5)


@njit(nogil=True, cache=True)
def _truth(scenes, n, faces, face_part, chart, normals, face, weights, out_normals, out_albedo):  # type: ignore[no-untyped-def]
    """Normals and albedo (3, H, W) at the pixel centres."""
    p = scenes[n]
    colour, normal = np.empty(3), np.empty(3)
    for i in range(face.shape[0]):
        for j in range(face.shape[1]):
            if face[i, j] >= 0:
                _surface(p, face[i, j], weights[i, j], faces, face_part, chart, normals, colour, normal)
                for k in range(3):
                    out_normals[k, i, j] = normal[k]
                    out_albedo[k, i, j] = min(max(colour[k], 0.0), 1.0)
            else:
                for k in range(3):
                    out_normals[k, i, j] = 1.0 if k == 2 else 0.0
                    out_albedo[k, i, j] = 0.0


def _rotation(view: NDArray[np.float64]) -> NDArray[np.float64]:
    """R = Rz·Ry·Rx, as ``recon_toolkit.geometry.rigid`` has it, in scalars so that no batch changes a bit."""
    cx, cy, cz = (math.cos(float(a)) for a in view[:3])
    sx, sy, sz = (math.sin(float(a)) for a in view[:3])
    return np.array(
        [
            (cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx),
            (sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx),
            (-sy, cy * sx, cy * cx),
        ]
    )


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_NO_PHOTOGRAPHS = np.zeros((0, 3, 2, 2), np.uint8)


def render(
    scenes: NDArray[np.void],
    size: int,
    *,
    supersampling: int = 2,
    camera: Camera | None = None,
    photographs: NDArray[np.uint8] | None = None,
) -> Pictures:
    """Render scenes (N,) of :data:`scene.SCENE` at ``size`` × ``size`` pixels.

    Args:
        scenes: what to draw; a picture does not depend on the others drawn with it.
        size: pixels, 32 or more.
        supersampling: samples along a pixel's side, spread evenly, averaged in the picture.
        camera: as the pipeline that learns from the pictures has it; 10 degrees by default.
        photographs: (P, 3, S, S) uint8 that scenes with ``photo`` ≥ 0 refer to.
    """
    camera = camera or Camera()
    mesh = _mesh()
    count, vertices = len(scenes), len(mesh.points)
    posed = np.empty((count, vertices, 3), np.float32)
    normals = np.empty((count, vertices, 3), np.float32)
    image = np.empty((count, 3, size, size), np.uint8)
    true_normals = np.empty((count, 3, size, size), np.float32)
    albedo = np.empty((count, 3, size, size), np.float32)
    photos = _NO_PHOTOGRAPHS if photographs is None else photographs
    with ThreadPoolExecutor(_threads()) as pool:

        def deform(n: int) -> None:
            _deform(
                scenes, n, mesh.points, mesh.basis, mesh.part, mesh.chart, mesh.outward, mesh.gap, mesh.faces,
                _rotation(scenes[n]["pose"]), posed[n], normals[n],
            )  # fmt: skip

        list(pool.map(deform, range(count)))
        centres = camera.project(torch.from_numpy(posed).transpose(1, 2), size, size).transpose(1, 2).contiguous()
        faces = torch.from_numpy(mesh.faces)
        near, far = DEPTH_RANGE
        truth = rasterize(centres, faces, size, size, near=near, far=far)
        face, weights, depth = truth.face.numpy(), truth.barycentric.numpy(), truth.depth.numpy()

        def true_maps(n: int) -> None:
            _truth(
                scenes, n, mesh.faces, mesh.face_part, mesh.chart, normals[n], face[n], weights[n],
                true_normals[n], albedo[n],
            )  # fmt: skip

        list(pool.map(true_maps, range(count)))
        if supersampling > 1:
            shift = (supersampling - 1) / 2
            spread = centres * torch.tensor([supersampling, supersampling, 1.0]) + torch.tensor([shift, shift, 0.0])
            samples = rasterize(spread, faces, size * supersampling, size * supersampling, near=near, far=far)
        else:
            samples = truth
        seen, seen_weights = samples.face.numpy(), samples.barycentric.numpy()

        def shade(n: int) -> None:
            _shade(
                scenes, n, supersampling, mesh.faces, mesh.face_part, mesh.chart, normals[n], seen[n], seen_weights[n],
                photos, image[n],
            )  # fmt: skip

        list(pool.map(shade, range(count)))
    mask = face >= 0
    return Pictures(
        image=image,
        depth=np.where(mask, depth, np.float32(far)).astype(np.float32),
        mask=mask,
        normals=true_normals,
        albedo=albedo,
        light=scenes["light"].astype(np.float32),
        view=scenes["pose"].astype(np.float32),
    )


def in_groups(count: int, group: int) -> Iterator[range]:
    """Ranges that cover 0..count−1, at most ``group`` long."""
    for start in range(0, count, group):
        yield range(start, min(start + group, count))

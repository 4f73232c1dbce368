"""The compiled loops of the generator: deform the mesh, colour a sample, shade a picture, write the true maps."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from recon_synthetic_faces.colours import background, ear_albedo, hair_colour, offset, paint_patches, skin_albedo
from recon_synthetic_faces.head import EAR, HAIR, SKIN
from recon_synthetic_faces.photographic import cast_shadow, shine
from recon_toolkit.kernels import compiled

DEPTH_RANGE = (0.9, 1.1)
#: This depth of the head frame (mm) lies at the centre of rotation.
_CENTRE_DEPTH = 60.0
#: No head comes nearer than this; a little inside the depth range.
_NEAREST = 0.902


@njit(nogil=True)
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
    nearest = 1.0
    for v in range(points.shape[0]):
        x = posed[v, 0] * unit
        y = posed[v, 1] * unit + p.eye_line
        z = (posed[v, 2] - _CENTRE_DEPTH) * unit
        for k in range(3):
            posed[v, k] = rotation[k, 0] * x + rotation[k, 1] * y + rotation[k, 2] * z + p.pose[3 + k]
        posed[v, 2] += 1.0
        nearest = min(nearest, posed[v, 2])
        normals[v, 0] = normals[v, 1] = normals[v, 2] = 0.0
    if nearest < _NEAREST:  # the rare head that would leave the depth range is made smaller
        shrink = (1 - _NEAREST) / (1 - nearest)
        for v in range(points.shape[0]):
            posed[v, 0] = (posed[v, 0] - p.pose[3]) * shrink + p.pose[3]
            posed[v, 1] = (posed[v, 1] - p.pose[4]) * shrink + p.pose[4]
            posed[v, 2] = (posed[v, 2] - 1) * shrink + 1
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


@njit(nogil=True)
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
    if p.patches > 0 and part != EAR:  # an ear's chart is its own plane
        paint_patches(theta, y, p, colour)
    for k in range(3):
        colour[k] = min(max(colour[k], 0.0), 1.0)


@njit(nogil=True)
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
                    u = ((b + 0.5) / samples - 0.5) / (size - 1) * 2 - 1
                    v = ((a + 0.5) / samples - 0.5) / (size - 1) * 2 - 1
                    if face[a, b] >= 0:
                        _surface(p, face[a, b], weights[a, b], faces, face_part, chart, normals, colour, normal)
                        facing = normal[0] * light[2] + normal[1] * light[3] + normal[2] * light[4]
                        lit = cast_shadow(u, v, p)
                        shading = light[0] + light[1] * max(facing, 0.0) * lit
                        highlight = shine(normal, p) * lit
                        for k in range(3):
                            total[k] += min(colour[k] * shading + highlight, 1.0)
                    else:
                        background(u, v, p, photographs, colour)
                        for k in range(3):
                            total[k] += min(max(colour[k], 0.0), 1.0)
            for k in range(3):
                image[k, i, j] = int(total[k] / (samples * samples) * 255 + 0.5)


@njit(nogil=True)
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
                    out_albedo[k, i, j] = colour[k]
            else:
                for k in range(3):
                    out_normals[k, i, j] = 1.0 if k == 2 else 0.0
                    out_albedo[k, i, j] = 0.0


@dataclass(frozen=True)
class Kernels:
    """Compiled entry points; they take no Python lock and a thread may call them."""

    deform: Callable[..., None]
    shade: Callable[..., None]
    truth: Callable[..., None]


@cache
def kernels() -> Kernels:
    """The entry points, from Numba's cache on disk where nothing has changed (compiling takes some seconds).

    For a cached kernel Numba looks for changes in that kernel's own file only, not in what it calls. So only these
    three are cached, and they close over a digest of every file of the plugin, which Numba makes part of the key.
    """
    files = sorted(Path(__file__).parent.glob("*.py"))
    return _entries(hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest())


def _entries(digest: str) -> Kernels:
    @compiled()
    def deform(*arguments: Any) -> None:
        _ = digest
        _deform(*arguments)

    @compiled()
    def shade(*arguments: Any) -> None:
        _ = digest
        _shade(*arguments)

    @compiled()
    def truth(*arguments: Any) -> None:
        _ = digest
        _truth(*arguments)

    return Kernels(deform, shade, truth)

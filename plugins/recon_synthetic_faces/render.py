"""From scenes to pictures with exact ground truth: deform, draw, colour and shade, average the samples."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recon_synthetic_faces.head import template
from recon_synthetic_faces.kernels import DEPTH_RANGE, kernels
from recon_synthetic_faces.modes import basis
from recon_synthetic_faces.photographic import develop
from recon_toolkit.geometry.camera import Camera
from recon_toolkit.rendering import rasterize
from recon_toolkit.threads import given


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


def _rotation(view: NDArray[np.float64]) -> NDArray[np.float64]:
    """R = Rz·Ry·Rx, as ``recon_toolkit.geometry.camera`` has it, in scalars so that no batch changes a bit."""
    cx, cy, cz = (math.cos(float(a)) for a in view[:3])
    sx, sy, sz = (math.sin(float(a)) for a in view[:3])
    return np.array(
        [
            (cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx),
            (sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx),
            (-sy, cy * sx, cy * cx),
        ]
    )


_NO_PHOTOGRAPHS = np.zeros((0, 3, 2, 2), np.uint8)


def render(
    scenes: NDArray[np.void],
    size: int,
    *,
    supersampling: int = 2,
    camera: Camera | None = None,
    photographs: NDArray[np.uint8] | None = None,
    photographic: bool = False,
) -> Pictures:
    """Render scenes (N,) of :data:`scene.SCENE` at ``size`` × ``size`` pixels.

    Args:
        scenes: what to draw; a picture does not depend on the others drawn with it.
        size: pixels, 32 or more.
        supersampling: samples along a pixel's side, spread evenly, averaged in the picture.
        camera: as the pipeline that learns from the pictures has it; 10 degrees by default.
        photographs: (P, 3, S, S) uint8 that scenes with ``photo`` ≥ 0 refer to.
        photographic: the scenes' camera fields are drawn; take the pictures with that camera.
    """
    camera = camera or Camera()
    mesh, kernel = _mesh(), kernels()
    count, vertices = len(scenes), len(mesh.points)
    posed = np.empty((count, vertices, 3), np.float32)
    normals = np.empty((count, vertices, 3), np.float32)
    image = np.empty((count, 3, size, size), np.uint8)
    true_normals = np.empty((count, 3, size, size), np.float32)
    albedo = np.empty((count, 3, size, size), np.float32)
    photos = _NO_PHOTOGRAPHS if photographs is None else photographs
    with ThreadPoolExecutor(given().count) as pool:

        def deform(n: int) -> None:
            kernel.deform(
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
            kernel.truth(
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
            kernel.shade(
                scenes, n, supersampling, mesh.faces, mesh.face_part, mesh.chart, normals[n], seen[n], seen_weights[n],
                photos, image[n],
            )  # fmt: skip

        list(pool.map(shade, range(count)))
    mask = face >= 0
    return Pictures(
        image=develop(image, scenes) if photographic else image,
        depth=np.where(mask, depth, np.float32(far)).astype(np.float32),
        mask=mask,
        normals=true_normals,
        albedo=albedo,
        light=scenes["light"].astype(np.float32),
        view=scenes["pose"].astype(np.float32),
    )

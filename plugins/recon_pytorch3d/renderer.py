"""The adapter: our vertices in PyTorch3D's conventions, its fragments in ours."""

from __future__ import annotations

import importlib
import math
from typing import Any, Literal

import torch
from torch import Tensor

from recon_toolkit import Camera, PluginError
from recon_toolkit.geometry import grid_faces
from recon_toolkit.rendering import FAR, NEAR, DepthRenderer, grid_vertices, pool_samples

#: Squared distance, in PyTorch3D's units, within which a sample counts as on a face. Its inside test is strict, so
#: that samples exactly on shared edges belong to no face; this closes the holes. It is 1/400 of a pixel at 512.
EDGE = 1e-10
#: Where a soft face's probability is cut off, as in PyTorch3D's own examples.
CUT_OFF = 1e-4


class PyTorch3DRenderer(DepthRenderer):
    """PyTorch3D's mesh rasteriser (Ravi et al. 2020) behind this package's conventions.

    What ports of the method stumbled over is taken care of: its axes (x left, y up) and half-pixel centres, samples
    exactly on edges (its inside test is strict), the background's depth of −1 (coverage is by face, never by depth),
    and one sample a pixel. Colour follows by the inverse warp.

    On the CPU PyTorch3D tests every sample against every face: some thousand times slower than ``depth-mesh``.

    Args:
        mode: ``hard`` takes the nearest face; ``soft`` blends the ``faces_per_pixel`` nearest ones by distance and
            depth (SoftRas, as ``softmax_rgb_blend`` computes it). Soft depth keeps the hard silhouette: blurring
            dilates depth, and is no anti-aliasing.
        supersampling: samples along a pixel's side.
        sigma: softness of edges for ``soft``, in squared normalised units, in which the picture is 2 wide.
        gamma: softness of occlusion for ``soft``, in units of the depth range.
        faces_per_pixel: faces blended by ``soft``; with a large ``sigma``, too few leave holes.
        pixel_offset: shift of the sample positions in pixels.

    Raises:
        PluginError: pytorch3d is not installed.
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        *,
        camera: Camera,
        depth_range: tuple[float, float],
        mode: Literal["hard", "soft"] = "hard",
        supersampling: int = 2,
        sigma: float = 1e-5,
        gamma: float = 1e-2,
        faces_per_pixel: int = 8,
        pixel_offset: float = 0.0,
    ) -> None:
        super().__init__(camera=camera, depth_range=depth_range)
        for name, value in (("supersampling", supersampling), ("faces_per_pixel", faces_per_pixel)):
            if value < 1:
                raise ValueError(f"{name} is 1 or more, not {value}")
        for name, size in (("sigma", sigma), ("gamma", gamma)):
            if not size > 0:
                raise ValueError(f"{name} is above 0, not {size}")
        self.rasterizer = _module("rasterize_meshes")
        self.blending = _module("blending", "pytorch3d.renderer")
        self.structures = _module("structures", "pytorch3d")
        self.mode, self.supersampling, self.pixel_offset = mode, supersampling, pixel_offset
        self.sigma, self.gamma, self.faces_per_pixel = sigma, gamma, faces_per_pixel

    def render_depth(self, canonical_depth: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        if canonical_depth.dtype != torch.float32:
            raise ValueError(f"canonical_depth must be float32 for pytorch3d, not {canonical_depth.dtype}")
        height, width = canonical_depth.shape[-2:]
        samples = self.supersampling
        vertices = grid_vertices(
            canonical_depth, view, self.camera, samples=samples, pixel_offset=self.pixel_offset, backend="reference"
        )
        faces = grid_faces(height, width, vertices.device).long()
        depth, seen = self._samples(vertices, faces, height * samples, width * samples)
        return pool_samples(depth, seen, samples)

    def _samples(self, vertices: Tensor, faces: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Depth (B, H, W), 0 for none, and whether a face was seen, for every sample."""
        # PyTorch3D: x left, y up, the shorter side spans [−1, 1], pixel i has its centre at (2i + 1) / n − 1.
        shorter = min(height, width)
        u, v, z = vertices.unbind(-1)
        points = torch.stack(((width - 1 - 2 * u) / shorter, (height - 1 - 2 * v) / shorter, z), dim=-1)
        # A face with a corner that cannot be projected collapses to a point, which is never drawn.
        good = (points.isfinite().all(-1) & (z > 0))[:, faces].all(-1)
        points = points.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        mesh = self.structures.Meshes(verts=list(points), faces=list(torch.where(good[..., None], faces, 0)))
        soft = self.mode == "soft"
        face, zbuf, _, distance = self.rasterizer.rasterize_meshes(
            mesh,
            image_size=(height, width),
            blur_radius=max(math.log(1 / CUT_OFF - 1) * self.sigma, EDGE) if soft else EDGE,
            faces_per_pixel=self.faces_per_pixel if soft else 1,
            perspective_correct=True,
            clip_barycentric_coords=True,
        )
        drawn = (face >= 0) & (zbuf > NEAR) & (zbuf < FAR)
        if not soft:
            return torch.where(drawn, zbuf, 0)[..., 0], drawn[..., 0]
        return self._blend(face, zbuf, distance, drawn)

    def _blend(self, face: Tensor, zbuf: Tensor, distance: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """Expected depth of the blended faces, without the background."""
        zbuf = torch.where(drawn, zbuf, self.background)
        # Depth and a constant are blended like colours over black; their quotient has no share of the background.
        colours = torch.stack((zbuf, torch.ones_like(zbuf), torch.zeros_like(zbuf)), dim=-1)
        fragments = _Fragments(torch.where(drawn, face, -1), zbuf, distance)
        blended = self.blending.softmax_rgb_blend(
            colours,
            fragments,
            self.blending.BlendParams(self.sigma, self.gamma, (0.0, 0.0, 0.0)),
            znear=self.nearest,
            zfar=self.background,
        )
        seen = (drawn & (distance < EDGE)).any(-1)  # negative inside a face
        depth = blended[..., 0] / torch.where(seen, blended[..., 1], 1)
        return torch.where(seen, depth, 0), seen


class _Fragments:
    """What PyTorch3D's blending reads."""

    def __init__(self, face: Tensor, zbuf: Tensor, distance: Tensor) -> None:
        self.pix_to_face, self.zbuf, self.dists = face, zbuf, distance


def _module(name: str, package: str = "pytorch3d.renderer.mesh") -> Any:
    try:
        return importlib.import_module(f"{package}.{name}")
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == "pytorch3d"
        problem = "pytorch3d is not installed" if absent else f"pytorch3d cannot be imported: {error}"
        raise PluginError(
            problem,
            where="renderer pytorch3d",
            remedy="use depth-mesh, which is exact and faster, or build pytorch3d from its source for this torch",
        ) from error

"""Renderers of others that are no plugins here, for benchmarks/rendering.py: only timed, and only where installed.

Both need a CUDA GPU. Each draws the same grid meshes to depth and takes gradients to the canonical depth and view.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recon_toolkit.geometry import Camera, backproject, grid_faces, transform

Work = Callable[[], object]


def nvdiffrast(depth: Tensor, view: Tensor, camera: Camera, device: torch.device) -> Work:
    """nvdiffrast at 2×2 samples: its z/w has no gradient by design, so z is interpolated as an attribute."""
    import nvdiffrast.torch as dr

    context = dr.RasterizeCudaContext(device=device)
    height, width = depth.shape[-2:]
    faces = grid_faces(height, width, device)

    def run() -> object:
        points = transform(backproject(depth, camera).flatten(2), view)
        u, v, z = camera.project(points, height, width).unbind(1)
        # Clip space: pixel centres lie at (2i + 1) / n − 1; w is the depth, and z/w lies between the planes 0.5 and 2.
        x, y = (2 * u + 1) / width - 1, (2 * v + 1) / height - 1
        clip = torch.stack((x * z, y * z, (2.5 * z - 2) / 1.5, z), dim=-1).contiguous()
        fragments, _ = dr.rasterize(context, clip, faces, (2 * height, 2 * width))
        found, _ = dr.interpolate(z[..., None].contiguous(), fragments, faces)
        return torch.autograd.grad(found.sum(), (depth, view))

    return run


def original(depth: Tensor, view: Tensor, camera: Camera, device: torch.device) -> Work:
    """The CUDA neural_renderer that the method was published with, anti-aliased and two-sided."""
    import neural_renderer as nr

    height, width = depth.shape[-2:]
    focal = camera.focal_length(width)
    matrix = depth.new_tensor([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])[None]
    renderer: Any = nr.Renderer(
        camera_mode="projection",
        image_size=width,
        orig_size=width,
        K=matrix,
        R=torch.eye(3, device=device)[None],
        t=torch.zeros(1, 1, 3, device=device),
        light_intensity_ambient=1.0,
        light_intensity_directional=0.0,
    )
    faces = grid_faces(height, width, device)[None].expand(len(depth), -1, -1).contiguous()

    def run() -> object:
        points = transform(backproject(depth, camera).flatten(2), view).transpose(1, 2).contiguous()
        return torch.autograd.grad(renderer.render_depth(points, faces).sum(), (depth, view))

    return run


PEERS: dict[str, Callable[[Tensor, Tensor, Camera, torch.device], Work]] = {
    "nvdiffrast": nvdiffrast,
    "neural_renderer (CUDA original)": original,
}

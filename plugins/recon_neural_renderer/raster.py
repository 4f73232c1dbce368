"""The raster op: depth, silhouettes and colours of projected meshes with Kato's gradients, one autograd function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recon_neural_renderer import cameras as checks
from recon_neural_renderer.cameras import Vector, batch_vectors

Backend = Literal["auto", "numba", "torch"]


@dataclass(frozen=True)
class Maps:
    """What is drawn; None for what was not asked for. Rows count from the top.

    Attributes:
        depth: (B, H, W) z, ``far`` where nothing is seen; a mean over the samples of a pixel.
        alpha: (B, H, W) share of the pixel's samples that see a face: 0, 1 or between with anti-aliasing.
        rgb: (B, 3, H, W).
    """

    depth: Tensor | None
    alpha: Tensor | None
    rgb: Tensor | None


@dataclass(frozen=True)
class Drawing:
    """How to draw: size in pixels, samples along a pixel's side, limits of depth, eps, both sides, what is wanted."""

    height: int
    width: int
    samples: int
    near: float
    far: float
    eps: float
    two_sided: bool
    depth: bool
    alpha: bool
    rgb: bool


def choose_backend(points: Tensor, backend: Backend) -> Literal["numba", "torch"]:
    """Numba on the CPU, PyTorch elsewhere, unless one is forced."""
    if backend not in ("auto", "numba", "torch"):
        raise ValueError(f"backend is auto, numba or torch, not {backend!r}")
    if backend == "numba" and points.device.type != "cpu":
        raise ValueError(f"backend numba draws on the CPU, but the vertices are on {points.device}")
    if backend != "auto":
        return backend
    return "numba" if points.device.type == "cpu" else "torch"


def draw(
    points: Tensor,  # [B, V, 3]
    faces: Tensor,  # [B or 1, F, 3]
    textures: Tensor | None,  # [B, F, t, t, t, 3]
    light: Tensor | None,  # [B, F or 2F, 3]
    background: Tensor | None,  # [B, 3]
    drawing: Drawing,
    backend: Backend = "auto",
) -> Maps:
    """The op on vertices in raster coordinates; arguments are taken as checked.

    Args:
        points: x to the right and y downwards in samples (integers are sample positions), z depth.
        faces: vertex indices, int32 or int64; one set may serve the batch.
        textures: colours of each face, for ``rgb``.
        light: factors of each face's colours; with ``two_sided`` those of the backs follow those of the fronts.
        background: colour where nothing is seen.
        drawing: size, samples, limits and what is wanted.
        backend: ``auto``, ``numba`` or ``torch``.
    """
    chosen = choose_backend(points, backend)
    depth, alpha, rgb = _Draw.apply(points, faces, textures, light, background, drawing, chosen)
    return Maps(depth if drawing.depth else None, alpha if drawing.alpha else None, rgb)


#: The original's defaults.
NEAR, FAR = 0.1, 100.0
#: What keeps the approximate gradient's distance from 0: for pictures with colours, and for silhouettes alone.
EPS_RGB, EPS_SILHOUETTES = 1e-3, 1e-4


def rasterize(
    vertices: Tensor,  # [B, V, 3]
    faces: Tensor,  # [F, 3] or [B, F, 3]
    textures: Tensor | None = None,  # [B, F, t, t, t, 3]
    *,
    image_size: int = 256,
    anti_aliasing: bool = True,
    fill_back: bool = False,
    near: float = NEAR,
    far: float = FAR,
    eps: float | None = None,
    background_color: Vector = (0.0, 0.0, 0.0),
    light: Tensor | None = None,
    depth: bool = True,
    alpha: bool = True,
    backend: Backend = "auto",
) -> Maps:
    """Draw projected meshes (Kato, Ushiku and Harada 2018).

    Depth has its exact gradient, alpha and rgb the approximate one, textures and light the exact one; none flows to
    the background's colour, and none from colours to z.

    Args:
        vertices: (B, V, 3) x and y on the screen in [−1, 1], y up, and depth z; see ``cameras``. For projected faces
            (B, F, 3, 3) pass ``corners.flatten(1, 2)`` and ``torch.arange(3 * F).reshape(F, 3)``.
        faces: (F, 3) or (B, F, 3) of int32 or int64. Anticlockwise faces, as one sees them, are drawn.
        textures: (B, F, t, t, t, 3) colours; rgb is drawn if given. A corner's own colour is at index t − 1 of its
            axis and 0 of the others.
        image_size: side of the picture in pixels.
        anti_aliasing: 2 × 2 samples per pixel, of which all maps are means.
        fill_back: draw clockwise faces too.
        near, far: depths outside are not drawn; ``far`` is the background's.
        eps: least distance in the approximate gradient; 1e-3 with textures and 1e-4 without, if not given.
        background_color: (3,) or (B, 3).
        light: (B, F, 3) factors of the faces' colours, (B, 2F, 3) with ``fill_back``: backs follow.
        depth, alpha: which maps to return.
        backend: ``auto`` (Numba on the CPU, PyTorch elsewhere), ``numba`` or ``torch``.

    Raises:
        ValueError: an argument's shape, type, device or value is wrong.
    """
    checks.check_vertices(vertices)
    faces = checks.check_faces(faces, vertices)
    checks.check_size(image_size)
    checks.check_limits(near, far, eps)
    chosen = choose_backend(vertices, backend)
    background = None
    if textures is not None:
        textures = checks.check_textures(textures, faces, vertices)
        background = batch_vectors(background_color, "background_color", vertices).expand(len(vertices), 3)
        shape = (len(vertices), (2 if fill_back else 1) * faces.shape[1], 3)
        light = vertices.new_ones(shape) if light is None else light
        if light.shape != shape:
            raise ValueError(f"light must be (B, F, 3), with fill_back (B, 2F, 3): {shape}, not {tuple(light.shape)}")
    samples = 2 if anti_aliasing else 1
    if eps is None:
        eps = EPS_SILHOUETTES if textures is None else EPS_RGB
    rgb = textures is not None
    drawing = Drawing(image_size, image_size, samples, near, far, eps, fill_back, depth, alpha, rgb)
    # From y up in [−1, 1] to samples counted from the top left.
    side = image_size * samples
    x, y, z = vertices.unbind(-1)
    points = torch.stack(((x * side + (side - 1)) / 2, ((side - 1) - y * side) / 2, z), dim=-1)
    return draw(points, faces, textures, light if rgb else None, background, drawing, chosen)


def _backend(name: str) -> Any:
    if name == "numba":
        from recon_neural_renderer import numba_backend

        return numba_backend
    from recon_neural_renderer import torch_backend

    return torch_backend


class _Draw(torch.autograd.Function):
    """Values from a backend's ``forward``; gradients of depth, of silhouettes and colours, of textures and light."""

    @staticmethod
    def forward(
        ctx: Any,
        points: Tensor,
        faces: Tensor,
        textures: Tensor | None,
        light: Tensor | None,
        background: Tensor | None,
        drawing: Drawing,
        backend: str,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        module = _backend(backend)
        winner, depth, alpha = module.forward(points, faces, drawing)
        rgb = colour = None
        if drawing.rgb:
            rgb, colour = module.shade(points, faces, textures, light, background, winner, drawing)
        ctx.save_for_backward(points, faces, textures, light, winner, colour)
        ctx.drawing, ctx.module = drawing, module
        ctx.set_materialize_grads(False)
        if not drawing.depth:
            ctx.mark_non_differentiable(depth)
        if not drawing.alpha:
            ctx.mark_non_differentiable(alpha)
        return depth, alpha, rgb

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_depth: Tensor | None, grad_alpha: Tensor | None, grad_rgb: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        points, faces, textures, light, winner, colour = ctx.saved_tensors
        grad_points = grad_textures = grad_light = None
        if ctx.needs_input_grad[0]:
            grad_points = torch.zeros_like(points, memory_format=torch.contiguous_format)
            if grad_depth is not None:
                grad_points += ctx.module.depth_backward(points, faces, winner, grad_depth, ctx.drawing)
            if grad_alpha is not None or grad_rgb is not None:
                grad_points += ctx.module.sweep(points, faces, winner, colour, grad_alpha, grad_rgb, ctx.drawing)
        if grad_rgb is not None and (ctx.needs_input_grad[2] or ctx.needs_input_grad[3]):
            grad_textures, grad_light = ctx.module.shade_backward(
                points, faces, textures, light, winner, grad_rgb, ctx.drawing
            )
        return grad_points, None, grad_textures, grad_light, None, None, None

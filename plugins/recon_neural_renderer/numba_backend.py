"""The CPU backend: tensors in, Numba kernels, tensors out. Parallel over the batch and rows or faces, deterministic."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from recon_neural_renderer import kernels as draw_kernels
from recon_neural_renderer import kernels as sweep_kernels
from recon_neural_renderer import kernels as texture_kernels
from recon_neural_renderer.raster import Drawing


def _array(tensor: Tensor) -> Any:
    """A contiguous NumPy array that shares the tensor's memory where it can."""
    return tensor.detach().contiguous().numpy()


def _coordinates(like: Tensor, *sizes: int) -> Any:
    """0, 1, 2, … in the vertices' precision: kernels must not mix precisions through integer arithmetic."""
    return np.arange(max(2, *sizes), dtype=_kind(like))


def _kind(like: Tensor) -> Any:
    return np.float32 if like.dtype == torch.float32 else np.float64


def _bands(batch: int) -> int:
    """Tasks per image that give every thread work."""
    return max(1, -(-torch.get_num_threads() // max(batch, 1)))


def forward(points: Tensor, faces: Tensor, drawing: Drawing) -> tuple[Tensor, Tensor, Tensor]:
    """Winning face per sample, mean depth and mean coverage per pixel."""
    batch, samples = len(points), drawing.samples
    rows, columns = samples * drawing.height, samples * drawing.width
    winner = torch.empty(batch, rows, columns, dtype=torch.int32)
    nearest = points.new_empty(batch, rows, columns)
    depth = points.new_empty(batch, drawing.height, drawing.width)
    alpha = torch.empty_like(depth)
    kind = _kind(points)
    draw_kernels.draw(
        batch * _bands(batch), _array(points), _array(faces.int()), _coordinates(points, rows, columns), _bands(batch),
        kind(drawing.near), kind(drawing.far), drawing.two_sided, samples,
        winner.numpy(), nearest.numpy(), depth.numpy(), alpha.numpy(),
    )  # fmt: skip
    return winner, depth, alpha


def depth_backward(points: Tensor, faces: Tensor, winner: Tensor, grad: Tensor, drawing: Drawing) -> Tensor:
    """Gradient of the mean depth with respect to the points."""
    bands = _bands(len(points))
    out = points.new_zeros(len(points), bands, *points.shape[1:])
    draw_kernels.depth_backward(
        len(points) * bands,
        _array(points), _array(faces.int()), _coordinates(points, *winner.shape[1:]), bands, drawing.samples,
        winner.numpy(), _array(grad), out.numpy(),
    )  # fmt: skip
    return out[:, 0] if bands == 1 else out.sum(1)


def shade(
    points: Tensor, faces: Tensor, textures: Tensor, light: Tensor, background: Tensor, winner: Tensor, drawing: Drawing
) -> tuple[Tensor, Tensor]:
    """Colours per pixel (B, 3, H, W) and per sample (B, rows, columns, 3)."""
    colour = points.new_empty(*winner.shape, 3)
    out = points.new_empty(len(points), 3, drawing.height, drawing.width)
    coordinates = _coordinates(points, *winner.shape[1:], textures.shape[2])
    texture_kernels.shade(
        len(points) * drawing.height,
        _array(points), _array(faces.int()), _array(textures), _array(light), _array(background), coordinates,
        _kind(points)(drawing.eps), drawing.samples, winner.numpy(), colour.numpy(), out.numpy(),
    )  # fmt: skip
    return out, colour


def shade_backward(
    points: Tensor, faces: Tensor, textures: Tensor, light: Tensor, winner: Tensor, grad: Tensor, drawing: Drawing
) -> tuple[Tensor, Tensor]:
    """Gradients of textures and light."""
    grad_textures = torch.zeros_like(textures, memory_format=torch.contiguous_format)
    grad_light = torch.zeros_like(light, memory_format=torch.contiguous_format)
    coordinates = _coordinates(points, *winner.shape[1:], textures.shape[2])
    texture_kernels.shade_backward(
        len(points) * _bands(len(points)),
        _array(points), _array(faces.int()), _array(textures), _array(light), coordinates,
        _kind(points)(drawing.eps), drawing.samples, _bands(len(points)), winner.numpy(), _array(grad),
        grad_textures.numpy(), grad_light.numpy(),
    )  # fmt: skip
    return grad_textures, grad_light


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
    out = torch.zeros_like(points, memory_format=torch.contiguous_format)
    rows, columns = winner.shape[1:]
    coordinates = _coordinates(points, rows, columns)
    kind = _kind(points)
    share = kind(1 / drawing.samples**2)
    nothing = points.new_zeros(drawing.height, drawing.width) if grad_alpha is None else None
    for n in range(len(points)):
        own = _array((faces[n] if len(faces) > 1 else faces[0]).int())
        own_alpha = _array(nothing if grad_alpha is None else grad_alpha[n])  # type: ignore[arg-type]
        # Without colours their arrays are placeholders: one channel is all that the kernel fills.
        with_colour = grad_rgb is not None and colour is not None
        own_colour = _array(colour[n]) if with_colour else np.empty((1, 1, 3), kind)  # type: ignore[index]
        own_rgb = _array(grad_rgb[n]) if with_colour else np.empty((3, 1, 1), kind)  # type: ignore[index]
        image = np.empty((rows, columns, 4 if with_colour else 1), kind)
        grad = np.empty_like(image)
        won = winner[n].numpy()
        sweep_kernels.spread(rows, won, own_colour, own_alpha, own_rgb, drawing.samples, share, image, grad)
        seen = sweep_kernels.winners(won, 2 * len(own))
        if not len(seen):
            continue
        bounds = sweep_kernels.limits(won, image)
        straight = _lines(image, grad, won, bounds, coordinates)
        image_t, grad_t, won_t = (np.ascontiguousarray(a.swapaxes(0, 1)) for a in (image, grad, won))
        turned = _lines(image_t, grad_t, won_t, bounds, coordinates)
        parts = np.zeros((len(seen), 3, 2), kind)
        tasks = 4 * torch.get_num_threads()
        sweep_kernels.sweep(
            tasks, _array(points[n]), own, seen, tasks, coordinates, kind(drawing.eps),
            *straight, *turned, parts,
        )  # fmt: skip
        sweep_kernels.gather(own, seen, parts, out[n].numpy())
    return out


def _lines(image: Any, grad: Any, winner: Any, bounds: Any, coordinates: Any) -> tuple[Any, ...]:
    """Image, gradient and winners by line, with each line's list of samples that can contribute."""
    lines, length, channels = image.shape
    start = np.empty((lines, length + 1), np.int32)
    listed = np.empty((lines, 1 + 2 * channels, length), image.dtype)
    sweep_kernels.list_samples(lines, image, grad, bounds, coordinates, start, listed)
    return image, grad, winner, start, listed

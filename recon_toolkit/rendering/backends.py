"""Which kernels serve a tensor, and what the rasteriser's functions demand of their arguments."""

from __future__ import annotations

import os
import sys
import warnings
from functools import cache
from importlib.util import find_spec
from typing import Literal, get_args

import torch
from torch import Tensor

Backend = Literal["auto", "reference", "numba", "triton"]

_warned: set[str] = set()


def choose_backend(tensor: Tensor, backend: Backend = "auto") -> Literal["reference", "numba", "triton"]:
    """The backend that serves a tensor, unless one is forced.

    ``auto`` takes ``numba`` on the CPU and ``triton`` on CUDA. Where Triton does not work, and on any other device, it
    takes ``reference`` (PyTorch) and warns once with the cause.

    Raises:
        ValueError: there is no such backend, or the one forced cannot serve the tensor's device.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be one of {', '.join(get_args(Backend))}, not {backend!r}")
    device = tensor.device
    if backend == "auto":
        return _fastest(device)
    if backend == "numba" and device.type != "cpu":
        raise ValueError(f"backend 'numba' draws on the CPU, but the tensor is on {device}: use 'auto'")
    if backend == "triton":
        _demand_triton(device)
    return backend


def _fastest(device: torch.device) -> Literal["reference", "numba", "triton"]:
    if device.type == "cpu":
        return "numba"
    if device.type != "cuda":
        _warn_once(f"no fast rasteriser for {device.type} devices: PyTorch draws instead, slower. Move to CPU or CUDA")
        return "reference"
    problem = triton_problem(device.index if device.index is not None else torch.cuda.current_device())
    if problem:
        _warn_once(
            f"Triton cannot draw on {torch.cuda.get_device_name(device)}, PyTorch does instead, slower: {problem}"
        )
        return "reference"
    return "triton"


def _demand_triton(device: torch.device) -> None:
    """Raise ValueError unless Triton serves this device; its interpreter serves the CPU too."""
    if device.type == "cuda":
        problem = triton_problem(device.index if device.index is not None else torch.cuda.current_device())
        if problem:
            raise ValueError(f"backend 'triton' does not work on {device}: {problem}")
    elif device.type != "cpu" or not interpreting():
        raise ValueError(
            f"backend 'triton' draws on CUDA, but the tensor is on {device}: use 'auto'. (With TRITON_INTERPRET=1 set "
            f"before Triton is imported its interpreter draws on the CPU, for tests.)"
        )


def interpreting() -> bool:
    """True if the kernels run in Triton's interpreter, which is decided once, when they are first imported."""
    if "recon_toolkit.rendering.raster_triton" not in sys.modules and os.environ.get("TRITON_INTERPRET", "0") != "1":
        return False  # without importing Triton
    if find_spec("triton") is None:
        return False
    from recon_toolkit.rendering.raster_triton import INTERPRETED

    return INTERPRETED


@cache
def triton_problem(device: int) -> str | None:
    """Why Triton does not work on this CUDA device and what to do about it, or None: one small kernel is tried."""
    if find_spec("triton") is None:
        remedy = "triton-windows" if sys.platform == "win32" else "triton"
        return f"the package triton is not installed. Install it: pip install {remedy}"
    try:
        from recon_toolkit.rendering.raster_triton import try_kernel

        try_kernel(torch.device("cuda", device))
    except Exception as error:  # whatever stands in its way: a missing compiler, headers, an old driver or device
        cause = str(error).strip().splitlines() or [""]
        return (
            f"{type(error).__name__}: {cause[0]}. It needs a C compiler (or CC) and a device of capability 8.0 or more"
        )
    return None


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=4)


_INDICES = (torch.int32, torch.int64)


def check_mesh(vertices: Tensor, faces: Tensor, *, values: bool = True) -> None:
    """Raise ValueError unless vertices (B, V, 3) and faces (F, 3) are a batch of meshes that can be drawn.

    Args:
        vertices: (B, V, 3): pixel coordinates u, v and depth z.
        faces: (F, 3), shared by the batch.
        values: look at the numbers too, for which a GPU must be waited for: faces in range, vertices finite, and
            no mesh wholly at or behind the camera.
    """
    if vertices.ndim != 3 or vertices.shape[2] != 3:
        raise ValueError(f"vertices must be (B, V, 3), not {tuple(vertices.shape)}")
    _check_precision("vertices", vertices)
    _check_faces(faces, "vertices", vertices, values=values)
    if values and vertices.numel():
        _check_vertices(vertices)


def check_picture(height: int, width: int, samples: int = 1) -> None:
    """Raise ValueError unless height, width and samples are 1 or more."""
    for name, number in (("height", height), ("width", width), ("samples", samples)):
        if number < 1:
            raise ValueError(f"{name} must be 1 or more, not {number}")


def check_attributes(
    attributes: Tensor, faces: Tensor, face: Tensor, barycentric: Tensor, *, values: bool = True
) -> None:
    """Raise ValueError unless attributes (B, V, C) can be interpolated to fragments (B, H, W)."""
    if attributes.ndim != 3:
        raise ValueError(f"attributes must be (B, V, C), not {tuple(attributes.shape)}")
    _check_precision("attributes", attributes)
    _check_faces(faces, "attributes", attributes, values=values)
    if face.ndim != 3 or len(face) != len(attributes) or face.dtype not in _INDICES:
        raise ValueError(
            f"fragments.face must be ({len(attributes)}, H, W) of int32, not {tuple(face.shape)} of {face.dtype}"
        )
    if barycentric.shape != (*face.shape, 3):
        raise ValueError(f"fragments.barycentric must be {(*face.shape, 3)}, not {tuple(barycentric.shape)}")
    if barycentric.dtype != attributes.dtype:
        raise ValueError(f"attributes are {attributes.dtype}, but fragments.barycentric is {barycentric.dtype}")
    for name, tensor in (("face", face), ("barycentric", barycentric)):
        if tensor.device != attributes.device:
            raise ValueError(f"fragments.{name} is on {tensor.device}, but attributes are on {attributes.device}")
    if values and face.numel() and int(face.max()) >= len(faces):
        raise ValueError(f"fragments.face names face {int(face.max())}, but there are {len(faces)} faces")


def _check_precision(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name} must be float32 or float64, not {tensor.dtype}")


def _check_faces(faces: Tensor, name: str, points: Tensor, *, values: bool) -> None:
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype not in _INDICES:
        raise ValueError(f"faces must be (F, 3) of int32 or int64, not {tuple(faces.shape)} of {faces.dtype}")
    if faces.device != points.device:
        raise ValueError(f"faces is on {faces.device}, but {name} on {points.device}: move one to the other")
    if not values:
        return
    if not len(faces):
        raise ValueError("faces is empty: there is nothing to draw")
    lowest, highest = torch.stack(torch.aminmax(faces)).tolist()
    if lowest < 0 or highest >= points.shape[1]:
        worst = lowest if lowest < 0 else highest
        raise ValueError(f"faces must lie in 0..{points.shape[1] - 1}, the indices of {name}, but one is {worst}")


def _check_vertices(vertices: Tensor) -> None:
    finite, seen = _measure(vertices.detach())
    if not all(finite):
        mesh = finite.index(False)
        count = int((~vertices[mesh].isfinite()).any(-1).sum())
        raise ValueError(
            f"vertices must be finite, but {count} of {vertices.shape[1]} vertices of mesh {mesh} are NaN or infinite"
        )
    if not all(seen):
        raise ValueError(f"mesh {seen.index(False)} lies wholly behind the camera: all its vertices have depth z ≤ 0")


def _measure(vertices: Tensor) -> tuple[list[bool], list[bool]]:
    """Per mesh: are all its vertices finite, and has one of them z > 0? In one pass, or one wait for the GPU."""
    if vertices.device.type == "cpu":
        from recon_toolkit.rendering import raster_numba as kernels

        flags = torch.empty(len(vertices), 2, dtype=torch.bool)
        kernels.measure(vertices.contiguous().flatten(1).numpy(), flags.numpy())
    else:
        flags = torch.stack((vertices.isfinite().all(dim=(1, 2)), (vertices[..., 2] > 0).any(1)), dim=1)
    finite, seen = zip(*flags.tolist(), strict=True)
    return list(finite), list(seen)


def check_depth_map(canonical_depth: Tensor, view: Tensor) -> None:
    """Raise ValueError unless these are (B, H, W) and (B, 6) of one precision on one device."""
    if canonical_depth.ndim != 3 or min(canonical_depth.shape[1:]) < 2:
        raise ValueError(
            f"canonical_depth must be (B, H, W) with two pixels or more a side, not {tuple(canonical_depth.shape)}"
        )
    _check_precision("canonical_depth", canonical_depth)
    if view.shape != (len(canonical_depth), 6):
        raise ValueError(f"view must be ({len(canonical_depth)}, 6) as canonical_depth is, not {tuple(view.shape)}")
    _check_like("view", view, canonical_depth)


def check_object(canonical_depth: Tensor, canonical_image: Tensor, view: Tensor) -> None:
    """The same, with an image (B, C, H, W)."""
    check_depth_map(canonical_depth, view)
    batch, height, width = canonical_depth.shape
    if canonical_image.ndim != 4 or canonical_image.shape[0] != batch or canonical_image.shape[2:] != (height, width):
        expected = f"({batch}, C, {height}, {width}) as canonical_depth is"
        raise ValueError(f"canonical_image must be {expected}, not {tuple(canonical_image.shape)}")
    _check_like("canonical_image", canonical_image, canonical_depth)


def _check_like(name: str, tensor: Tensor, depth: Tensor) -> None:
    if tensor.device != depth.device or tensor.dtype != depth.dtype:
        raise ValueError(
            f"{name} must be {depth.dtype} on {depth.device} like canonical_depth, "
            f"not {tensor.dtype} on {tensor.device}"
        )

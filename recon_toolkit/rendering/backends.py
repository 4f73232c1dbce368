"""Which kernels serve a tensor: Numba on the CPU, Triton on CUDA, the PyTorch reference anywhere."""

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

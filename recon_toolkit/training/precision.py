"""Which precision the networks run in: bfloat16 where the device computes it, which is not where torch accepts it."""

from __future__ import annotations

import os
import time

import torch
from torch.nn import functional as F

from recon_toolkit.config.schema import Precision

#: Values of oneDNN's environment variable that leave it its bf16 instructions.
_WITH_BF16 = ("BF16", "FP16", "AMX", "AVX10", "ALL", "DEFAULT")
#: Seconds of the trial, by precision.
_TRIAL = 0.5


def native_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for products of bfloat16.

    CUDA from compute capability 8.0 on; x86 with AVX512-BF16 or AMX, unless ``ONEDNN_MAX_CPU_ISA`` forbids them; Arm
    with the bf16 extension. Everything else either lacks bfloat16 or emulates it: right, and 8 to 20 times as slow.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "ALL")).upper()
    if not any(word in limit for word in _WITH_BF16):
        return False
    has = torch.cpu.get_capabilities()
    return any(bool(has.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16", "sve_bf16"))


def settled(wanted: str, device: torch.device) -> Precision:
    """What ``training.precision`` comes to on a device: ``fp32`` or ``bf16``, the latter for ``auto`` where native."""
    if wanted == "auto":
        return "bf16" if native_bf16(device) else "fp32"
    return "bf16" if wanted == "bf16" else "fp32"


def slowdown(device: torch.device) -> float:
    """How many times as long as in fp32 a convolution takes in bf16, forward and backward: a trial of a second."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as the threads that share a batch have it; also, several wait long for a busy core
    try:
        return _seconds(device, torch.bfloat16) / _seconds(device, torch.float32)
    finally:
        torch.set_num_threads(before)


def _seconds(device: torch.device, dtype: torch.dtype) -> float:
    """Shortest time of a convolution as the quick pipelines have them, of as many as fit into half a second."""
    image = torch.zeros(8, 32, 16, 16, device=device, dtype=dtype, requires_grad=True)
    weight = torch.zeros(32, 32, 3, 3, device=device, dtype=dtype, requires_grad=True)
    begun, shortest = time.perf_counter(), float("inf")
    while time.perf_counter() - begun < _TRIAL:
        started = time.perf_counter()
        found = F.conv2d(image, weight, padding=1)
        torch.autograd.grad(found, (image, weight), torch.ones_like(found))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        shortest = min(shortest, time.perf_counter() - started)
    return shortest

"""What a run was made with: versions, source revision, device, seed, data. Saved beside its results."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch
from pydantic import BaseModel

from recon_toolkit.training.precision import native_bf16

_PACKAGES = ("recon-toolkit", "torch", "torchvision", "numpy", "numba", "lightning-fabric", "kornia", "pluggy")


class Environment(BaseModel):
    """The surroundings of a run, as ``environment.json`` holds them."""

    started: str
    command: list[str]
    python: str
    platform: str
    processor: str
    threads: int
    instructions: str = ""  # of the CPU, as torch and oneDNN may use them; records of before this do not say
    device: str
    precision: str
    versions: dict[str, str]
    git: str | None
    seed: int
    pipeline_fingerprint: str
    data: dict[str, str]


def environment(
    *, command: list[str], device: torch.device, precision: str, seed: int, fingerprint: str, data: dict[str, str]
) -> Environment:
    """Describe this process.

    Args:
        command: the command line.
        device: where training runs.
        precision: of the networks.
        seed: of the run.
        fingerprint: of the resolved pipeline.
        data: fingerprint of each split used.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    return Environment(
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        python=sys.version.split()[0],
        platform=platform.platform(),
        processor=_processor(),
        threads=torch.get_num_threads(),
        instructions=_instructions(),
        device=name,
        precision=precision,
        versions={package: _version(package) for package in _PACKAGES},
        git=git_revision(Path(__file__).parent),
        seed=seed,
        pipeline_fingerprint=fingerprint,
        data=data,
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _instructions() -> str:
    """The instruction set of torch's own loops, whether bf16 is native, and what oneDNN was limited to."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    bf16 = "with bf16" if native_bf16(torch.device("cpu")) else "without bf16"
    return f"{torch.backends.cpu.get_cpu_capability()} {bf16}" + (f", oneDNN held to {limit}" if limit else "")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def git_revision(folder: Path) -> str | None:
    """Commit of the checkout that holds a folder, with ``-dirty`` if it is changed; None outside of one."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None


def peak_memory_mb(device: torch.device) -> float:
    """Largest memory in use so far, in MiB: of the device's allocator, or of this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows has no such record
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10

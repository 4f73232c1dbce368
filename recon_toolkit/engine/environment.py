"""What a run is made with: precision, memory, how many steps, data; versions, source revision, device, seed."""

from __future__ import annotations

import ctypes
import importlib.metadata
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
import torch
from pydantic import BaseModel, Field, ValidationError
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from recon_toolkit.assembly import build_dataset
from recon_toolkit.components import blamed
from recon_toolkit.config.pipeline import ResolvedPipeline
from recon_toolkit.config.schema import Precision, TrainingConfig
from recon_toolkit.data.packed import PackedImages
from recon_toolkit.data.packing import DataContext
from recon_toolkit.errors import CheckpointError, DataError, MissingSplit, PluginError
from recon_toolkit.files import write_text

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


#: glibc's numbers of its settings (malloc.h).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
#: Above this glibc takes each block from the system and gives it back; the largest that it accepts.
_LARGEST = 32 << 20


def keep_memory() -> bool:
    """Let glibc keep memory that is freed; whether it does.

    By default large blocks go back to the system when they are freed. A step frees and takes the same blocks again, and
    their pages are then made anew, one fault each, while all threads of the process wait for one lock: on two cores a
    third of a step. For a process of the toolkit's own, whose memory stays at its peak from then on.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    settings = ((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 << 20))
    return all([mallopt(name, value) == 1 for name, value in settings])


FILE = "budget.json"
#: Steps timed after one that is not, since the first compiles and allocates.
TRIAL_STEPS = 10


class Budget(BaseModel):
    """What a trial said; a run keeps it, so that it continues to the same last step."""

    minutes: float
    step_seconds: float
    steps: int = Field(ge=1, lt=2**63)


def steps_given(config: TrainingConfig, images: int) -> int | None:
    """Steps of a run on ``images`` training images, None if a trial has to tell."""
    if config.steps is not None:
        return config.steps
    if config.epochs is not None:
        return max(1, math.ceil(config.epochs * images / config.batch_size))
    return None


def recorded_steps(run: Path) -> int | None:
    """What an earlier session's trial said, if there was one. Raises CheckpointError if the file is damaged."""
    path = run / FILE
    if not path.is_file():
        return None
    try:
        return Budget.model_validate_json(path.read_bytes()).steps
    except ValidationError as error:
        raise CheckpointError("is damaged", where=str(path), remedy="start the run anew elsewhere") from error


def try_steps(step: Callable[[], object], minutes: float, run: Path | None) -> int:
    """Time ``step``, which must leave no trace in the training, and say how many fit into ``minutes``.

    Args:
        step: one training step without its update.
        minutes: of training alone, without validation and scoring.
        run: where the result is kept; nowhere if None.
    """
    times = []
    for _ in range(1 + TRIAL_STEPS):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times[1:])
    budget = Budget(minutes=minutes, step_seconds=seconds, steps=max(1, int(minutes * 60 / seconds)))
    if run is not None:
        write_text(run / FILE, budget.model_dump_json(indent=1) + "\n", durable=True)
    return budget.steps


def parameter_count(model: nn.Module) -> int:
    """Number of trained values."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def saved_bytes(forward: Callable[[], Tensor]) -> int:
    """Bytes that autograd keeps for the backward pass of a computation, each storage counted once."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        result = forward()
    del result
    return sum(sizes.values())


def peak_memory_estimate(
    model: nn.Module, loss: Callable[[int], Tensor], batch_size: int, group_size: int = 1, *, ema: bool
) -> float:
    """Expected peak memory of the training process in MiB.

    The sum of what the process holds now, gradients, optimiser and average of the weights, and what the backward
    pass keeps per image, times the batch; a quarter more of that for work space.

    Args:
        model: the model, on its device.
        loss: computes the loss of a batch of that number of images.
        batch_size: of the run.
        group_size: images that cannot be parted.
        ema: whether an averaged copy of the weights is kept.
    """
    groups = min(batch_size, max(8, 2 * group_size)) // group_size
    large = groups * group_size
    # A single image has no batch statistics.
    small = max(2, groups // 2 * group_size) if groups > 1 and large > 2 else large
    few, more = saved_bytes(lambda: loss(small)), saved_bytes(lambda: loss(large))
    # Without a second size to compare with, all that is kept counts as the images'.
    per_image = (more - few) / (large - small) if large > small else more / large
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    on_gpu = next(model.parameters()).device.type == "cuda"
    held = weights if on_gpu else psutil.Process().memory_info().rss
    return float(held + weights * (4 if ema else 3) + 1.25 * per_image * batch_size) / 2**20


def available_memory_mb(device: torch.device) -> float:
    """Memory that a training process can have on a device, in MiB."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0]) / 2**20
    # The estimate counts what this process holds already, so that is available to it too.
    return float(psutil.virtual_memory().available + psutil.Process().memory_info().rss) / 2**20


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


@dataclass(frozen=True)
class Splits:
    """The packed data of a run; a data set without some split has None there."""

    train: PackedImages
    validation: PackedImages | None
    evaluation: PackedImages | None

    def fingerprints(self) -> dict[str, str]:
        """Fingerprint of each split."""
        parts = {"train": self.train, "validation": self.validation, "evaluation": self.evaluation}
        return {name: data.fingerprint for name, data in parts.items() if data is not None}


def open_splits(resolved: ResolvedPipeline, context: DataContext) -> Splits:
    """Open, and if need be make, the splits that a run reads.

    Raises:
        DataError: a split is missing, or a folder is given to a data set that says ``reads_folder = False``.
    """
    dataset = build_dataset(resolved)
    pipeline = resolved.pipeline
    if context.root is not None and not getattr(dataset, "reads_folder", True):
        raise DataError(
            f"the data set '{pipeline.dataset.name}' reads no folder",
            where="--data",
            remedy="leave it out, or choose another data set, e.g. --set dataset.name=image-folder",
        )
    known = tuple(dataset.splits)

    def opened(name: str) -> PackedImages:
        who = f"the data set '{pipeline.dataset.name}'"
        with blamed(who):
            found = dataset.open(name, pipeline.image_size, context)
        if not isinstance(found, PackedImages):
            raise PluginError(
                f"{who} gave {type(found).__name__} for the split '{name}', not PackedImages",
                remedy="let its open() return PackedImages.open(...) or what PackWriter.finish() returns",
            )
        return found

    def split(name: str, loss: str) -> PackedImages | None:
        if name not in known:
            return None
        try:
            return opened(name)
        except MissingSplit as error:
            context.progress.warn(f"{error}; {loss}")
            return None

    if "train" not in known:
        raise DataError("the data set has no split 'train'", where="dataset", remedy=f"it has {', '.join(known)}")
    train = opened("train")
    wanted = pipeline.evaluation.split
    if wanted not in known:
        raise DataError(
            f"the data set has no split '{wanted}'", where="evaluation.split", remedy=f"use one of {', '.join(known)}"
        )
    validation = split("val", "contact sheets will show other images")
    return Splits(train, validation, split(wanted, "the run will have no final score"))

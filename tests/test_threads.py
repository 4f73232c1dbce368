"""The threads that are given are the threads that are taken, and a caller's counts stay as they were."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from recon_toolkit import kernels
from recon_toolkit.engine.environment import native_bf16, settled
from recon_toolkit.threads import _read_quota, given

USE = """
import torch
from recon_toolkit import Reconstructor
model = Reconstructor.load(detector=None)
images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
"""


def in_new_process(code: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=kept | environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_callers_thread_count_stays(count: int) -> None:
    code = USE + (
        f"torch.set_num_threads({count})\n"
        "model.reconstruct_batch(images)\n"
        "import numba\nprint(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS == numba.get_num_threads())\n"
    )
    assert in_new_process(code) == f"{count} True"


def test_omp_num_threads_outlasts_the_first_reconstruction() -> None:
    code = USE + "model.reconstruct_batch(images)\nprint(torch.get_num_threads())\n"
    assert in_new_process(code, OMP_NUM_THREADS="1") == "1"


def test_what_is_given_is_the_least_of_all() -> None:
    code = "from recon_toolkit.threads import given\nprint(given())"
    assert in_new_process(code, OMP_NUM_THREADS="1") == "1 thread (OMP_NUM_THREADS)" or os.cpu_count() == 1
    assert in_new_process(code, SLURM_CPUS_PER_TASK="1") == "1 thread (SLURM_CPUS_PER_TASK)" or os.cpu_count() == 1
    if hasattr(os, "sched_setaffinity"):
        bound = f"import os\nos.sched_setaffinity(0, [{min(os.sched_getaffinity(0))}])\n{code}"
        assert in_new_process(bound, OMP_NUM_THREADS="64") == "1 thread (cores)"
        assert in_new_process(bound, OMP_NUM_THREADS="nonsense") == "1 thread (cores)"


def test_a_command_takes_its_option_first() -> None:
    code = (
        "import os, sys\nfrom recon_toolkit import threads\nfrom recon_toolkit.cli.app import execute\n"
        "execute(['pipelines', '--threads', '1'])\n"
        "import torch\nprint(threads.given(), torch.get_num_threads(), os.environ['OMP_NUM_THREADS'])\n"
    )
    assert in_new_process(code).splitlines()[-1] == "1 thread (--threads) 1 1"


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.cfs_quota_us": "50000\n", "cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_quotas_of_control_groups_are_read(tmp_path: Path, files: dict[str, str], cpus: float | None) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="ascii")
    assert _read_quota(tmp_path) == cpus


@kernels.parallel()
def _double(lo, hi, values, out):  # type: ignore[no-untyped-def]
    for i in range(lo, hi):
        out[i] += 2 * values[i]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("tasks", [0, 1, 4, 1001])
def test_every_task_of_a_kernel_is_done_once(threads: int, tasks: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        values, out = np.arange(tasks, dtype=np.float64), np.zeros(tasks)
        _double(tasks, values, out)
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(out, 2 * values)


def test_a_kernel_that_cannot_be_kept_is_compiled_all_the_same() -> None:
    names: dict[str, object] = {}
    exec("def add(a, b):\n    return a + b", names)  # it has no source file that a cache could lie beside
    assert kernels.compiled()(names["add"])(2, 3) == 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are never forked here")
def test_a_forked_pool_reconstructs_as_its_parent_did() -> None:
    code = USE + (
        "import multiprocessing\n"
        "expected = model.reconstruct_batch(images).depth\n"
        "torch.set_num_threads(2)\n"
        "big = torch.rand(400, 400) @ torch.rand(400, 400)\n"  # OpenMP's threads run in the parent
        "expected = model.reconstruct_batch(images).depth\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "    found = pool.map(model.reconstruct_batch, [images[:2], images[2:]])\n"
        "print((torch.cat([part.depth for part in found]) - expected).abs().max().item() < 1e-5)\n"
    )
    # A convolution may sum in another order for another batch size.
    assert in_new_process(code) == "True"


def test_bf16_is_chosen_only_where_it_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    cpu = torch.device("cpu")
    assert not native_bf16(cpu)
    assert settled("auto", cpu) == "fp32" and settled("bf16", cpu) == "bf16" and settled("fp32", cpu) == "fp32"
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    flags = Path("/proc/cpuinfo")
    if flags.is_file() and "x86" in os.uname().machine:
        words = flags.read_text(encoding="utf-8").split()
        assert native_bf16(cpu) == ("avx512_bf16" in words or "amx_bf16" in words)
    assert not native_bf16(torch.device("meta"))


def test_given_follows_torch_in_a_callers_process() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert given().count == 1
    finally:
        torch.set_num_threads(before)

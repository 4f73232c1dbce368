"""The Triton backend: its cases in the interpreter and on CUDA, and that its kernels compile for a GPU without one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
pytest.importorskip("triton", reason="Triton is not installed")


def run(arguments, folder, **variables):
    """Run Python in a process of its own: whether Triton interprets is decided when it is imported."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("TRITON_", "PYTEST_"))}
    environment |= {"TRITON_CACHE_DIR": str(folder), **variables}
    result = subprocess.run(
        [sys.executable, *arguments], cwd=HERE, env=environment, capture_output=True, text=True, timeout=1800
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize(
    "interpret",
    [
        pytest.param("1", id="interpreter"),
        pytest.param(
            "0",
            id="cuda",
            marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
        ),
    ],
)
def test_every_case(interpret, tmp_path):
    # Lanes without a face divide by zero; their results are masked, but NumPy, in the interpreter, warns.
    options = ["-q", "-n", "0", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning"]
    out = run(["-m", "pytest", "triton_cases.py", *options], tmp_path, TRITON_INTERPRET=interpret)
    assert " passed" in out


@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp64", marks=pytest.mark.slow)])
def test_kernels_compile_for_hopper_without_a_gpu(precision, tmp_path):
    compiled = run(["triton_compile.py", precision], tmp_path).split()
    expected = {"draw_small", "draw_large", "show_fragments", "show_depth", "sum_small", "sum_large", "gather"}
    expected |= {"interpolate_forward", "interpolate_backward", "sum_attributes", "place_forward", "place_backward"}
    assert set(compiled) == expected

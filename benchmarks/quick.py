"""A quick pipeline as a user runs it, for several seeds: python benchmarks/quick.py --seeds 0 1 2

Every run is a process of its own with an empty cache, so its time holds imports, kernels compiled and data generated.
``--avx2`` holds torch and oneDNN to AVX2, as on a computer that has no more, and writes results of its own. Further
settings go to the runs, e.g. ``--set training.steps=18000 --name hour``; another pipeline is
``--pipeline point-cloud-quick --name quick-point-cloud``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from record import Record, describe

from recon_toolkit.engine.environment import Environment
from recon_toolkit.metrics import MetricScores


def main() -> None:
    """Run all seeds and write results/NAME.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", default="unsup3d-quick")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--name", default="quick")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--avx2", action="store_true", help="use no instructions beyond AVX2")
    parser.add_argument("--keep", type=Path, help="keep the run folders here")
    options = parser.parse_args()
    limits = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"} if options.avx2 else {}
    os.environ.update(limits)
    name = f"{options.name}-avx2" if options.avx2 else options.name
    record = Record(benchmark=name, environment=describe(["python", *sys.argv], torch.device("cpu")))
    record.notes = [f"--set {setting}" for setting in options.settings]
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        for seed in options.seeds:
            command = [sys.executable, "-m", "recon_toolkit", "run", "--pipeline", options.pipeline, "--json"]
            command += ["--out", str(folder / f"seed{seed}"), "--seed", str(seed), "--device", "cpu"]
            command += [part for setting in options.settings for part in ("--set", setting)]
            cache = Path(scratch) / f"cache-{seed}"
            surroundings = {**os.environ, "XDG_CACHE_HOME": str(cache), "NUMBA_CACHE_DIR": str(cache / "kernels")}
            started = time.perf_counter()
            finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=surroundings)
            minutes = (time.perf_counter() - started) / 60
            result = json.loads(finished.stdout)
            record.values |= {
                f"seed {seed}: minutes": round(minutes, 2),
                **{f"seed {seed}: {name}": value for name, value in _figures(result).items()},
                f"seed {seed}: peak memory, MiB": result["peak_memory_mb"],
            }
            record.notes += [f"seed {seed}: health finding {name}" for name in result["findings"]]
            made = Environment.model_validate_json((folder / f"seed{seed}" / "environment.json").read_bytes())
            record.environment = made.model_copy(update={"command": record.environment.command})
            print({k: v for k, v in record.values.items() if k.startswith(f"seed {seed}:")}, flush=True)
            record.write()


def _figures(result: dict[str, Any]) -> dict[str, float]:
    """What a run came to: depth against constant depth, or the model's own scores against its first baseline."""
    if result["mad_ratio"] is None:
        scores = MetricScores.model_validate(result["scores"])
        means = {metric.label: round(scores.values[metric.name].mean, 4) for metric in scores.metrics}
        for key, label in scores.labels.items():
            means |= {
                f"{m.label}, {label}": round(scores.baselines[key][m.name].mean, 4)
                for m in scores.metrics
                if m.name in scores.baselines[key]
            }
        return means | {
            f"{metric.label}, ratio": round(ratio, 4)
            for metric in scores.metrics
            if (ratio := scores.ratio(metric)) is not None
        }
    constant = result["baselines"]["constant"]
    return {
        "MAD ratio": round(result["mad_ratio"], 4),
        "SIDE ratio": round(result["side_ratio"], 4),
        "MAD": round(result["mad"], 3),
        "SIDE": round(result["side"], 4),
        "relief slope": round(result["slope"], 3),
        "correlation": round(result["correlation"], 3),
        "constant depth MAD": round(constant["mad"], 3),
        "constant depth SIDE": round(constant["side"], 4),
    }


if __name__ == "__main__":
    main()

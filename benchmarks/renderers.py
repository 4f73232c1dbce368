"""The quick face pipeline trained with each renderer, and what each one's gradient looks like.

    python benchmarks/renderers.py train --keep runs/renderers     every renderer in a process of its own, hours
    python benchmarks/renderers.py report --keep runs/renderers    results/renderers.json and the pictures in docs/

A run that is there already is not trained again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import torch
from pydantic import BaseModel, Field
from recon_conformance import check_renderer
from recon_conformance.subject import Ellipsoid, canonical_depth, view_of
from record import Results, describe
from torch import Tensor

from recon_toolkit import Camera, build_dataset, load_plugins
from recon_toolkit.data.packing import DataContext
from recon_toolkit.engine.checkpoint import load_run
from recon_toolkit.engine.page import RunSummary
from recon_toolkit.io.contact_sheet import contact_sheet
from recon_toolkit.io.maps import depth_picture, normals_picture, save_png

matplotlib.use("Agg")
from matplotlib import pyplot as plt

PICTURES = Path(__file__).parent.parent / "docs" / "images"
TRAINED = ("depth-mesh", "neural-renderer", "heightfield", "soft")
SHOWN: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("depth-mesh, 1 sample", "depth-mesh", {"supersampling": 1}),
    ("depth-mesh", "depth-mesh", {}),
    ("neural-renderer", "neural-renderer", {}),
    ("heightfield", "heightfield", {}),
    ("soft", "soft", {}),
)
POSES = ((0, 5, 0), (3, 20, 2), (0, 40, 0), (0, 60, 0))


class Trained(BaseModel):
    """One renderer's run."""

    renderer: str
    settings: dict[str, Any]
    seed: int
    steps: int
    minutes: float
    mad: float
    mad_ratio: float
    side: float
    side_ratio: float
    slope: float
    findings: list[str]


class Comparison(Results):
    """``results/renderers.json``."""

    benchmark: str = "renderers"
    trained: list[Trained] = Field(default_factory=list)
    evenness: dict[str, dict[str, float]] = Field(default_factory=dict)
    verdicts: dict[str, str] = Field(default_factory=dict)


def train(keep: Path, names: list[str], settings: list[str]) -> None:
    """Run the pipeline once for each renderer."""
    for name in names:
        if (keep / name / "summary.json").is_file():
            continue
        command = [
            sys.executable,
            "-m",
            "recon_toolkit",
            "run",
            "--pipeline",
            "unsup3d-quick-photometric",
            "--device",
            "cpu",
        ]
        command += ["--out", str(keep / name), "--set", f"renderer={{name: {name}}}"]
        subprocess.run([*command, *(part for s in settings for part in ("--set", s))], check=True)


def collect(run: Path) -> Trained:
    """What a finished run found."""
    summary = RunSummary.model_validate_json((run / "summary.json").read_bytes())
    _, resolved = load_run(run, load_plugins())
    scores = summary.model_dump(
        include={"mad", "mad_ratio", "side", "side_ratio", "slope", "steps", "seed", "findings"}
    )
    renderer = resolved.components["renderer",]
    return Trained(
        renderer=renderer.entry.name, settings=dict(renderer.options), minutes=summary.seconds / 60, **scores
    )


def vertex_gradient(name: str, options: dict[str, Any], degrees: tuple[float, ...]) -> Tensor:
    """Gradient (H, W) of the summed depth with respect to the canonical depth of a cap; its mean is 1 off the border.

    The same as `recon check-renderer` looks at.
    """
    target = load_plugins().registry.get("renderer", name).component.load()
    renderer = target(camera=Camera(), depth_range=(0.9, 1.1), **options)
    depth = canonical_depth(Ellipsoid())[None].float().requires_grad_()
    found = renderer(depth, torch.zeros(1, 3, *depth.shape[1:]), view_of(*degrees)[None].float())
    (gradient,) = torch.autograd.grad(found.depth.sum(), depth)
    return gradient[0] / gradient[0, 8:-8, 8:-8].mean()


def draw_gradients(path: Path) -> dict[str, dict[str, float]]:
    """A picture of every renderer's gradient in every pose, and its spread."""
    found: dict[str, dict[str, float]] = {}
    figure, axes = plt.subplots(len(SHOWN), len(POSES), figsize=(9, 2.25 * len(SHOWN)), constrained_layout=True)
    for row, (label, name, options) in zip(axes, SHOWN, strict=True):
        found[label] = {}
        for axis, pose in zip(row, POSES, strict=True):
            gradient = vertex_gradient(name, options, pose)
            title = "{}°, {}°, {}°".format(*pose)
            found[label][title] = round(float(gradient[8:-8, 8:-8].std()), 3)
            axis.imshow(gradient, vmin=0, vmax=3, cmap="viridis")
            axis.set(xticks=[], yticks=[])
            axis.set_title(f"{title}: {found[label][title]:.2f}", fontsize=9)
        row[0].set_ylabel(label)
    figure.savefig(path, dpi=80)
    plt.close(figure)
    return found


def verdict(name: str, options: dict[str, Any]) -> str:
    """What the conformance suite says, without training."""
    target = load_plugins().registry.get("renderer", name).component.load()
    report = check_renderer(partial(target, **options), name=name, options=options)
    others = [f"{check.name} {check.verdict}" for check in report.checks if check.verdict in ("warn", "fail")]
    return report.verdict + (f" ({', '.join(others)})" if others else "")


def draw_faces(keep: Path, names: list[str], path: Path, count: int = 6) -> None:
    """Normals and depth that each trained model sees in the same held-out pictures."""
    columns: dict[str, Tensor] = {}
    for name in names:
        model, resolved = load_run(keep / name, load_plugins())
        data = build_dataset(resolved).open("test", resolved.pipeline.image_size, DataContext())
        batch = data.batch(torch.arange(count))
        if not columns:
            columns["photograph"] = batch.image
            columns["true normals"] = normals_picture(batch.normals, batch.mask)
        found = model.reconstruct(batch.image)
        columns[name] = normals_picture(found.normals, found.mask)
        columns[f"{name} depth"] = depth_picture(found.canonical_depth)
    save_png(path, contact_sheet(columns))


def main() -> None:
    """Train or report, as asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "report"))
    parser.add_argument("--keep", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--renderers", nargs="+", default=list(TRAINED))
    parser.add_argument("--set", action="append", default=[], dest="settings")
    options = parser.parse_args()
    if options.what == "train":
        train(options.keep, options.renderers, options.settings)
        return
    runs = [name for name in options.renderers if (options.keep / name / "summary.json").is_file()]
    comparison = Comparison(
        environment=describe(["python", *sys.argv], torch.device("cpu")),
        trained=[collect(options.keep / name) for name in runs],
        evenness=draw_gradients(PICTURES / "renderers-gradients.png"),
        verdicts={label: verdict(name, options) for label, name, options in SHOWN},
        notes=[f"not trained: {name}" for name in options.renderers if name not in runs],
    )
    if runs:
        draw_faces(options.keep, runs, PICTURES / "renderers-faces.png")
    path = comparison.write()
    print(json.dumps(json.loads(path.read_text())["trained"], indent=1), path, sep="\n")


if __name__ == "__main__":
    main()

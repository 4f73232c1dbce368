"""Where a training step's time goes, at the paper's width: python benchmarks/training_step.py

``networks`` is forward and backward of the five networks alone on the same images; everything else of the step
(shading, rendering of the plain and the flipped reconstruction, losses, optimiser) is the difference. The step has no
perceptual loss, which would only make the share of the rest smaller.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import AbstractContextManager, nullcontext

import torch
from record import Record, describe, measure

from recon_toolkit.assembly import build_losses, build_model
from recon_toolkit.config.pipeline import load_pipeline
from recon_toolkit.engine.environment import peak_memory_estimate, peak_memory_mb
from recon_toolkit.losses import Objective
from recon_toolkit.structures import Batch


def main() -> None:
    """Measure a step and write results/training-step-DEVICE-WIDTH-PRECISION.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    device = torch.device(options.device)
    roles = ("depth", "albedo", "confidence", "light", "view")
    narrow = {"light": options.width // 2, "view": options.width // 2}
    settings = [f"encoders.{role}.width={narrow.get(role, options.width)}" for role in roles]
    resolved = load_pipeline("unsup3d-quick-photometric", settings)
    model = build_model(resolved).to(device)
    if options.channels_last:
        model = model.to(memory_format=torch.channels_last)

    def autocast() -> AbstractContextManager[object]:
        return torch.autocast(device.type, torch.bfloat16) if options.precision == "bf16" else nullcontext()

    objective = Objective(build_losses(resolved), autocast)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    images = torch.rand(options.batch, 3, 64, 64, generator=torch.Generator().manual_seed(0)).to(device)
    batch = Batch(image=images, index=torch.arange(options.batch, device=device))

    def loss(count: int) -> torch.Tensor:
        with autocast():
            output = model(Batch(image=images[:count], index=batch.index[:count]))
        return objective(output).total

    def step() -> None:
        total = loss(options.batch)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    def networks() -> None:
        with autocast():
            outputs = [network(images * 2 - 1) for network in model.encoders.values()]  # type: ignore[operator, union-attr]
        flat = [part for output in outputs for part in (output if isinstance(output, tuple) else (output,))]
        optimizer.zero_grad()
        sum(part.float().sum() for part in flat).backward()  # type: ignore[union-attr]

    name = f"training-step-{device.type}-width{options.width}-batch{options.batch}-{options.precision}"
    name += "-channels-last" if options.channels_last else ""
    record = Record(benchmark=name, environment=describe(["python", *sys.argv], device, options.precision))
    estimate = peak_memory_estimate(model, loss, options.batch, ema=False)
    record.timings.append(measure("step", step, device=device, repeats=options.repeats, warm_up=2))
    record.timings.append(measure("networks", networks, device=device, repeats=options.repeats, warm_up=1))
    whole, part = (timing.median_ms for timing in record.timings)
    record.values = {
        "images per second": 1e3 * options.batch / whole,
        "share outside the networks": 1 - part / whole,
        "peak memory, MiB": peak_memory_mb(device),
        "peak memory stated beforehand, MiB": estimate,
    }
    print(record.values, record.write(), sep="\n")


if __name__ == "__main__":
    main()

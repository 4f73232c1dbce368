"""Checkpoints as the original programs write them, built from the description of their layout alone.

Nothing here uses the toolkit: plain ``nn.Sequential`` networks with the published layers in the published order.
"""

from __future__ import annotations

import io
import sys
import types
from pathlib import Path
from typing import Any

import torch
from torch import nn


def down(cin: int, cout: int) -> nn.Module:
    return nn.Conv2d(cin, cout, 4, 2, 1, bias=False)


def up(cin: int, cout: int) -> nn.Module:
    return nn.ConvTranspose2d(cin, cout, 4, 2, 1, bias=False)


def conv(cin: int, cout: int, kernel: int) -> nn.Module:
    return nn.Conv2d(cin, cout, kernel, 1, kernel // 2, bias=False)


def norm(channels: int) -> nn.Module:
    return nn.GroupNorm(channels // 4, channels)


def leaky() -> nn.Module:
    return nn.LeakyReLU(0.2)


class Encoder(nn.Module):
    """Light and view: four halvings, a 4×4 convolution to one point, a 1×1 convolution, tanh."""

    def __init__(self, cout: int, nf: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            *(down(3, nf), nn.ReLU(), down(nf, 2 * nf), nn.ReLU(), down(2 * nf, 4 * nf), nn.ReLU()),
            *(down(4 * nf, 8 * nf), nn.ReLU(), nn.Conv2d(8 * nf, 8 * nf, 4, bias=False), nn.ReLU()),
            *(nn.Conv2d(8 * nf, cout, 1, bias=False), nn.Tanh()),
        )


def contract(cin: int, nf: int, z: int) -> list[nn.Module]:
    return [
        *(down(cin, nf), norm(nf), leaky(), down(nf, 2 * nf), norm(2 * nf), leaky()),
        *(down(2 * nf, 4 * nf), norm(4 * nf), leaky(), down(4 * nf, 8 * nf), leaky()),
        *(nn.Conv2d(8 * nf, z, 4, bias=False), nn.ReLU(), nn.ConvTranspose2d(z, 8 * nf, 4, bias=False), nn.ReLU()),
    ]


class AutoEncoder(nn.Module):
    """Depth and albedo."""

    def __init__(self, cout: int, nf: int, z: int, activation: nn.Module | None) -> None:
        super().__init__()
        layers = [*contract(3, nf, z), conv(8 * nf, 8 * nf, 3), nn.ReLU()]
        for cin, width in ((8 * nf, 4 * nf), (4 * nf, 2 * nf), (2 * nf, nf)):
            layers += [up(cin, width), norm(width), nn.ReLU(), conv(width, width, 3), norm(width), nn.ReLU()]
        layers += [nn.Upsample(scale_factor=2, mode="nearest")]
        for kernel in (3, 5):
            layers += [conv(nf, nf, kernel), norm(nf), nn.ReLU()]
        self.network = nn.Sequential(*layers, conv(nf, cout, 5), *([] if activation is None else [activation]))


class Confidence(nn.Module):
    """Two maps of spreads, at full and at a quarter of the size."""

    def __init__(self, cin: int, cout: int, nf: int, z: int) -> None:
        super().__init__()
        layers = contract(cin, nf, z)
        for inner, outer in ((8 * nf, 4 * nf), (4 * nf, 2 * nf)):
            layers += [up(inner, outer), norm(outer), nn.ReLU()]
        self.network = nn.Sequential(*layers)
        fine = [up(2 * nf, nf), norm(nf), nn.ReLU(), up(nf, nf), norm(nf), nn.ReLU()]
        self.out_net1 = nn.Sequential(*fine, conv(nf, cout, 5), nn.Softplus())
        self.out_net2 = nn.Sequential(conv(2 * nf, cout, 3), nn.Softplus())


def networks(width: int = 64, *, lemul: bool = False) -> dict[str, Any]:
    """The published networks with random weights; ``width`` is that of the auto-encoders, the others have half."""
    channels = 1 if lemul else 2
    made: dict[str, Any] = {
        "netD": AutoEncoder(1, width, 4 * width, None),
        "netA": AutoEncoder(3, width, 4 * width, nn.Tanh()),
        "netL": Encoder(4, width // 2),
        "netV": Encoder(6, width // 2),
        "netC": Confidence(3, channels, width, 2 * width),
    }
    if lemul:
        made["netC2"] = Confidence(6, channels, width, 2 * width)
    with torch.no_grad():
        for network in made.values():
            for part in network.modules():
                if isinstance(part, nn.GroupNorm):  # trained ones are not 1 and 0
                    part.weight.uniform_(0.5, 1.5)
                    part.bias.uniform_(-0.3, 0.3)
        # A relief that can be seen: an untrained network's last layer leaves some thousandths of the depth range.
        made["netD"].network[-1].weight.abs_().mul_(0.4)
        made["netA"].network[-2].weight.mul_(3)
        made["netL"].network[-2].weight.mul_(60)
        made["netV"].network[-2].weight.mul_(60)
    return made


def checkpoint(made: dict[str, Any], epoch: int = 30) -> dict[str, Any]:
    """What the originals' trainers save: networks, optimisers, the epoch and an object of their own package."""
    found: dict[str, Any] = {name: network.state_dict() for name, network in made.items()}
    for name, network in made.items():
        first = next(network.parameters())
        moments = {"step": 10, "exp_avg": torch.zeros_like(first), "exp_avg_sq": torch.zeros_like(first)}
        groups = [{"lr": 1e-4, "betas": (0.9, 0.999), "weight_decay": 5e-4, "params": [0]}]
        found[name.replace("net", "optimizer")] = {"state": {0: moments}, "param_groups": groups}
    return {**found, "metrics_trace": None, "epoch": epoch}


def write_checkpoint(path: Path, made: dict[str, Any], *, zipped: bool = False, **more: Any) -> None:
    """Save a checkpoint, by default in the format of 2020, with an object whose class is gone when it is read."""
    module = types.ModuleType("throwaway_meters")
    exec("class MetricsTrace:\n    def __init__(self):\n        self.data = {'train': [{'loss': 1.5}]}\n", vars(module))
    module.MetricsTrace.__module__ = module.__name__
    sys.modules[module.__name__] = module
    buffer = io.BytesIO()
    try:
        content = {**checkpoint(made), "metrics_trace": module.MetricsTrace(), **more}
        torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    finally:
        del sys.modules[module.__name__]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())

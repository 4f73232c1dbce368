"""The small network behind the detector ``faces``: a window → person, cat or neither, and where exactly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

#: Side of the windows that it judges, in pixels.
WINDOW = 48
#: Side of the window around a face, in sides of its crop (:func:`recon_toolkit.detection.crop_box`).
CONTEXT = 1.15
#: Pixels from one window to the next where a whole picture is searched.
STRIDE = 16
CLASSES = ("neither", "human", "cat")
#: Degrees that an output of 1 stands for.
ANGLE = 45.0
WEIGHTS = Path(__file__).parent / "face-windows.safetensors"


@dataclass(frozen=True)
class Judgement:
    """What the network says of N windows.

    Attributes:
        probability: (N, 3) of :data:`CLASSES`.
        shift: (N, 2), from the window's centre to the crop's, right and down, in sides of the window.
        scale: (N,), ln of the side that the window should have over the side it has.
        yaw, roll: (N,) degrees, see :class:`~recon_toolkit.Detection`; a cat's yaw was never taught.
    """

    probability: Tensor
    shift: Tensor
    scale: Tensor
    yaw: Tensor
    roll: Tensor


def _stage(cin: int, cout: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(inplace=True)]


class WindowNetwork(nn.Module):
    """Seven convolutions; a picture larger than a window is searched in steps of :data:`STRIDE` in one pass."""

    def __init__(self, widths: tuple[int, int, int, int, int] = (16, 32, 64, 96, 128)) -> None:
        super().__init__()
        a, b, c, d, e = widths
        self.layers = nn.Sequential(
            *_stage(3, a, 2),
            *_stage(a, b, 2),
            *_stage(b, b, 1),
            *_stage(b, c, 2),
            *_stage(c, c, 1),
            *_stage(c, d, 2),
            nn.Conv2d(d, e, 3, bias=False),
            nn.BatchNorm2d(e),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Conv2d(e, len(CLASSES) + 5, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] → (B, 8, H', W'): logits, shift, scale, yaw and roll; one place for a window."""
        answer: Tensor = self.head(self.layers(pictures * 2 - 1))
        return answer

    @torch.no_grad()
    def judge(self, pictures: Tensor) -> tuple[Judgement, tuple[int, int]]:
        """All windows of (B, 3, H, W) in [0, 1], and how many there are across (rows, columns) of each picture."""
        answer = self(pictures)
        rows, columns = answer.shape[-2:]
        flat = answer.permute(0, 2, 3, 1).reshape(-1, answer.shape[1]).float()
        return Judgement(flat[:, :3].softmax(1), flat[:, 3:5], flat[:, 5], flat[:, 6] * ANGLE, flat[:, 7] * ANGLE), (
            rows,
            columns,
        )


def load_network() -> WindowNetwork:
    """The network with its trained weights, in evaluation mode."""
    from safetensors.torch import load_file

    network = WindowNetwork()
    network.load_state_dict({name: value.float() for name, value in load_file(WEIGHTS).items()}, strict=False)
    return network.eval().requires_grad_(False)

"""Train the network of the detector ``faces``: python benchmarks/face_windows.py LABELS NEGATIVES --out FILE

LABELS is an npz of ``files`` (N,), ``crops`` (N, 3: centre x, centre y and side of the crop, in sides of the image),
``angles`` (N, 2: roll and yaw in degrees, NaN where unknown) and ``classes`` (N,: 1 human, 2 cat); the bundled weights'
boxes and angles of people come from a face detector and a face-mesh network, those of cats from how the photographs
were published. NEGATIVES is a folder of pictures without faces; windows are cut out of both at random.

A second round learns from the mistakes of the first: ``--mine 3000 --out MISTAKES`` searches so many pictures with the
installed weights and keeps what is no face, and ``--mistakes MISTAKES --start WEIGHTS`` trains on.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from recon_face_model.detector import FacesAndCats
from recon_face_model.network import ANGLE, CONTEXT, WINDOW, WindowNetwork
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from recon_toolkit.detection import crop_box

Pixels = NDArray[np.uint8]


class Windows:
    """Random windows with their labels."""

    def __init__(self, labels: Path, negatives: Path, seed: int, mistakes: Path | None = None) -> None:
        table = np.load(labels)
        self.files, self.crops = table["files"], table["crops"]
        self.angles, self.classes = table["angles"], table["classes"]
        self.of_class = [np.flatnonzero(self.classes == k) for k in (1, 2)]
        self.images: dict[int, Pixels] = {}
        self.negatives = [_read(path, 1200) for path in sorted(negatives.rglob("*")) if path.is_file()]
        self.random = np.random.default_rng(seed)
        self.mistakes = None if mistakes is None else np.load(mistakes)

    def image(self, index: int) -> Pixels:
        """A picture with a face; kept in memory."""
        if index not in self.images:
            self.images[index] = _read(Path(str(self.files[index])), 160)
        return self.images[index]

    def batch(self, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Windows (B, 3, 48, 48) in [0, 1], classes (B,), targets (B, 5) and which of those count (B, 5)."""
        rows = [self._one() for _ in range(count)]
        pictures = torch.from_numpy(np.stack([row[0] for row in rows])).permute(0, 3, 1, 2).float() / 255
        classes = torch.tensor([row[1] for row in rows])
        targets = torch.from_numpy(np.stack([row[2] for row in rows])).float()
        return pictures, classes, targets.nan_to_num(), ~targets.isnan()

    def _one(self) -> tuple[Pixels, int, NDArray[np.float64]]:
        draw = self.random.random()
        nothing = np.full(5, np.nan)
        if self.mistakes is not None and self.random.random() < 0.25:
            return self._finish(self._mistake(self.mistakes)), 0, nothing
        if draw < 0.25:
            return self._finish(self._negative()), 0, nothing
        index = int(self.random.choice(self.of_class[int(draw < 0.6)]))
        image, (x, y, side) = self.image(index), self.crops[index]
        height, width = image.shape[:2]
        kind, (roll, yaw) = int(self.classes[index]), self.angles[index]
        turn = float(np.clip(self.random.normal(0, 14), -45, 45))
        flip = self.random.random() < 0.5
        if self.random.random() < 0.7:
            shift = self.random.uniform(-0.24, 0.24, 2) * (1 if self.random.random() < 0.7 else 0.3)
            scale = float(self.random.normal(0, 0.16))
        else:  # near a face, or a part of one: nothing, or a part of another window's face
            far = self.random.choice(3)
            shift = self.random.uniform(0.55, 1.1) * _direction(self.random) if far == 0 else np.zeros(2)
            shift = self.random.uniform(-0.35, 0.35, 2) if far == 1 else shift
            scale = {0: self.random.uniform(-0.3, 0.4), 1: self.random.uniform(-1.4, -0.75), 2: 0.9}[int(far)]
            scale = self.random.uniform(0.75, 1.3) if far == 2 else scale
            kind = 0
        box = side * CONTEXT * np.exp(scale)  # sides of the window, in sides of the image
        centre = np.array([x, y]) + shift * box
        window = self._cut(image, centre * [width, height], box * width, turn, flip)
        if kind == 0:
            return self._finish(window), 0, nothing
        # The offset to the crop's centre, in the turned and mirrored window.
        radians = np.radians(turn)
        rotation = np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
        offset = rotation @ (-shift)
        angles = np.array([yaw, roll + turn])
        if flip:
            offset, angles = offset * [-1, 1], -angles
        target = np.array([*offset, -scale, *(angles / ANGLE)])
        return self._finish(window), kind, target

    def _cut(self, image: Pixels, centre: Any, side: float, turn: float, flip: bool) -> Pixels:
        """The window of ``side`` pixels around a centre, the picture turned clockwise by ``turn`` degrees."""
        radians, zoom = np.radians(turn), WINDOW / side
        forward = zoom * np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
        matrix = np.c_[forward, WINDOW / 2 - 0.5 - forward @ (np.asarray(centre) - 0.5)]
        border = int(self.random.choice(4))
        modes = (cv2.BORDER_REPLICATE, cv2.BORDER_REFLECT_101, cv2.BORDER_CONSTANT, cv2.BORDER_TRANSPARENT)
        if zoom < 0.7:
            image = cv2.GaussianBlur(image, (0, 0), 0.45 / zoom)
        size, colour = (WINDOW, WINDOW), tuple(map(float, self.random.uniform(0, 255, 3)))
        canvas = np.ascontiguousarray(self._negative()) if border == 3 else None
        window = cv2.warpAffine(
            image, matrix, size, canvas, flags=cv2.INTER_LINEAR, borderMode=modes[border], borderValue=colour
        )
        return np.ascontiguousarray(window[:, ::-1]) if flip else window

    def _mistake(self, mistakes: Pixels) -> Pixels:
        """A window of what was taken for a face and is none, somewhat moved, turned and mirrored."""
        patch = mistakes[int(self.random.integers(len(mistakes)))]
        moved = patch.shape[0] / 2 + self.random.uniform(-3, 3, 2)
        side = WINDOW * float(np.exp(self.random.normal(0, 0.1)))
        return self._cut(patch, moved, side, float(self.random.normal(0, 6)), self.random.random() < 0.5)

    def _negative(self) -> Pixels:
        """A window without a face: of a picture without any, of one scrambled, or plain."""
        draw = self.random.random()
        if draw < 0.06:
            return np.full((WINDOW, WINDOW, 3), self.random.uniform(0, 255, 3), np.uint8)
        if draw < 0.2:  # parts of faces in a wrong order
            image = self.image(int(self.random.integers(len(self.files))))
            cells = self.random.choice((2, 3, 4))
            small = cv2.resize(image, (WINDOW, WINDOW), interpolation=cv2.INTER_AREA)
            step = WINDOW // int(cells)
            parts = [small[i : i + step, j : j + step] for i in range(0, WINDOW, step) for j in range(0, WINDOW, step)]
            order = self.random.permutation(len(parts))
            joined = [np.concatenate([parts[k] for k in order[r : r + cells]], 1) for r in range(0, len(parts), cells)]
            return np.ascontiguousarray(np.concatenate(joined))
        image = self.negatives[int(self.random.integers(len(self.negatives)))]
        height, width = image.shape[:2]
        side = int(np.exp(self.random.uniform(np.log(24), np.log(min(height, width)))))
        top, left = self.random.integers(0, height - side + 1), self.random.integers(0, width - side + 1)
        cut = image[top : top + side, left : left + side]
        found = cv2.resize(cut, (WINDOW, WINDOW), interpolation=cv2.INTER_AREA if side > WINDOW else cv2.INTER_LINEAR)
        return np.ascontiguousarray(np.rot90(found, int(self.random.integers(4))))

    def _finish(self, window: Pixels) -> Pixels:
        """Light, colour, blur, noise and compression."""
        values = window.astype(np.float32)
        if self.random.random() < 0.15:
            values = np.repeat(values.mean(2, keepdims=True), 3, 2)
        gain = self.random.uniform(0.55, 1.3) * self.random.uniform(0.9, 1.1, 3)
        values = (values - 128) * gain.astype(np.float32) + 128 + self.random.uniform(-40, 40)
        if self.random.random() < 0.25:
            values = cv2.GaussianBlur(values, (0, 0), self.random.uniform(0.5, 1.6))
        if self.random.random() < 0.3:
            values += self.random.normal(0, self.random.uniform(1, 10), values.shape).astype(np.float32)
        pixels = np.clip(values, 0, 255).astype(np.uint8)
        if self.random.random() < 0.2:
            quality = int(self.random.integers(25, 80))
            pixels = cv2.imdecode(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)
        return pixels


def mine(windows: Windows, count: int, out: Path) -> None:
    """Search pictures with and without faces, and keep what is taken for a face and is none, (N, 72, 72, 3) uint8."""
    find, kept = FacesAndCats(score=0.4), []
    for number in range(count):
        if number % 2:
            index = int(windows.random.integers(len(windows.files)))
            picture, (x, y, side) = windows.image(index), windows.crops[index]
            height, width = picture.shape[:2]
            truth = np.array([x * width, y * height, side * width])
        else:
            whole = windows.negatives[int(windows.random.integers(len(windows.negatives)))]
            size = int(windows.random.uniform(0.3, 1) * min(whole.shape[:2]))
            top, left = (int(windows.random.integers(0, n - size + 1)) for n in whole.shape[:2])
            picture, truth = np.ascontiguousarray(whole[top : top + size, left : left + size]), None
        for found in find(picture):
            box = crop_box(found)
            place = np.array([box.x + box.width / 2, box.y + box.height / 2, box.width])
            if truth is not None and _shared(place, truth) > 0.35:
                continue
            patch, windows_side = 72, place[2] * CONTEXT * 72 / WINDOW
            zoom = patch / windows_side
            source = cv2.GaussianBlur(picture, (0, 0), 0.45 / zoom) if zoom < 0.7 else picture
            matrix = np.array([[zoom, 0, patch / 2 - zoom * place[0]], [0, zoom, patch / 2 - zoom * place[1]]])
            kept.append(cv2.warpAffine(source, matrix, (patch, patch), borderMode=cv2.BORDER_REPLICATE))
        if number % 500 == 499:
            print(f"{number + 1} pictures, {len(kept)} mistakes", flush=True)
    np.save(out, np.stack(kept))


def _shared(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Intersection over union of two squares (centre x, centre y, side)."""
    low = np.maximum(one[:2] - one[2] / 2, other[:2] - other[2] / 2)
    high = np.minimum(one[:2] + one[2] / 2, other[:2] + other[2] / 2)
    common = float(np.prod(np.maximum(high - low, 0)))
    return common / (one[2] ** 2 + other[2] ** 2 - common)


def _direction(generator: np.random.Generator) -> NDArray[np.float64]:
    angle = generator.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


def _read(path: Path, side: int) -> Pixels:
    image = cv2.imread(str(path))
    if image is None:
        raise SystemExit(f"{path} is no picture")
    scale = side / min(image.shape[:2])
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
    return np.ascontiguousarray(image[..., ::-1])


def train(windows: Windows, out: Path, steps: int, batch: int, seed: int, start: Path | None) -> None:
    """Train and write the weights, half as long as they would be in single precision."""
    torch.manual_seed(seed)
    network = WindowNetwork()
    if start is not None:
        network.load_state_dict(load_file(start), strict=False)
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.1)
    sums = np.zeros(4)
    for step in range(1, steps + 1):
        pictures, classes, targets, counts = windows.batch(batch)
        answer = network(pictures)[:, :, 0, 0]
        kind = F.cross_entropy(answer[:, :3], classes, label_smoothing=0.02)
        error = F.smooth_l1_loss(answer[:, 3:], targets, beta=0.1, reduction="none") * counts
        place = error.sum() / counts.sum().clamp(min=1)
        loss = kind + 4 * place
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        right = (answer[:, :3].argmax(1) == classes).float().mean()
        sums += [kind.item(), place.item(), right.item(), 1]
        if step % 100 == 0:
            kinds, places, shares = sums[:3] / sums[3]
            print(f"step {step}: kind {kinds:.4f}, place {places:.4f}, right {shares:.4f}", flush=True)
            sums[:] = 0
    save_file(
        {name: value.half() if value.is_floating_point() else value for name, value in network.state_dict().items()},
        str(out),
    )


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("negatives", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mine", type=int, default=0, help="search so many pictures instead of training")
    parser.add_argument("--mistakes", type=Path, help="what --mine found")
    parser.add_argument("--start", type=Path, help="weights to train on from")
    options = parser.parse_args()
    random.seed(options.seed)
    cv2.setNumThreads(1)
    windows = Windows(options.labels, options.negatives, options.seed, options.mistakes)
    if options.mine:
        mine(windows, options.mine, options.out)
    else:
        train(windows, options.out, options.steps, options.batch, options.seed, options.start)


if __name__ == "__main__":
    sys.exit(main())

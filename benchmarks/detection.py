"""Recall, confusion and time of a detector: python benchmarks/detection.py --human DIR --cat DIR --nothing DIR

Each picture of ``--human`` and ``--cat`` shows one face, anywhere; those of ``--nothing`` show none. A picture counts
as right where its surest detection has the right label. With ``--paste`` each is put at a random place and size, from
0.15 to 0.6 of the shorter side, into a picture of ``--nothing``, tilted by up to 15 degrees.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from record import Record, describe

from recon_toolkit.detection import Detector
from recon_toolkit.plugins import load_plugins
from recon_toolkit.reconstructor import load_detector

Pixels = NDArray[np.uint8]


def _read(path: Path) -> Pixels:
    image = cv2.imread(str(path))
    if image is None:
        raise SystemExit(f"{path} is no picture")
    return np.ascontiguousarray(image[..., ::-1])


def _pasted(face: Pixels, scene: Pixels, generator: np.random.Generator) -> Pixels:
    scene = cv2.resize(scene, (800, 600), interpolation=cv2.INTER_AREA)
    side = generator.uniform(0.15, 0.6) * 600
    zoom, turn = side / face.shape[0], np.radians(generator.uniform(-15, 15))
    centre = generator.uniform((side * 0.7, side * 0.7), (800 - side * 0.7, 600 - side * 0.7))
    forward = zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = np.c_[forward, centre - forward @ (np.array(face.shape[1::-1]) / 2)]
    weight = np.full(face.shape[:2], 1, np.float32)
    weight = cv2.copyMakeBorder(weight[4:-4, 4:-4], 4, 4, 4, 4, cv2.BORDER_CONSTANT, value=0)
    weight = cv2.warpAffine(cv2.GaussianBlur(weight, (0, 0), 2), matrix, (800, 600))[..., None]
    face = cv2.warpAffine(cv2.GaussianBlur(face, (0, 0), 0.4 / zoom) if zoom < 0.7 else face, matrix, (800, 600))
    mixed: Pixels = (face * weight + scene * (1 - weight)).astype(np.uint8)
    return mixed


def main() -> None:
    """Search all pictures and write results/NAME.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("human", "cat", "nothing"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--detector", default="auto")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--paste", action="store_true")
    parser.add_argument("--name", default="detection")
    options = parser.parse_args()
    find: Detector = load_detector(options.detector, load_plugins(), options.settings)
    record = Record(benchmark=options.name, environment=describe(["python", *sys.argv], torch.device("cpu")))
    generator = np.random.default_rng(0)
    scenes = sorted(path for path in options.nothing.rglob("*") if path.is_file())
    for label in ("human", "cat", "nothing"):
        files = sorted(path for path in getattr(options, label).rglob("*") if path.is_file())
        chosen = [files[k] for k in generator.permutation(len(files))[: options.count]]
        right = other = several = 0
        seconds = 0.0
        for number in range(options.count if label == "nothing" else len(chosen)):
            image = _read(chosen[number % len(chosen)])
            if label == "nothing":  # a part of it, each time another
                side = int(generator.uniform(0.4, 1) * min(image.shape[:2]))
                top, left = (int(generator.integers(0, n - side + 1)) for n in image.shape[:2])
                image = np.ascontiguousarray(image[top : top + side, left : left + side])
            elif options.paste:
                image = _pasted(image, _read(scenes[int(generator.integers(len(scenes)))]), generator)
            started = time.perf_counter()
            detections = find(image)
            seconds += time.perf_counter() - started
            labels = [item.label for item in detections]
            right += labels[:1] == [label] or (label == "nothing" and not labels)
            other += bool(labels) and labels[0] != label
            several += len(labels) > 1
        total = options.count if label == "nothing" else len(chosen)
        record.values |= {
            f"{label}: pictures": total,
            f"{label}: right": round(right / total, 4),
            f"{label}: another label": round(other / total, 4),
            f"{label}: several": round(several / total, 4),
            f"{label}: ms a picture": round(1000 * seconds / total, 1),
        }
        print({key: value for key, value in record.values.items() if key.startswith(label)}, flush=True)
    large = cv2.resize(_read(scenes[0]), (4000, 3000))
    started = time.perf_counter()
    find(large)
    record.values["12 megapixels: ms"] = round(1000 * (time.perf_counter() - started), 1)
    print(record.values["12 megapixels: ms"])
    record.write()


if __name__ == "__main__":
    main()

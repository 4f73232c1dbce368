"""The detector ``faces``: a small network searches a picture at several sizes, and looks again from nearby."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from recon_face_model.network import CLASSES, CONTEXT, STRIDE, WINDOW, Judgement, WindowNetwork, load_network
from recon_toolkit import Detection
from recon_toolkit.detection import check_image, distinct, face_in_crop

#: Factor from one size of the picture to the next.
_STEP = math.sqrt(2)
#: Probability from which a window of the search is looked at again, and how many are, at most.
_SOUGHT, _MOST = 0.25, 64


class FacesAndCats:
    """Faces of people and of cats, turned by up to about 60 degrees and tilted by up to about 40.

    A network of 0.24 million weights slides over the picture at several sizes. What it takes for a face is cut out,
    turned upright and judged again twice, which also corrects its place and size. The score is the probability of the
    last look. A detection's ``yaw`` is told of people only.

    Args:
        kinds: ``human``, ``cat``, or ``any`` for both; people are sought for ``cat``, too, so that they are told apart.
        smallest: smallest face, as a share of the picture's shorter side (of the crop around it). The time grows with
            1 / ``smallest`` squared.
        largest_side: a picture with a longer side is scaled down to this before anything else.
        score: lowest probability that counts.
    """

    finds = "face"

    def __init__(
        self,
        *,
        kinds: Literal["any", "human", "cat"] = "any",
        smallest: Annotated[float, Field(gt=0, le=1)] = 0.06,
        largest_side: Annotated[int, Field(ge=64)] = 1024,
        score: Annotated[float, Field(gt=0, lt=1)] = 0.8,
    ) -> None:
        self.smallest, self.largest_side, self.score = smallest, largest_side, score
        self._labels = {"human", "cat"} if kinds == "any" else {kinds}
        self._network: WindowNetwork = load_network()

    def __call__(self, image: NDArray[np.uint8], /) -> list[Detection]:
        """Find faces in an image (H, W, 3) RGB uint8 of any size; the best first.

        Raises:
            ValueError: the image has another shape or type.
        """
        check_image(image)
        if image.size == 0:
            return []
        height, width = image.shape[:2]
        picture = _scaled(image, min(1.0, self.largest_side / max(height, width)))
        back = np.array([width / picture.shape[1], height / picture.shape[0]])
        windows = _separate(self._sought(picture))[:_MOST]
        found = []
        for row in self._judged(picture, windows):
            x, y, side, probability, label, yaw, roll = row
            if probability >= self.score:
                kind = CLASSES[int(label)]
                found.append(
                    face_in_crop(
                        float(x * back[0]),
                        float(y * back[1]),
                        float(side * back.mean()),
                        float(probability),
                        kind,
                        yaw=float(yaw) if kind == "human" else None,
                        roll=float(roll),
                    )
                )
        smallest = 0.8 * self.smallest * min(height, width)
        return [item for item in distinct(found, smallest=smallest) if item.label in self._labels]

    def _sought(self, picture: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Crops (N, 5: centre x, centre y, side, roll, probability) that may hold a face, in pixels of the picture."""
        shorter = min(picture.shape[:2])
        zoom = min(WINDOW / (CONTEXT * self.smallest * shorter), self.largest_side / max(picture.shape[:2]))
        rows = [np.empty((0, 5))]
        while zoom * shorter > 0.7 * WINDOW:
            level = np.pad(_scaled(picture, zoom), ((WINDOW // 2,) * 2, (WINDOW // 2,) * 2, (0, 0)), mode="edge")
            judgement, (_, columns) = self._network.judge(_tensor(level)[None])
            probability = 1 - judgement.probability[:, 0].numpy()
            near = np.flatnonzero(probability > _SOUGHT)
            # The centre of the first window lies half a window within the padded level: at the picture's corner.
            place = np.stack([near % columns, near // columns], 1) * STRIDE + judgement.shift.numpy()[near] * WINDOW
            side = WINDOW / CONTEXT * np.exp(judgement.scale.numpy()[near])
            roll = judgement.roll.numpy()[near]
            rows.append(np.c_[place / zoom, side / zoom, roll, probability[near]])
            zoom /= _STEP
        return np.concatenate(rows)

    def _judged(self, picture: NDArray[np.uint8], windows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Crops looked at from nearby: (N, 7: centre x, centre y, side, probability, class, yaw, roll)."""
        if not len(windows):
            return np.empty((0, 7))
        x, y, side, roll = (windows[:, k].copy() for k in range(4))
        for _ in range(2):
            cuts = torch.stack([_tensor(_cut(picture, *row)) for row in zip(x, y, side * CONTEXT, roll, strict=True)])
            plain, mirrored = self._network.judge(cuts)[0], self._network.judge(cuts.flip(-1))[0]
            probability = (plain.probability + mirrored.probability).numpy() / 2
            shift, scale, yaw, turn = _both(plain, mirrored)
            radians = np.radians(roll)
            moved = shift * (side * CONTEXT)[:, None]
            x = x + np.cos(radians) * moved[:, 0] - np.sin(radians) * moved[:, 1]
            y = y + np.sin(radians) * moved[:, 0] + np.cos(radians) * moved[:, 1]
            side, roll = side * np.exp(scale), np.clip(roll + turn, -60, 60)
        label = 1 + probability[:, 1:].argmax(1)
        judged: NDArray[np.float64] = np.c_[x, y, side, 1 - probability[:, 0], label, yaw, roll]
        return judged


def _both(plain: Judgement, mirrored: Judgement) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Shift, scale, yaw and roll of windows, averaged with those of their mirror images."""
    shift = (plain.shift + mirrored.shift * torch.tensor([-1, 1])).numpy() / 2
    scale = (plain.scale + mirrored.scale).numpy() / 2
    return shift, scale, (plain.yaw - mirrored.yaw).numpy() / 2, (plain.roll - mirrored.roll).numpy() / 2


def _separate(windows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of windows (N, 5) that are near one another, the most probable."""
    kept: list[NDArray[np.float64]] = []
    for row in windows[np.argsort(-windows[:, 4], kind="stable")]:
        near = (np.abs(row[:2] - other[:2]).max() < 0.3 * other[2] and 0.6 < row[2] / other[2] < 1.6 for other in kept)
        if not any(near):
            kept.append(row)
        if len(kept) == _MOST:
            break
    return np.array(kept).reshape(-1, 5)


def _scaled(image: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    import cv2

    if factor == 1:
        return image
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR))


def _cut(picture: NDArray[np.uint8], x: float, y: float, side: float, roll: float) -> NDArray[np.uint8]:
    """The window of ``side`` pixels around a place, turned so that what is tilted by ``roll`` degrees is upright."""
    import cv2

    radians, zoom = math.radians(-roll), WINDOW / side
    around = math.ceil(side)  # what the window can show, scaled down first so that nothing aliases
    left, top = max(0, math.floor(x - around)), max(0, math.floor(y - around))
    part = picture[top : math.ceil(y + around) + 1, left : math.ceil(x + around) + 1]
    if zoom < 0.75:
        small = _scaled(part, zoom)
        fx, fy = small.shape[1] / part.shape[1], small.shape[0] / part.shape[0]
        part, x, y, zoom = small, (x - left) * fx, (y - top) * fy, zoom / fx
    else:
        x, y = x - left, y - top
    turn = zoom * np.array([[math.cos(radians), -math.sin(radians)], [math.sin(radians), math.cos(radians)]])
    matrix = np.c_[turn, WINDOW / 2 - 0.5 - turn @ (np.array([x, y]) - 0.5)]
    window = cv2.warpAffine(part, matrix, (WINDOW, WINDOW), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(window)


def _tensor(pixels: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float() / 255

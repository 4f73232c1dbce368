"""The detector ``haar-faces``: OpenCV's cascades propose faces in a small picture, and judge each from nearby."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from recon_opencv.cascades import (
    CAT,
    FRONTAL,
    PROFILE,
    UPRIGHT,
    Cascade,
    Classifiers,
    Pose,
    Pyramid,
    View,
    crops,
    opencv,
)
from recon_toolkit import Detection
from recon_toolkit.detection import check_image, distinct, face_in_crop

#: Side of a crop in the picture that proposals are sought in, for the smallest faces, in pixels.
_SOUGHT = 32
#: Side of a crop that is judged, and of the view around it. Below 60 OpenCV moves its windows by two pixels.
_JUDGED, _VIEW = 64, 112
#: Faces of at least this share of the shorter side are also sought tilted, turned away and cut by the edge.
_LARGE = 0.3
#: Faces below this share need more evidence.
_CLEAR = 0.25
#: Score from which a place is not looked at for another kind of face; what one kind takes for another has less.
_SETTLED = 4.0
#: Proposals that are judged, at most.
_MOST = 150


@dataclass(frozen=True)
class _Look:
    """How one kind of face is found.

    Args:
        label: of the detections.
        seeks: the cascade that proposes.
        judges: the cascades that must agree: the geometric mean of their counts is the evidence.
        poses: how a proposal is looked at; counts are averaged over them.
        needed: evidence below this is chance.
        tilted: poses in which large faces are sought besides the upright one.
        most: scores end here; a look that frames faces less well gives way to one that sees them, too.
    """

    label: str
    seeks: Cascade
    judges: tuple[Cascade, ...]
    poses: tuple[Pose, ...]
    needed: float
    tilted: tuple[Pose, ...] = ()
    most: float = math.inf


_DEFAULT = Cascade("haarcascade_frontalface_default.xml", FRONTAL)
_ALT = Cascade("haarcascade_frontalface_alt2.xml", FRONTAL)
_CAT = Cascade("haarcascade_frontalcatface_extended.xml", CAT)
_CAT_PLAIN = Cascade("haarcascade_frontalcatface.xml", CAT)
_PROFILES = tuple(Cascade("haarcascade_profileface.xml", PROFILE, mirrored) for mirrored in (False, True))
_TURNED = (Pose(-12), Pose(12))
_HUMAN = (
    _Look("human", _DEFAULT, (_DEFAULT, _ALT), (UPRIGHT, *_TURNED), 8.0, _TURNED),
    *(_Look("human", profile, (profile,), (UPRIGHT,), 20.0, most=1.5) for profile in _PROFILES),
)
# A cat that looks aside has a narrow face: it is looked at stretched, too.
_CATS = (
    _Look(
        "cat",
        _CAT,
        (_CAT, _CAT_PLAIN),
        tuple(Pose(angle, stretch) for stretch in (1.0, 1.2) for angle in (-12.0, 0.0, 12.0)),
        2.5,
        (*_TURNED, Pose(0, 1.2), Pose(12, 1.2), Pose(-12, 1.2)),
    ),
)


class HaarFaces:
    """Faces of people and of cats, by OpenCV's Haar cascades, which come inside its wheel.

    Faces that look at the camera or up to about 45 degrees aside are found, tilted by up to about 20 degrees, and
    profiles of people less surely. Of a cat, both ears should be in the picture.

    The cascades propose places in a scaled-down picture; each is then looked at again at one size and in several poses,
    and counts if enough windows of several cascades agree. The score is that evidence, as a multiple of what is needed:
    1 is the least, a clear face of a person has 4 and more, a profile 1.5 at most. Small faces need more evidence.

    Args:
        kinds: ``human``, ``cat``, or ``any`` for both; where both claim a place, the surer one has it, so that people
            are sought for ``cat``, too.
        smallest: smallest face, as a share of the picture's shorter side (of the crop around it). The time grows with
            1 / ``smallest`` squared.
        largest_side: a picture with a longer side is scaled down to this before anything else.
        weights: a cascade file (XML) of one's own, for any object, instead of OpenCV's; its windows are framed as those
            of OpenCV's frontal cascade. Detections are labelled with ``kinds``, or ``object`` for ``any``.

    Raises:
        PluginError: OpenCV or its cascades are not installed.
        DataError: ``weights`` is no cascade.
    """

    finds = "face"

    def __init__(
        self,
        *,
        kinds: Literal["any", "human", "cat"] = "any",
        smallest: Annotated[float, Field(gt=0, le=1)] = 0.04,
        largest_side: Annotated[int, Field(ge=32)] = 1280,
        weights: Path | None = None,
    ) -> None:
        self.smallest = smallest
        self.largest_side = largest_side
        self._labels: set[str]
        if weights is None:
            self._looks = _HUMAN if kinds == "human" else (*_HUMAN, *_CATS)
            self._labels = {"human", "cat"} if kinds == "any" else {kinds}
        else:
            own = Cascade(Path(weights), FRONTAL)
            self.finds = "object"
            label = "object" if kinds == "any" else kinds
            self._looks = (_Look(label, own, (own,), (UPRIGHT, *_TURNED), 8.0, _TURNED),)
            self._labels = {label}
        files = frozenset(cascade.file for look in self._looks for cascade in (look.seeks, *look.judges))
        self._classifiers = Classifiers(files)

    def __call__(self, image: NDArray[np.uint8], /) -> list[Detection]:
        """Find faces.

        Args:
            image: (H, W, 3) RGB, of any size.

        Returns:
            One detection a face, the best first.

        Raises:
            ValueError: the image is not (H, W, 3) uint8.
        """
        check_image(image)
        if image.size == 0:
            return []
        grey, factor = self._grey(image)
        pyramid = Pyramid(grey)
        found: list[Detection] = []
        settled = np.empty((0, 3))
        for look in self._looks:
            for crop, score in self._found(pyramid, look, settled):
                x, y, side = map(float, crop * factor)
                found.append(face_in_crop(x, y, side, score, look.label))
                if score >= _SETTLED:
                    settled = np.vstack([settled, crop])
        return [detection for detection in distinct(found) if detection.label in self._labels]

    def _grey(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """The picture at no more than the largest side, and pixels (x, y, side) of the original in one of it."""
        cv2 = opencv()
        height, width = image.shape[:2]
        scale = min(1.0, self.largest_side / max(height, width))
        if scale < 1:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
        # OpenCV passes over windows whose grey values have a standard deviation below 10: too few in a dark picture.
        low, high = np.percentile(grey, (0.5, 99.5))
        if 0 < high - low < 255:
            grey = cv2.convertScaleAbs(np.clip(grey, low, high) - low, alpha=255 / (high - low))
        x, y = width / grey.shape[1], height / grey.shape[0]
        return grey, np.array([x, y, (x + y) / 2])

    def _found(
        self, pyramid: Pyramid, look: _Look, found: NDArray[np.float64]
    ) -> Iterator[tuple[NDArray[np.float64], float]]:
        """Crops (centre x, centre y, side) that hold a face of this look, each with its score.

        ``found`` are crops (N, 3) that need no further look.
        """
        proposals = np.concatenate([*self._sought(pyramid, look), np.empty((0, 3))])
        for crop, _ in _clusters(proposals)[:_MOST]:
            if len(found) and _near(found, crop, scale=0.7).any():
                continue  # a part of the windows around a face that is found already
            judged, evidence = self._judged(pyramid, look, crop)
            if evidence < look.needed / 2:
                continue
            if not _near(judged[None], crop, place=0.06, scale=0.06).any():
                # Looked at again with the face in the middle, where its evidence is best.
                judged, evidence = self._judged(pyramid, look, judged)
            # There are more places for small faces than for large ones, so more of them look like one by chance.
            share = judged[2] / min(pyramid.width, pyramid.height)
            score = evidence / look.needed / math.sqrt(max(1.0, _CLEAR / share))
            if score >= 1:
                found = np.vstack([found, judged])
                yield judged, min(score, look.most)

    def _sought(self, pyramid: Pyramid, look: _Look) -> Iterator[NDArray[np.float64]]:
        """Crops (N, 3) around the windows found in the whole picture: small faces, then large ones in all poses."""
        for share, margin, step, poses in (
            (self.smallest, 0.1, 1.2, (UPRIGHT,)),
            (max(_LARGE, self.smallest), 0.4, 1.1, (UPRIGHT, *look.tilted)),
        ):
            shorter = min(pyramid.width, pyramid.height)
            scale = max(1.0, share * shorter / _SOUGHT)  # a small picture is not enlarged
            size = tuple(math.ceil((side + 2 * margin * shorter) / scale) for side in (pyramid.width, pyramid.height))
            for pose in poses:
                view = pyramid.view((pyramid.width / 2, pyramid.height / 2), scale, (size[0], size[1]), pose)
                yield view.back(
                    crops(
                        self._classifiers[look.seeks.file],
                        look.seeks,
                        view.grey,
                        smallest=_SOUGHT,
                        largest=2 * max(size),
                        step=step,
                    )
                )

    def _judged(self, pyramid: Pyramid, look: _Look, crop: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        """The crop that all windows near a proposal agree on, and the evidence for it."""
        counts, seen = [], []
        views = [pyramid.view((crop[0], crop[1]), crop[2] / _JUDGED, (_VIEW, _VIEW), pose) for pose in look.poses]
        for cascade in look.judges:
            here = np.concatenate([self._windows(cascade, view) for view in views])
            near = np.abs(here[:, :2] - crop[:2]).max(axis=1, initial=0) < 0.25 * crop[2]
            counts.append(near.sum() / len(views))
            seen.append(here[near])
            if counts[-1] < look.needed / 4:  # whatever the others say
                return crop, 0.0
        together = np.concatenate(seen)
        evidence = math.exp(sum(map(math.log, counts)) / len(counts))
        return _mean(together), evidence

    def _windows(self, cascade: Cascade, view: View) -> NDArray[np.float64]:
        classifier, smallest, largest = self._classifiers[cascade.file], 0.75 * _JUDGED, 1.4 * _JUDGED
        return view.back(crops(classifier, cascade, view.grey, smallest=smallest, largest=largest, step=1.06))


def _clusters(crops: NDArray[np.float64]) -> list[tuple[NDArray[np.float64], int]]:
    """Crops (N, 3) that are near one another, as their mean and number; the largest clusters first."""
    sizes = np.array([_near(crops, crop).sum() for crop in crops])
    free = np.ones(len(crops), dtype=bool)
    found = []
    for seed in np.argsort(-sizes, kind="stable"):
        if free[seed]:
            members = free & _near(crops, crops[seed])
            free &= ~members
            found.append((_mean(crops[members]), int(members.sum())))
    return sorted(found, key=lambda cluster: -cluster[1])


def _near(
    crops: NDArray[np.float64], crop: NDArray[np.float64], *, place: float = 0.3, scale: float = 0.35
) -> NDArray[np.bool_]:
    """Which crops (N, 3) differ from one by less than ``place`` of its side, and ``scale`` in the log of the side."""
    away = np.abs(crops[:, :2] - crop[:2]).max(axis=1) / crop[2]
    near: NDArray[np.bool_] = (away < place) & (np.abs(np.log(crops[:, 2] / crop[2])) < scale)
    return near


def _mean(crops: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean place, and geometric mean of the sides."""
    return np.append(crops[:, :2].mean(axis=0), np.exp(np.log(crops[:, 2]).mean()))

"""Scores of depth maps from files, whoever made them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from recon_toolkit.data.decode import DEPTH_SUFFIXES, IMAGE_SUFFIXES, DepthScale, UnknownScale, read_depth, read_mask
from recon_toolkit.data.packing import find_files
from recon_toolkit.errors import DataError
from recon_toolkit.geometry.camera import Camera
from recon_toolkit.metrics.report import Baselines, DepthEvaluator, ScoreReport, SkippedFile
from recon_toolkit.progress import QUIET, Progress

__all__ = ["Baselines", "Pair", "ScoreReport", "match_files", "score_files"]

#: The depth file in each folder that ``recon reconstruct`` writes.
RECONSTRUCTED = "depth.npy"
#: Where several files have one name, the last of these counts.
PREFERENCE = (".png", ".tif", ".tiff", ".pfm", ".exr", ".npz", ".npy")


@dataclass(frozen=True)
class Pair:
    """A predicted and a true depth file that belong together, and optional mask files for both."""

    name: str
    prediction: Path
    truth: Path
    mask: Path | None = None
    prediction_mask: Path | None = None


def score_files(
    prediction: str | Path,
    truth: str | Path,
    *,
    mask: str | Path | None = None,
    prediction_mask: str | Path | None = None,
    fov: float = 10.0,
    prediction_scale: DepthScale | None = None,
    truth_scale: DepthScale | None = None,
    resize: bool = True,
    progress: Progress = QUIET,
) -> ScoreReport:
    """Score predicted depth files against true ones: two files, or two folders whose files are matched by name.

    In folders, files belong together whose paths agree but for the suffix (and for the words ``depth``, ``image``
    and ``mask``); a folder written by ``recon reconstruct`` is matched by its sub-folders' names. What is not
    positive and finite in a prediction is not scored.

    Args:
        prediction: a depth file (PNG, TIFF, ``.npy``, ``.npz``, PFM, EXR) or a folder of them.
        truth: the ground truth, likewise. What lies before a map's furthest value is scored.
        mask: instead of that, a mask image or ``.npy`` (or a folder of them, matched in the same way).
        prediction_mask: where the predictions hold, likewise.
        fov: horizontal field of view of the maps, in degrees; normals depend on it.
        prediction_scale: what integer images among the predictions mean; the files' own word by default. Those that
            say nothing are not scored without it.
        truth_scale: likewise for the ground truth.
        resize: bring predictions and masks of another size to their truth's, see :func:`resampled`.
        progress: where to show progress.

    Raises:
        DataError: a path is missing, nothing matches, or no pair can be scored. Pairs that cannot be read, whose
            scale is not known, or, without ``resize``, whose sizes differ, are skipped and listed in the report.
    """
    if not 0 < fov < 180:
        raise DataError(f"a field of view lies between 0 and 180 degrees, not at {fov}", where="fov", remedy="try 10")
    masks = [None if path is None else Path(path) for path in (mask, prediction_mask)]
    pairs, skipped = match_files(Path(prediction), Path(truth), *masks)
    evaluator = DepthEvaluator(Camera(fov))
    scored, changed, alone = 0, 0, len(skipped)
    for pair in progress.track(pairs, description="scoring", unit="map"):
        try:
            changed += _add(evaluator, pair, prediction_scale, truth_scale, resize)
        except DataError as error:
            skipped.append(SkippedFile(name=pair.name, reason=str(error)))
        else:
            scored += 1
    if not scored:
        raise DataError(
            f"none of the {len(pairs)} depth maps can be scored; {skipped[alone].reason}", remedy="fix the files"
        )
    return evaluator.report(skipped).model_copy(update={"resized": changed})


def match_files(
    prediction: Path, truth: Path, mask: Path | None = None, prediction_mask: Path | None = None
) -> tuple[list[Pair], list[SkippedFile]]:
    """The pairs in two files or folders, and the files without a partner. Raises DataError as :func:`score_files`."""
    if not os.path.isdir(prediction) and not os.path.isdir(truth):
        for path in (mask, prediction_mask):
            if path is not None and os.path.isdir(path):
                raise DataError("is a folder, the depth maps are files", where=str(path), remedy="give one mask file")
        return [Pair(prediction.stem, prediction, truth, mask, prediction_mask)], []
    predictions, truths = _by_key(prediction), _by_key(truth)
    masks, prediction_masks = (
        None if path is None else _by_key(path, IMAGE_SUFFIXES | {".npy"}) for path in (mask, prediction_mask)
    )
    names = predictions.keys() & truths.keys()
    if not names:
        raise DataError(
            f"none of its {len(predictions)} depth files has a partner among the {len(truths)} in {truth}",
            where=str(prediction),
            remedy="name a prediction like its ground truth, suffix aside",
        )
    reasons = dict.fromkeys(predictions.keys() - names, "no ground truth has this name")
    reasons |= dict.fromkeys(truths.keys() - names, "no prediction has this name")
    for given in (masks, prediction_masks):
        if given is not None:
            reasons |= dict.fromkeys(names - given.keys(), "no mask has this name")
            names &= given.keys()
    if not names:
        raise DataError("no mask belongs to any of the depth maps", where=str(mask), remedy="name masks like the maps")
    pairs = [
        Pair(
            name,
            predictions[name],
            truths[name],
            masks[name] if masks is not None else None,
            prediction_masks[name] if prediction_masks is not None else None,
        )
        for name in sorted(names)
    ]
    return pairs, [SkippedFile(name=name, reason=reason) for name, reason in sorted(reasons.items())]


def _by_key(path: Path, suffixes: frozenset[str] = DEPTH_SUFFIXES) -> dict[str, Path]:
    if not os.path.isdir(path):
        if not os.path.exists(path):
            raise DataError("no such file or folder", where=str(path), remedy="check the path")
        raise DataError("is a file, the other is a folder", where=str(path), remedy="give two files or two folders")
    files = find_files(path, suffixes)
    if not files:
        kinds = ", ".join(sorted(suffixes))
        raise DataError("the folder holds no files to score", where=str(path), remedy=f"put files there ({kinds})")
    reconstructed = [file for file in files if file.name == RECONSTRUCTED and file.parent != path]
    if reconstructed:
        return {_common(file.parent.relative_to(path).as_posix()): file for file in reconstructed}
    found: dict[str, Path] = {}
    for file in sorted(files, key=_exactness):
        found[_key(file.relative_to(path))] = file  # the most exact comes last and stays
    return found


def _exactness(path: Path) -> int:
    suffix = path.suffix.lower()
    return PREFERENCE.index(suffix) if suffix in PREFERENCE else -1


def _key(path: Path) -> str:
    """What a prediction, its truth and its mask have in common."""
    return _common(path.with_suffix("").as_posix())


def _common(name: str) -> str:
    return name.replace("image", "*").replace("depth", "*").replace("mask", "*")


def _add(
    evaluator: DepthEvaluator,
    pair: Pair,
    prediction_scale: DepthScale | None,
    truth_scale: DepthScale | None,
    resize: bool,
) -> bool:
    """Score a pair; whether its prediction was of another size."""
    predicted = _read(pair.prediction, prediction_scale, "--pred-scale")
    true = _read(pair.truth, truth_scale, "--gt-scale")
    other = predicted.shape != true.shape
    if other:
        _refuse_other_size(pair.prediction, predicted, true, resize)
        predicted = resampled(predicted, true.shape)
    if min(true.shape) < 3:
        raise DataError("a depth map needs at least 3×3 pixels", where=str(pair.truth))
    masks: list[Tensor | None] = []
    for path in (pair.prediction_mask, pair.mask):
        mask = None if path is None else read_mask(path)
        if path is not None and mask is not None and mask.shape != true.shape:
            _refuse_other_size(path, mask, true, resize)
            mask = resampled(np.where(mask, 1.0, np.nan), true.shape) == 1
        masks.append(None if mask is None else torch.from_numpy(mask)[None])
    evaluator.add(
        torch.from_numpy(predicted)[None],
        torch.from_numpy(true)[None],
        prediction_mask=masks[0],
        truth_mask=masks[1],
    )
    return other


def _read(path: Path, scale: DepthScale | None, option: str) -> NDArray[np.float64]:
    try:
        return read_depth(path, scale=scale, ask=True)
    except UnknownScale as error:
        default = DepthScale()
        remedy = f"say it with {option} OFFSET SLOPE; of Wu et al.'s data: {option} {default.offset} {default.slope}"
        raise UnknownScale(error.message, where=error.where, remedy=remedy) from None


def resampled(depth: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A depth map at another size, bilinear, with the outermost pixels' centres where they were, as cameras here have
    it (:class:`~recon_toolkit.geometry.camera.Camera`).

    Args:
        depth: (h, w); what is not positive and finite is no depth, and has no part in its neighbours'.
        shape: the size wanted, (H, W).

    Returns:
        (H, W), NaN where more than half of what a pixel lies between is no depth.
    """
    known = np.isfinite(depth) & (depth > 0)
    both = torch.from_numpy(np.stack([np.where(known, depth, 0.0), known.astype(np.float64)]))
    values, weight = interpolate(both[None], size=(shape[0], shape[1]), mode="bilinear", align_corners=True)[0].numpy()
    inside = weight >= 0.5 - 1e-9  # rounding must not decide where the weight is half exactly
    return np.asarray(np.divide(values, weight, out=np.full(weight.shape, np.nan), where=inside))


def _refuse_other_size(path: Path, values: NDArray[Any], truth: NDArray[np.float64], resize: bool) -> None:
    if not resize:
        raise DataError(
            f"is {values.shape[1]}×{values.shape[0]} pixels, its ground truth {truth.shape[1]}×{truth.shape[0]}",
            where=str(path),
            remedy="resize one to the other's size, or leave --no-resize out",
        )

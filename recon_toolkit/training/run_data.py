"""The packed data that a run reads: its splits, made or opened."""

from __future__ import annotations

from dataclasses import dataclass

from recon_toolkit.assembly import build_dataset
from recon_toolkit.config.pipeline import ResolvedPipeline
from recon_toolkit.data.context import DataContext
from recon_toolkit.data.packed import PackedImages
from recon_toolkit.errors import DataError, MissingSplit, PluginError
from recon_toolkit.registry import blamed


@dataclass(frozen=True)
class Splits:
    """The packed data of a run; a data set without some split has None there."""

    train: PackedImages
    validation: PackedImages | None
    evaluation: PackedImages | None

    def fingerprints(self) -> dict[str, str]:
        """Fingerprint of each split."""
        parts = {"train": self.train, "validation": self.validation, "evaluation": self.evaluation}
        return {name: data.fingerprint for name, data in parts.items() if data is not None}


def open_splits(resolved: ResolvedPipeline, context: DataContext) -> Splits:
    """Open, and if need be make, the splits that a run reads.

    Raises:
        DataError: a split is missing, or a folder is given to a data set that says ``reads_folder = False``.
    """
    dataset = build_dataset(resolved)
    pipeline = resolved.pipeline
    if context.root is not None and not getattr(dataset, "reads_folder", True):
        raise DataError(
            f"the data set '{pipeline.dataset.name}' reads no folder",
            where="--data",
            remedy="leave it out, or choose another data set, e.g. --set dataset.name=image-folder",
        )
    known = tuple(dataset.splits)

    def opened(name: str) -> PackedImages:
        who = f"the data set '{pipeline.dataset.name}'"
        with blamed(who):
            found = dataset.open(name, pipeline.image_size, context)
        if not isinstance(found, PackedImages):
            raise PluginError(
                f"{who} gave {type(found).__name__} for the split '{name}', not PackedImages",
                remedy="let its open() return PackedImages.open(...) or what PackWriter.finish() returns",
            )
        return found

    def split(name: str, loss: str) -> PackedImages | None:
        if name not in known:
            return None
        try:
            return opened(name)
        except MissingSplit as error:
            context.progress.warn(f"{error}; {loss}")
            return None

    if "train" not in known:
        raise DataError("the data set has no split 'train'", where="dataset", remedy=f"it has {', '.join(known)}")
    train = opened("train")
    wanted = pipeline.evaluation.split
    if wanted not in known:
        raise DataError(
            f"the data set has no split '{wanted}'", where="evaluation.split", remedy=f"use one of {', '.join(known)}"
        )
    validation = split("val", "contact sheets will show other images")
    return Splits(train, validation, split(wanted, "the run will have no final score"))

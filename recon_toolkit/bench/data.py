"""The data of a table's rows, opened once each before anything trains, and whether its metrics can be had."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from recon_toolkit.bench.metrics import known_metrics
from recon_toolkit.config.pipeline import ResolvedPipeline
from recon_toolkit.data.context import DataContext
from recon_toolkit.errors import DataError
from recon_toolkit.evaluation.pipeline_metrics import sheet_of_pipeline
from recon_toolkit.models import Model
from recon_toolkit.progress import Progress
from recon_toolkit.training.run_data import Splits, open_splits


def reads_folder(resolved: ResolvedPipeline) -> bool:
    """Whether a pipeline's data set reads the user's data folder, as far as it says."""
    return bool(getattr(resolved.components["dataset",].target, "reads_folder", True))


class DataStore:
    """Opens (and if need be makes) the splits of each data set once.

    Args:
        folder: the user's data, for data sets that read a folder.
        metrics: of the table.
        progress: shows the making of data.
    """

    def __init__(self, folder: Path | None, metrics: Sequence[str], progress: Progress) -> None:
        self.folder, self.metrics, self.progress = folder, metrics, progress
        self._opened: dict[str, Splits] = {}

    def fingerprints(self, resolved: ResolvedPipeline) -> Mapping[str, str]:
        """Fingerprints of the user's data that a pipeline reads; none where its data follow from the options.

        Raises:
            DataError: the data cannot be used, or lack what a metric needs.
        """
        splits = self._splits(resolved)
        self._check_metrics(resolved, splits)
        options = resolved.components["dataset",].options.values()
        follows = not reads_folder(resolved) and not any(isinstance(value, Path) for value in options)
        return {} if follows else splits.fingerprints()

    def _splits(self, resolved: ResolvedPipeline) -> Splits:
        pipeline = resolved.pipeline
        key = json.dumps(
            [pipeline.dataset.model_dump(mode="json"), pipeline.image_size, pipeline.evaluation.split], sort_keys=True
        )
        if key not in self._opened:
            root = self.folder if reads_folder(resolved) else None
            self._opened[key] = open_splits(resolved, DataContext(root=root, progress=self.progress))
        return self._opened[key]

    def _check_metrics(self, resolved: ResolvedPipeline, splits: Splits) -> None:
        """Raise DataError if a scored model's data lack what a metric of the table needs."""
        model = resolved.components["model",].target
        known = known_metrics([sheet_of_pipeline(resolved)])
        for name in self.metrics:
            needs = known[name].needs if name in known else None
            if needs == "own":
                self._check_own(resolved, splits, name)
            if needs == "depth" and _reconstructs(model):
                have = splits.evaluation is not None and "depth" in splits.evaluation.fields
                if not have:
                    raise DataError(
                        f"row '{resolved.name}': the metric '{name}' needs true depth, which the split "
                        f"'{resolved.pipeline.evaluation.split}' of '{resolved.pipeline.dataset.name}' does not have",
                        where="metrics",
                        remedy="choose a data set with ground truth, or metrics that need none: psnr, ssim, lpips",
                    )

    def _check_own(self, resolved: ResolvedPipeline, splits: Splits, metric: str) -> None:
        have = () if splits.evaluation is None else splits.evaluation.fields
        if metric not in {scored.name for scored in sheet_of_pipeline(resolved, have).metrics}:
            missing = ", ".join(sheet_of_pipeline(resolved).missing(have))
            raise DataError(
                f"row '{resolved.name}': the metric '{metric}' needs {missing} of every image, which "
                f"the split '{resolved.pipeline.evaluation.split}' of '{resolved.pipeline.dataset.name}' does not have",
                where="metrics",
                remedy="choose a data set with them, or other metrics",
            )


def _reconstructs(target: object) -> bool:
    return not inspect.isclass(target) or (issubclass(target, Model) and target.defines("reconstruct"))

"""Many pictures at once: read, find, reconstruct in batches and write, each where it can be done beside the others."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from recon_toolkit.data.decode import read_image
from recon_toolkit.data.packing import usable_cores
from recon_toolkit.data.video import is_video
from recon_toolkit.errors import DataError
from recon_toolkit.export.overview import overview
from recon_toolkit.export.pictures import save_png
from recon_toolkit.files import disk_error
from recon_toolkit.inference.inputs import find_sources
from recon_toolkit.inference.models import TrainedModel
from recon_toolkit.inference.outputs import Outputs, write_outputs
from recon_toolkit.inference.pictures import Crop, Finder, Source, video_sources
from recon_toolkit.inference.report import Failed, Reconstructed, ReconstructionReport, RefinementGain
from recon_toolkit.progress import QUIET, Progress
from recon_toolkit.result import Result
from recon_toolkit.structures import Reconstruction

CONTACT_SHEET, PAGE = "contact_sheet.png", "index.html"
SHEET_ROWS = 64  # more would make a picture that few programs open
PAGE_OBJECTS = 48  # more would make a page that loads slowly
T = TypeVar("T")


@dataclass(frozen=True)
class VideoFrames:
    """Which frames of a video count: every ``every``-th, at most ``limit``."""

    every: int = 10
    limit: int | None = 300


@dataclass(frozen=True)
class Refinement:
    """Adapt the model to the pictures first, for so many steps; 0 does not."""

    steps: int = 0
    seed: int = 0


@dataclass
class _Written:
    """What has been done so far."""

    done: list[Reconstructed]
    shown: list[Result]

    def show(self, results: Sequence[Result]) -> None:
        self.shown += results[: SHEET_ROWS - len(self.shown)]


def reconstruct_files(
    trained: TrainedModel,
    arguments: Sequence[str | Path],
    out: str | Path,
    *,
    finder: Finder,
    outputs: Outputs | None = None,
    batch_size: int = 16,
    video: VideoFrames | None = None,
    refinement: Refinement | None = None,
    progress: Progress = QUIET,
) -> ReconstructionReport:
    """Reconstruct what image files and videos show: one folder for each object, a contact sheet, and a page over all.

    A picture that cannot be read, or in which nothing is found, is listed in the report and the others are done.

    Args:
        trained: the model.
        arguments: files, folders and patterns.
        out: the folder for the results.
        finder: how crops are found in pictures.
        outputs: what is written of each; the default ones if None.
        batch_size: crops at once.
        video: which frames of videos count.
        refinement: whether to adapt the model to all the pictures first; they are then in memory at once.
        progress: where to show progress.

    Raises:
        DataError: nothing could be reconstructed, or the results cannot be written.
    """
    started = time.monotonic()
    out, outputs, video = Path(out), outputs or Outputs(), video or VideoFrames()
    _claim(out)
    sources, failed = find_sources(arguments)
    gain: RefinementGain | None = None
    found: Iterable[Crop | Failed] = _crops(sources, finder, video, batch_size, progress)
    if refinement is not None and refinement.steps > 0:
        from recon_toolkit.inference.refine import refined

        kept = list(found)
        crops = [item for item in kept if isinstance(item, Crop)]
        if crops:
            trained, gain = refined(trained, stacked(crops), refinement.steps, seed=refinement.seed, progress=progress)
        found = kept
    written = _Written([], [])
    with _working_threads(trained.device) as pool:
        running: deque[Future[list[Result]]] = deque()
        for crops, broken in _batches(found, batch_size):
            failed += broken
            if crops:
                written.done += [_entry(crop, out) for crop in crops]
                running.append(pool.submit(_do, trained, crops, out, outputs))
            while len(running) > 2 * usable_cores():  # the slowest part sets the pace, not the memory
                written.show(running.popleft().result())
        while running:
            written.show(running.popleft().result())
    if not written.done:
        reasons = "; ".join(f"{item.image}: {item.reason}" for item in failed[:3])
        raise DataError(f"nothing was reconstructed: {reasons}", remedy="give images, folders of images, or patterns")
    page = _write_page(out, written, outputs) if "page" in outputs.kinds else None
    sheet = joined([result.found for result in written.shown])
    save_png(out / CONTACT_SHEET, overview(sheet, rows=[result.name for result in written.shown]))
    return ReconstructionReport(
        out=str(out),
        model=trained.source,
        contact_sheet=str(out / CONTACT_SHEET),
        page=None if page is None else str(page),
        reconstructed=written.done,
        failed=failed,
        refinement=gain,
        seconds=time.monotonic() - started,
    )


def _entry(crop: Crop, out: Path) -> Reconstructed:
    source = crop.source
    return Reconstructed(image=str(source.path), folder=str(out / crop.name), frame=source.frame, box=crop.box)


def _do(trained: TrainedModel, crops: Sequence[Crop], out: Path, outputs: Outputs) -> list[Result]:
    """Reconstruct a batch and write what there is of it."""
    results = reconstructed(trained, crops)
    for result, crop in zip(results, crops, strict=True):
        write_outputs(result, out / crop.name, outputs, page="pages" in outputs.kinds)
    return results


@contextmanager
def _working_threads(device: torch.device) -> Iterator[ThreadPoolExecutor]:
    """Threads that each take whole batches, with one core each: small networks leave cores idle when shared."""
    import numba

    numba.set_num_threads(numba.get_num_threads())  # the first of these calls must not come from two threads at once
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)  # new threads take it over
    try:
        with ThreadPoolExecutor(usable_cores(), initializer=numba.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


def reconstructed(trained: TrainedModel, crops: Sequence[Crop]) -> list[Result]:
    """The results of a batch of crops, on the model's device."""
    if not crops:
        return []
    with torch.inference_mode():
        found: Reconstruction = trained.network.reconstruct(stacked(crops).to(trained.device))  # type: ignore[operator]
    # One copy for the whole batch: results are written and looked at from the CPU.
    found = found.to("cpu")
    return [
        Result(found.at(index), trained.camera, as_tensor(crop.photo), crop.name, crop.box)
        for index, crop in enumerate(crops)
    ]


def stacked(crops: Sequence[Crop]) -> Tensor:
    """What the model sees, (B, 3, H, W) in [0, 1]."""
    return torch.stack([as_tensor(crop.pixels) for crop in crops])


def as_tensor(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
    """(H, W, 3) uint8 → (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255


def joined(parts: Sequence[Reconstruction]) -> Reconstruction:
    """Several batches as one."""
    together: dict[str, Any] = {
        f.name: torch.cat([getattr(part, f.name) for part in parts])
        for f in fields(Reconstruction)
        if isinstance(getattr(parts[0], f.name), Tensor)
    }
    return replace(parts[0], **together)


def _claim(out: Path) -> None:
    """Make the output folder and write to it, so that a place that cannot be written is known before any work."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".recon-writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise disk_error(error, out) from error


def _crops(
    sources: Sequence[Source], finder: Finder, video: VideoFrames, ahead: int, progress: Progress
) -> Iterator[Crop | Failed]:
    """Every crop of every source in order, and what failed; pictures are read by threads, some way ahead."""
    with progress.task("reconstructing", len(sources), "img") as task, ThreadPoolExecutor(usable_cores()) as pool:
        waiting: deque[tuple[Source, Future[list[Crop | Failed]] | None]] = deque()
        remaining = iter(sources)
        while True:
            for source in islice(remaining, ahead - len(waiting)):
                waiting.append((source, None if is_video(source.path) else pool.submit(_of_picture, source, finder)))
            if not waiting:
                return
            source, future = waiting.popleft()
            yield from future.result() if future is not None else _of_video(source, finder, video)
            task.advance()


def _of_picture(source: Source, finder: Finder) -> list[Crop | Failed]:
    try:
        return [*finder.crops(read_image(source.path), source)]
    except DataError as error:
        return [_failed(source, error)]


def _of_video(source: Source, finder: Finder, video: VideoFrames) -> Iterator[Crop | Failed]:
    """The crops of a video; a frame without an object is passed over, a video without any has failed."""
    empty = True
    try:
        for frame, image in video_sources(source, every=video.every, limit=video.limit):
            try:
                crops = finder.crops(image, frame)
            except DataError:
                continue
            empty = False
            yield from crops
    except DataError as error:
        yield _failed(source, error)
        return
    if empty:
        yield Failed(image=source.label, reason="no face was found in any of its frames that were looked at")


def _failed(source: Source, error: DataError) -> Failed:
    remedy = f" ({error.remedy})" if error.remedy else ""
    return Failed(image=source.label, reason=error.message + remedy)


def _batches(found: Iterable[Crop | Failed], size: int) -> Iterator[tuple[list[Crop], list[Failed]]]:
    crops: list[Crop] = []
    broken: list[Failed] = []
    for item in found:
        if isinstance(item, Failed):
            broken.append(item)
        else:
            crops.append(item)
        if len(crops) == size:
            yield crops, broken
            crops, broken = [], []
    if crops or broken:
        yield crops, broken


def _write_page(out: Path, written: _Written, outputs: Outputs) -> Path:
    """One page over the first results, with links to their meshes; a single result's page holds its mesh."""
    from recon_toolkit.export.viewer import viewer_document
    from recon_toolkit.files import write_text

    shown, count = written.shown[:PAGE_OBJECTS], len(written.done)
    if count == 1:
        write_text(out / PAGE, shown[0].page())
        return out / PAGE
    meshes = [f"mesh.{kind}" for kind in ("glb", "obj", "ply", "stl") if kind in outputs.kinds]
    scenes = [
        result.scene({mesh: (Path(done.folder).relative_to(out) / mesh).as_posix() for mesh in meshes})
        for result, done in zip(shown, written.done, strict=False)
    ]
    rest = f"The first {len(shown)} of {count}." if count > len(shown) else ""
    write_text(out / PAGE, viewer_document(f"{count} reconstructions", scenes, intro=rest))
    return out / PAGE

"""Many pictures at once: read, find, reconstruct in batches and write, each where it can be done beside the others."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recon_toolkit.data.decode import image_size, read_image
from recon_toolkit.data.video import is_video
from recon_toolkit.errors import DataError, ReconError
from recon_toolkit.files import DiskError, printable, write_text
from recon_toolkit.inference.folder import (
    CONTACT_SHEET,
    PAGE,
    RECORD,
    Failed,
    Names,
    Reconstructed,
    ReconstructionReport,
    RefinementGain,
    find_sources,
    locked_folder,
)
from recon_toolkit.inference.models import Pathways, TrainedModel
from recon_toolkit.inference.outputs import Outputs, write_outputs
from recon_toolkit.inference.pictures import Crop, Finder, Source, video_sources
from recon_toolkit.io.contact_sheet import overview
from recon_toolkit.io.maps import save_png
from recon_toolkit.progress import QUIET, Progress
from recon_toolkit.result import Result
from recon_toolkit.structures import Reconstruction
from recon_toolkit.threads import given

#: Pictures of more pixels are decoded and searched one at a time: each takes some ten bytes a pixel for a while.
LARGE_PIXELS = 16_000_000
_large = threading.Lock()


@dataclass(frozen=True)
class VideoFrames:
    """Which frames of a video count: every ``every``-th, at most ``limit``."""

    every: int = 10
    limit: int | None = 300


def read_crops(
    sources: Sequence[Source],
    finder: Finder,
    video: VideoFrames,
    *,
    ahead: int,
    progress: Progress,
    description: str = "reconstructing",
) -> Iterator[Crop | Failed]:
    """Every crop of every source in order, and what failed.

    Args:
        sources: pictures and videos.
        finder: how crops are found in them.
        video: which frames of videos count.
        ahead: pictures that are read before their crops are asked for.
        progress: where a bar counts the sources.
        description: the bar's label.
    """
    pool = ThreadPoolExecutor(given().count)
    try:
        with progress.task(description, len(sources), "img") as task:
            waiting: deque[tuple[Source, Future[list[Crop | Failed]] | None]] = deque()
            remaining = iter(sources)
            while True:
                for source in islice(remaining, ahead - len(waiting)):
                    future = None if is_video(source.path) else pool.submit(_of_picture, source, finder)
                    waiting.append((source, future))
                if not waiting:
                    return
                source, future = waiting.popleft()
                yield from future.result() if future is not None else _of_video(source, finder, video)
                task.advance()
    finally:
        pool.shutdown(cancel_futures=True)


def failed(source: Source, error: ReconError) -> Failed:
    """What to report of a source that an error came of."""
    remedy = f" ({error.remedy})" if error.remedy else ""
    return Failed(image=source.label, reason=error.message + remedy)


def _of_picture(source: Source, finder: Finder) -> list[Crop | Failed]:
    try:
        with _turn(source):
            return [*finder.crops(read_image(source.path), source)]
    except ReconError as error:  # a detector's own fault too: the other pictures may still go well
        return [failed(source, error)]


def _turn(source: Source) -> AbstractContextManager[object]:
    """What a picture waits for before it is decoded; raises DataError as :func:`image_size` does."""
    width, height = image_size(source.path)
    return _large if width * height > LARGE_PIXELS else nullcontext()


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
    except ReconError as error:
        yield failed(source, error)
        return
    if empty:
        yield Failed(image=source.label, reason=f"no {finder.noun} was found in any of its frames that were looked at")


SHEET_ROWS = 64  # more would make a picture that few programs open
PAGE_OBJECTS = 48  # more would make a page that loads slowly
#: Meshes that a page offers; an OBJ is three files, which one button does not bring.
_OFFERED = ("glb", "ply", "stl", "3mf")


@dataclass(frozen=True)
class Refinement:
    """Adapt the model to the pictures first, for this number of steps; 0 does not."""

    steps: int = 0
    seed: int = 0


@dataclass
class _Written:
    """What has been done so far, in order; of the first objects also the results, for the page and the sheet."""

    done: list[Reconstructed] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    shown: list[Result] = field(default_factory=list)

    def take(self, batch: Sequence[tuple[Reconstructed, Result] | Failed]) -> None:
        for item in batch:
            if isinstance(item, Failed):
                self.failed.append(item)
                continue
            self.done.append(item[0])
            if len(self.shown) < SHEET_ROWS:
                self.shown.append(item[1])


def reconstruct_files(
    trained: TrainedModel | Pathways,
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

    A picture that cannot be read, in which nothing is found, or whose object cannot be written as was asked for, is
    listed in the report and the others are done. The report is also kept in the output folder.

    Args:
        trained: the model, or several by label.
        arguments: files, folders and patterns.
        out: the folder for the results: new, empty, or of an earlier call.
        finder: how crops are found in pictures.
        outputs: what is written of each; the default ones if None.
        batch_size: crops at once.
        video: which frames of videos count.
        refinement: whether to adapt the model to all the pictures first; they are then in memory at once.
        progress: where to show progress.

    Raises:
        DataError: nothing could be reconstructed, or the results cannot be written.
        ReconError: the model cannot be refined.
    """
    started = time.monotonic()
    out, outputs = Path(out), outputs or Outputs()
    outputs.check()
    models = trained if isinstance(trained, Pathways) else Pathways(trained)
    steps = 0 if refinement is None else refinement.steps
    if steps:
        from recon_toolkit.inference.refine import objective_of

        objective_of(models.default)  # what cannot be refined is known before pictures are read
    sources, missing = find_sources(arguments)
    if not sources:
        raise _nothing(missing)
    written = _Written(failed=missing)
    gain: RefinementGain | None = None
    with locked_folder(out):
        found: Iterable[Crop | Failed] = read_crops(
            sources,
            finder,
            video or VideoFrames(),
            ahead=max(batch_size, 2 * torch.get_num_threads()),
            progress=progress,
            description="reading" if steps else "reconstructing",
        )
        if steps and refinement is not None:
            found = list(found)
            models, gain = _refined(models, found, refinement, progress)
        _run(models, found, out, outputs, batch_size, Names(sources), written)
        if not written.done:
            raise _nothing(written.failed)
        page = _write_page(out, written, outputs) if outputs.wants("page") else None
        sheet = joined([result.maps for result in written.shown])
        save_png(out / CONTACT_SHEET, overview(sheet, rows=[result.name for result in written.shown]))
        report = ReconstructionReport(
            out=printable(out),
            model=models.source,
            contact_sheet=printable(out / CONTACT_SHEET),
            page=None if page is None else printable(page),
            reconstructed=written.done,
            failed=written.failed,
            refinement=gain,
            seconds=round(time.monotonic() - started, 3),
        )
        write_text(out / RECORD, report.model_dump_json(indent=1) + "\n")
    return report


def _nothing(reasons: Sequence[Failed]) -> DataError:
    said = "; ".join(f"{item.image}: {item.reason}" for item in reasons[:3])
    return DataError(f"nothing was reconstructed: {said}", remedy="give images, folders of images, or patterns")


def _refined(
    models: Pathways, found: Iterable[Crop | Failed], refinement: Refinement, progress: Progress
) -> tuple[Pathways, RefinementGain | None]:
    """Each model adapted to the objects that it reconstructs; the gain is that of all, by their numbers of objects."""
    from recon_toolkit.inference.refine import refined

    crops = [item for item in found if isinstance(item, Crop)]
    adapted: dict[str | None, TrainedModel] = {}
    gains: list[tuple[int, RefinementGain]] = []
    for trained, group in models.grouped(crops):
        model, gain = refined(trained, stacked(group), refinement.steps, seed=refinement.seed, progress=progress)
        adapted |= dict.fromkeys((crop.label for crop in group), model)
        gains.append((len(group), gain))
    if not gains:
        return models, None
    total = sum(count for count, _ in gains)
    gain = RefinementGain(
        steps=refinement.steps,
        loss_before=sum(count * gain.loss_before for count, gain in gains) / total,
        loss_after=sum(count * gain.loss_after for count, gain in gains) / total,
        kept=any(gain.kept for _, gain in gains),
    )
    default = adapted.pop(None, models.default)
    return Pathways(default, loaded={label: model for label, model in adapted.items() if label}), gain


def _run(
    models: Pathways,
    found: Iterable[Crop | Failed],
    out: Path,
    outputs: Outputs,
    batch_size: int,
    names: Names,
    written: _Written,
) -> None:
    """Reconstruct and write everything, in batches by several threads; fills ``written``."""
    stop = threading.Event()

    def work(model: TrainedModel, crops: Sequence[tuple[Crop, str]]) -> list[tuple[Reconstructed, Result] | Failed]:
        results = reconstructed(model, [crop for crop, _ in crops])
        done: list[tuple[Reconstructed, Result] | Failed] = []
        for result, (crop, name) in zip(results, crops, strict=True):
            if stop.is_set():
                break
            done.append(_write(replace(result, name=name), crop, model.source, out, outputs))
        return done

    threads = torch.get_num_threads()
    with _working_threads(threads, stop) as pool:
        running: deque[Future[list[tuple[Reconstructed, Result] | Failed]]] = deque()
        for crops, broken in _batches(found, batch_size):
            written.failed += broken
            named = {id(crop): names.of(crop) for crop in crops}
            for model, group in models.grouped(crops):
                running.append(pool.submit(work, model, [(crop, named[id(crop)]) for crop in group]))
            while len(running) > 2 * threads:  # the slowest part sets the pace, not the memory
                written.take(running.popleft().result())
        while running:
            written.take(running.popleft().result())


def _write(
    result: Result, crop: Crop, model: str, out: Path, outputs: Outputs
) -> tuple[Reconstructed, Result] | Failed:
    folder, source = out / result.name, crop.source
    try:
        write_outputs(result, folder, outputs, page=outputs.wants("pages"))
    except DiskError:  # every further one would fail as well
        raise
    except DataError as error:
        return failed(source, error)
    entry = Reconstructed(
        image=printable(source.path),
        folder=printable(folder),
        frame=source.frame,
        box=crop.box,
        label=crop.label,
        model=model,
    )
    return entry, result


@contextmanager
def _working_threads(threads: int, stop: threading.Event) -> Iterator[ThreadPoolExecutor]:
    """Threads that each take whole batches, with one core each: small networks leave cores idle when shared.

    When the block ends in an error or Ctrl-C, what has not begun is dropped, and ``stop`` is set for what has.
    """
    torch.set_num_threads(1)  # new threads take it over
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    except BaseException:
        stop.set()
        raise
    finally:
        pool.shutdown(cancel_futures=stop.is_set())
        torch.set_num_threads(threads)


def reconstructed(trained: TrainedModel, crops: Sequence[Crop]) -> list[Result]:
    """The results of a batch of crops, on the CPU."""
    if not crops:
        return []
    # One copy for the whole batch: results are written and looked at from the CPU.
    found = trained.reconstruct(stacked(crops)).to("cpu")
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
    """Several batches as one, at the size of the first; without what some of them lack."""
    size = parts[0].image.shape[-1]
    together: dict[str, Any] = {}
    for name in (f.name for f in fields(Reconstruction)):
        values = [getattr(part, name) for part in parts]
        if all(isinstance(value, Tensor) for value in values):
            together[name] = torch.cat([_at_size(value, size) for value in values])
        elif isinstance(values[0], Tensor):
            together[name] = None
    return replace(parts[0], **together)


def _at_size(value: Tensor, size: int) -> Tensor:
    """A map (B, H, W) or (B, C, H, W) of any number type at size × size; anything else as it is."""
    if value.ndim < 3 or value.shape[-1] == size or value.shape[-1] != value.shape[-2]:
        return value
    maps = value.float() if value.ndim == 4 else value.float()[:, None]
    resized = torch.nn.functional.interpolate(maps, (size, size), mode="bilinear", align_corners=True)
    resized = resized if value.ndim == 4 else resized[:, 0]
    return resized > 0.5 if value.dtype == torch.bool else resized.to(value.dtype)


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


def _offered(result: Result, outputs: Outputs) -> dict[str, str]:
    """The files of a result that its page offers: what they are called there, and where they lie."""
    name, kinds = Path(result.name).name, outputs.kinds_for(result)
    found = {f"{name}.{kind}": f"{result.name}/mesh.{kind}" for kind in _OFFERED if kind in kinds}
    if result.of_points:
        others = {
            "cloud": ("-cloud.ply", "cloud.ply"),
            "obj": (".obj", "mesh.obj"),
            "voxels": (".binvox", "voxels.binvox"),
        }
        found |= {f"{name}{end}": f"{result.name}/{file}" for kind, (end, file) in others.items() if kind in kinds}
    return found


def _write_page(out: Path, written: _Written, outputs: Outputs) -> Path | None:
    """One page over the first results, with links to their meshes; a single result's page holds its mesh."""
    from recon_toolkit.viewer import viewer_document

    shown, count = written.shown[:PAGE_OBJECTS], len(written.done)
    scenes = []
    for result in shown:
        offered = _offered(result, outputs)
        try:
            scenes.append(result.scene_with_mesh() if count == 1 and not result.of_points else result.scene(offered))
        except DataError:  # an object that the model has lost is nothing to turn
            continue
    if not scenes:
        return None
    rest = f"The first {len(shown)} of {count}." if count > len(shown) else ""
    title = shown[0].name if count == 1 else f"{count} reconstructions"
    write_text(out / PAGE, viewer_document(title, scenes, intro=rest))
    return out / PAGE

"""Everything that waits for a GPU, in calls of under nine minutes, each of which goes on where the last one stopped:

    python benchmarks/gpu_suite.py next --keep runs/gpu         the next unfinished things; again until it says finished
    python benchmarks/gpu_suite.py throughput --keep runs/gpu   images a second of the training step, by precision
    python benchmarks/gpu_suite.py schedule --keep runs/gpu     75,000 steps of batch 64 at the paper's width
    python benchmarks/gpu_suite.py ablation --keep runs/gpu     recon bench ablation-unsup3d at the paper's width
    python benchmarks/gpu_suite.py report --keep runs/gpu       results/gpu-suite-DEVICE.json, also of a part

It may be killed at any time: what is measured is in the folder at once, and trainings go on from their checkpoints.
Exit codes: 0 something was done, 1 nothing is left and something failed (its cause is kept; --retry tries again),
2 wrong use, 130 interrupted. With --toy every piece is tiny, for a test of this script on a CPU, and nothing goes to
results/.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from filelock import FileLock, Timeout
from gpu_case import CASES, PAPER, TOY, Case, failed_case
from gpu_report import Ablation, Suite, Training, notes_of, values_of
from gpu_session import PIECES, Ended, Identity, Progress, Session, limited, read
from recon_bench.report import TableReport, read_report
from record import RESULTS

from recon_toolkit.config.pipeline import load_pipeline
from recon_toolkit.engine.checkpoint import checkpoints
from recon_toolkit.engine.environment import Environment
from recon_toolkit.engine.log import read_log
from recon_toolkit.engine.page import RunSummary
from recon_toolkit.errors import DataError, ReconError
from recon_toolkit.files import write_text

#: Pictures to train on. One call must be able to make them: at 100 a second, as on two cores, they take seven minutes.
#: The schedule passes over them 120 times; the paper's 160,000 would take half an hour on two cores.
PICTURES = 40_000
#: The paper's steps and batch.
STEPS = 75_000
#: Steps of a row of the ablation: at 50 steps a second (a guess, no GPU was at hand) a dozen rows take 40 minutes.
ABLATION_STEPS = 10_000
#: Rows of the ablation at a time: steps of 64 small pictures do not fill a large GPU.
ABLATION_JOBS = 4
WIDTHS = {"depth": 64, "albedo": 64, "confidence": 64, "light": 32, "view": 32}
#: The ablation, and those of its rows that a toy has.
SHIPPED = Path(__file__).parent.parent / "configs" / "tables" / "ablation-unsup3d.yaml"
TOY_ROWS = ("full", "supervised")
#: `recon bench` ends with this where a row has failed; the others are done.
ROW_FAILED = 3
#: Seconds that one case of the throughput may take, compilation included.
CASE_SECONDS = 240.0


def _widths(toy: bool) -> list[str]:
    return [f"encoders.{role}.width={8 if toy else width}" for role, width in WIDTHS.items()]


def schedule_settings(toy: bool) -> list[str]:
    """The full schedule, as changes of ``unsup3d-synface``.

    Apart from the data it departs from the paper in four things: no perceptual terms (their weights cannot be fetched
    everywhere), the convex start and the repeated rows of ``unsup3d-quick``, clipped gradients, and bf16.
    """
    settings = [*_widths(toy), "losses.perceptual=null", "losses.flipped-perceptual=null", "model.repeated_rows=2"]
    settings += ["training.clip_gradient=2", f"training.batch_size={8 if toy else 64}"]
    if toy:
        settings += ["dataset={name: synthetic-faces, count: 32, validation: 8, test: 8}", "image_size=32"]
        settings += ["training.steps=6", "training.checkpoint_every=2", "training.validate_every=6"]
        return [*settings, "model.convex_start_steps=2", "training.log_every=2"]
    settings += [f"dataset={{name: synthetic-faces, count: {PICTURES}}}", f"training.steps={STEPS}"]
    settings += ["training.checkpoint_every=2500", "training.validate_every=5000", "training.log_every=250"]
    return [*settings, "model.convex_start_steps=200", "training.precision=bf16"]


def enlarged(pipeline: str, toy: bool) -> dict[str, Any]:
    """A pipeline of the ablation's table at full size, as YAML. Its learning rate was not tuned."""
    roles = load_pipeline(pipeline).pipeline.encoders
    changed: dict[str, Any] = {"extends": pipeline}
    changed["encoders"] = {role: {"width": 8 if toy else width} for role, width in WIDTHS.items() if role in roles}
    if toy:
        data = {"count": 32, "validation": 8, "test": 8}
        return changed | {"dataset": data, "image_size": 32, "training": {"batch_size": 8, "precision": "fp32"}}
    training = {"batch_size": 64, "precision": "bf16", "learning_rate": 5e-4}
    return changed | {"dataset": {"count": PICTURES}, "training": training}


def write_table(folder: Path, toy: bool) -> Path:
    """The shipped ablation at full size: its pipelines are enlarged, its rows stay. Returns the table's file.

    A file and not ``--set``, which would give a width also to the encoders that a row leaves out.
    """
    table = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    steps = 2 if toy else ABLATION_STEPS
    table["budget"] = {"steps": steps}
    table.setdefault("set", {}).setdefault("training", {}).update(workers=1, validate_every=max(1, steps // 5))
    if toy:
        table["rows"] = {name: row | {"seeds": [0]} for name, row in table["rows"].items() if name in TOY_ROWS}
        table.pop("prepare", None)
    for prepared in table.get("prepare", {}).values():
        prepared.setdefault("dataset", {})["count"] = PICTURES  # the rows' pictures, so that no others are made
    for part in (table, *table["rows"].values()):
        if (name := part.get("pipeline")) is not None:
            write_text(folder / f"{name}.yaml", yaml.safe_dump(enlarged(name, toy), sort_keys=False))
            part["pipeline"] = f"{name}.yaml"
    path = folder / SHIPPED.name
    write_text(path, yaml.safe_dump(table, sort_keys=False, allow_unicode=True))
    return path


def _set(settings: list[str]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def _recon(*words: str) -> list[str]:
    return [sys.executable, "-m", "recon_toolkit", "--quiet", *words]


# -- the pieces --------------------------------------------------------------------------------------------------------


def throughput(session: Session, only: list[str] | None = None) -> None:
    """Measure the cases that are not there yet, each in a process of its own."""
    scale = TOY if session.toy else PAPER
    for name in only or session.cases:
        path = session.keep / "throughput" / f"{name}.json"
        known = session.case(name)
        if known is not None and not (session.retry and known.status == "failed"):
            continue
        allowed = min(CASE_SECONDS, session.left)
        if allowed <= 0:
            return
        print(f"throughput {name}", flush=True)
        path.unlink(missing_ok=True)
        command = [sys.executable, str(Path(__file__).with_name("gpu_case.py")), name, "--device", session.device]
        command += ["--out", str(path), *(["--toy"] if session.toy else [])]
        ended = limited(command, session.keep / "throughput.log", allowed)
        if session.case(name) is not None:
            continue
        if ended.stopped and allowed < min(CASE_SECONDS, 0.9 * session.full):
            return  # it had only the end of a call; the next call starts with it
        cause = f"it did not end within {allowed:.0f} s" if ended.stopped else ended.cause
        case = failed_case(name, torch.device(session.device), scale, cause)
        write_text(path, case.model_dump_json(indent=1) + "\n")


def schedule(session: Session) -> None:
    """Make the data, then train; stopped in time, and continued by the next call."""
    settings, run = schedule_settings(session.toy), session.keep / "schedule"
    pipeline = ["--pipeline", "unsup3d-synface", *_set(settings)]
    allowed = session.left
    ended = _call(session, "schedule", _recon("data", "pack", *pipeline), keep_open=True)
    if ended.stopped and allowed >= 0.9 * session.full:
        cause = f"the pictures were not made within {allowed:.0f} s; allow more with --minutes, or lower PICTURES"
        _record(session, "schedule", status="failed", cause=cause)
    if ended.code != 0 or session.left <= 0:
        return
    resume = ["--resume"] if (run / "pipeline.yaml").is_file() else []
    command = _recon("run", *pipeline, "--out", str(run), "--device", session.device, *resume)
    if not (run / "summary.json").is_file():
        _call(session, "schedule", command)
    else:
        _record(session, "schedule", status="finished")


def ablation(session: Session) -> None:
    """`recon bench` on the enlarged table; stopped in time, and continued by the same command."""
    ended = _call(session, "ablation", ablation_command(session))
    if ended.code == ROW_FAILED and any((session.keep / "ablation").rglob("results.json")):
        _record(session, "ablation", status="finished")  # the table shows the failed rows with their causes


def ablation_command(session: Session) -> list[str]:
    """The command of the ablation, whose table is written here."""
    jobs = 1 if session.device == "cpu" else ABLATION_JOBS
    table = write_table(session.keep / "tables", session.toy)
    command = _recon("bench", str(table), "--out", str(session.keep / "ablation"))
    return [*command, "--jobs", str(jobs), "--device", session.device]


def _call(session: Session, piece: str, command: list[str], *, keep_open: bool = False) -> Ended:
    """Run a command of a piece until it ends or time is up, and record which; ``keep_open`` if others follow."""
    print(f"{piece}: recon {command[4]}", flush=True)
    begun = time.monotonic()
    _record(session, piece, seconds=0.0)
    try:
        ended = limited(command, session.keep / f"{piece}.log", session.left)
    finally:
        progress = session.progress(piece)
        progress.calls[-1] = time.monotonic() - begun
        _write(session, piece, progress)
    if ended.code == 0 and not keep_open:
        _record(session, piece, status="finished")
    elif ended.code != 0 and not ended.stopped:
        _record(session, piece, status="failed", cause=ended.cause)
    return ended


def _record(
    session: Session,
    piece: str,
    *,
    status: Literal["started", "finished", "failed"] = "started",
    cause: str | None = None,
    seconds: float | None = None,
) -> None:
    calls = session.progress(piece).calls
    calls += [] if seconds is None else [seconds]
    _write(session, piece, Progress(status=status, cause=cause, calls=calls))


def _write(session: Session, piece: str, progress: Progress) -> None:
    write_text(session.keep / f"{piece}.json", progress.model_dump_json(indent=1) + "\n")


# -- the report --------------------------------------------------------------------------------------------------------


def report(session: Session) -> Path:
    """Write what was measured, and return the file.

    Raises:
        ReconError: nothing was.
    """
    cases = [case for name in session.cases if (case := session.case(name)) is not None]
    training, table = _training(session), _ablation(session)
    environment = _environment(session, cases)
    if environment is None:
        raise ReconError("nothing has been measured yet", where=str(session.keep), remedy="run a piece first")
    command = ["python", "benchmarks/gpu_suite.py", "next", "--device", session.device]
    left = session.unfinished()
    suite = Suite(
        benchmark=f"gpu-suite-{session.device}" + "-toy" * session.toy,
        environment=environment.model_copy(update={"command": command + ["--toy"] * session.toy}),
        toy=session.toy,
        partial=bool(left),
        left=left,
        throughput=cases,
        schedule=training,
        ablation=table,
        values=values_of(cases, training),
        notes=notes_of(cases),
    )
    text = suite.model_dump_json(indent=1) + "\n"
    Suite.model_validate_json(text)
    path = (session.keep if session.toy else RESULTS) / f"{suite.benchmark}.json"
    write_text(session.keep / path.name, text)
    write_text(path, text)
    return path


def _environment(session: Session, cases: list[Case]) -> Environment | None:
    """Where the figures come from: not this process, which may run elsewhere."""
    for path in (session.keep / "schedule" / "environment.json", *session.keep.glob("ablation/**/environment.json")):
        if not cases and (found := read(Environment, path)) is not None:
            return found
    return cases[0].environment if cases else None


def _training(session: Session) -> Training | None:
    run, progress, settings = session.keep / "schedule", session.progress("schedule"), schedule_settings(session.toy)
    if not (run / "environment.json").is_file():
        return None
    given = {"pipeline": "unsup3d-synface", "settings": settings, "device_seconds": sum(progress.calls)}
    planned = {"steps": 6, "batch": 8} if session.toy else {"steps": STEPS, "batch": 64}
    summary = read(RunSummary, run / "summary.json")
    if summary is not None:
        keys = {"images_per_second", "peak_memory_mb", "images", "findings"}
        keys |= {name + end for name in ("side", "mad") for end in ("", "_std", "_ratio")}
        scores = summary.model_dump(include=keys)
        seconds, done = summary.seconds, summary.steps
        return Training(status="finished", steps_done=done, training_seconds=seconds, **scores, **given, **planned)
    saved = int(files[-1].stem.removeprefix("step-")) if (files := checkpoints(run)) else 0
    log = read_log(run) if (run / "metrics.jsonl").is_file() else []
    seconds = max((e.get("seconds") or 0.0 for e in log if e["kind"] == "train" and e["step"] <= saved), default=0.0)
    status: Literal["failed", "partial"] = "failed" if progress.status == "failed" else "partial"
    return Training(status=status, cause=progress.cause, steps_done=saved, training_seconds=seconds, **given, **planned)


def _ablation(session: Session) -> Ablation | None:
    progress = session.progress("ablation")
    if not progress.calls:
        return None
    table: TableReport | None = None
    for path in sorted((session.keep / "ablation").rglob("results.json")):
        try:
            table = read_report(path)
            break
        except DataError as error:
            print(f"left out: {error}", file=sys.stderr)
    status = "partial" if progress.status == "started" else progress.status
    seconds = sum(progress.calls)
    return Ablation(status=status, cause=progress.cause, device_seconds=seconds, table=table)


# -- the command -------------------------------------------------------------------------------------------------------


def perform(piece: str, session: Session, only: list[str] | None) -> int:
    """Do a piece, or all with ``next``; say what is left."""
    pieces = PIECES if piece in ("next", "report") else (piece,)
    if piece == "report":
        print(report(session))
        return 0
    for name in pieces:
        progress = session.progress(name)
        if session.left <= 0 or progress.status == "finished":
            continue
        if progress.status == "failed":
            if not session.retry:
                continue
            _record(session, name)
        if name == "throughput":
            throughput(session, only)
        else:
            (schedule if name == "schedule" else ablation)(session)
    left, failures = session.unfinished(pieces), session.failures(pieces)
    for failure in failures:
        print(f"failed: {failure}")
    if piece == "next":
        print(report(session))
    print(f"left: {', '.join(left)}" if left else "finished")
    return int(bool(failures) and not left)


def opened(options: argparse.Namespace) -> Session:
    """Check the device and the folder.

    Raises:
        ReconError: there is no such device, or the folder is another device's or size's.
    """
    if options.minutes <= 0:
        raise ReconError("no time to do anything", where=f"--minutes {options.minutes}", remedy="give it some, e.g. 9")
    if options.device == "cuda" and options.piece != "report" and not torch.cuda.is_available():
        raise ReconError(
            "no CUDA device is available to torch",
            where="--device cuda",
            remedy="run it on a machine with a GPU, or test the script with --device cpu --toy",
        )
    known, mine = (read(Identity, options.keep / "suite.json"), Identity(device=options.device, toy=options.toy))
    if known is not None and known != mine:
        words = f"--device {known.device}" + " --toy" * known.toy
        raise ReconError(
            f"the folder holds a suite of {words}", where=str(options.keep), remedy="go on with that, or choose another"
        )
    write_text(options.keep / "suite.json", mine.model_dump_json() + "\n")
    return Session(options.keep, options.device, options.toy, options.retry, 60 * options.minutes)


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("piece", choices=(*PIECES, "report", "next"))
    parser.add_argument("--keep", type=Path, required=True, help="folder of everything that is measured")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--minutes", type=float, default=9.0, help="how long this call may take")
    parser.add_argument("--toy", action="store_true", help="everything tiny")
    parser.add_argument("--only", nargs="+", choices=CASES, metavar="CASE", help="these cases of the throughput")
    parser.add_argument("--retry", action="store_true", help="try again what failed")
    options = parser.parse_args(arguments)
    options.keep = options.keep.absolute()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        session = opened(options)
        with FileLock(options.keep / ".lock", timeout=0):
            return perform(options.piece, session, options.only)
    except ReconError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except Timeout:
        print(f"error: {options.keep}: another call is at work here (wait for it)", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

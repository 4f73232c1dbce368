"""From the file of a table to the trainings that it takes, everything validated before anything trains."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from recon_bench.report import known_baselines, known_metrics
from recon_bench.schema import PREPARED, Budget, RowKeys, TableConfig, command_problems, name_problems
from recon_toolkit.config.document import Entry, Place, read
from recon_toolkit.config.pipeline import ResolvedPipeline, load_pipeline
from recon_toolkit.config.problems import validation_problems
from recon_toolkit.config.sources import find_table
from recon_toolkit.data.packing import DataContext
from recon_toolkit.engine.checkpoint import WEIGHTS
from recon_toolkit.engine.environment import Splits, open_splits
from recon_toolkit.errors import ConfigError, DataError, ReconError, suggestion
from recon_toolkit.files import content_key
from recon_toolkit.metrics import Metric, MetricSet
from recon_toolkit.metrics.metric import model_metrics
from recon_toolkit.metrics.pipeline import pipeline_metrics
from recon_toolkit.models import Model
from recon_toolkit.plugins import PluginHost
from recon_toolkit.progress import QUIET, Progress


def training_digest(resolved: ResolvedPipeline, data: Mapping[str, str], runs: Path) -> str:
    """The name of a training's run folder: 16 hexadecimal digits that are equal if the same would be trained.

    They cover the resolved pipeline with its seed and what it is scored on, the user's data (fingerprints by split;
    generated data follow from the options), the source of those plugin files that it takes components from, and the
    contents of files that options name, e.g. weights. (Preparations, below ``runs``, are named by their contents.)
    Of installed plugins, the package and its version count; the toolkit's own version is in the run's record.
    """
    used = {part.entry.provider for part in resolved.components.values()}
    document: dict[str, Any] = {
        "pipeline": resolved.fingerprint,
        "data": dict(data),
        "evaluation": resolved.pipeline.evaluation.model_dump(include={"split", "images"}),
        "plugins": _sources(resolved.host.files, used),
    }
    if resolved.pipeline.metrics:
        document["metrics"] = {name: term.model_dump() for name, term in resolved.pipeline.metrics.items()}
    installed = [plugin for plugin in resolved.host.plugins if plugin.name in used and plugin.version is not None]
    foreign = {plugin.name: plugin.source for plugin in installed if not plugin.own}
    if foreign:
        document["installed"] = foreign  # name and version of the package
    files = {
        f"{'.'.join(keys)}.{name}": digest
        for keys, part in resolved.components.items()
        for name, value in part.options.items()
        if isinstance(value, Path) and (digest := _digest(value, runs)) is not None
    }
    start = resolved.pipeline.training.start_from
    if start is not None and (digest := _digest(start, runs)) is not None:
        files["training.start_from"] = digest
    if files:
        document["files"] = files
    return content_key(document)


def _sources(files: Sequence[Path], used: Collection[str]) -> dict[str, str]:
    """Digests of the used plugin files. A second file of one name is a provider by its whole path, and counts too."""
    found: dict[str, str] = {}
    for file in files:
        digest = hashlib.sha256(_source(file)).hexdigest()
        if str(file.resolve()) in used:
            found[f"{file.name} {digest}"] = digest
        elif file.name in used:
            found.setdefault(file.name, digest)
    return found


def _digest(path: Path, runs: Path) -> str | None:
    """Of a file, or of the weights of a run folder; None for anything else, for what is not there, and in ``runs``."""
    if path.resolve().is_relative_to(runs.resolve()):
        return None
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        return None
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _source(file: Path) -> bytes:
    """A plugin file's bytes, or those of every Python file of a plugin folder."""
    if file.is_file():
        return file.read_bytes()
    return b"".join(part.name.encode() + part.read_bytes() for part in sorted(file.rglob("*.py")))


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

    def fingerprints(self, resolved: ResolvedPipeline, scored: bool = True) -> Mapping[str, str]:
        """Fingerprints of the user's data that a pipeline reads; none where its data follow from the options.

        Data that follow from the options are made for what the table scores only: a preparation makes its own.

        Raises:
            DataError: the data cannot be used, or lack what a metric needs.
        """
        options = resolved.components["dataset",].options.values()
        follows = not reads_folder(resolved) and not any(isinstance(value, Path) for value in options)
        if follows and not scored:
            return {}
        splits = self._splits(resolved)
        if scored:
            self._check_metrics(resolved, splits)
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
        known = known_metrics([pipeline_metrics(resolved)])
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
        if metric not in {scored.name for scored in pipeline_metrics(resolved, have).metrics}:
            missing = ", ".join(pipeline_metrics(resolved).missing(have))
            raise DataError(
                f"row '{resolved.name}': the metric '{metric}' needs {missing} of every image, which "
                f"the split '{resolved.pipeline.evaluation.split}' of '{resolved.pipeline.dataset.name}' does not have",
                where="metrics",
                remedy="choose a data set with them, or other metrics",
            )


def _reconstructs(target: object) -> bool:
    return not inspect.isclass(target) or (issubclass(target, Model) and target.defines("reconstruct"))


@dataclass(frozen=True)
class Training:
    """A pipeline to train with one seed, for a row or a preparation.

    Args:
        row: the row's name, or the preparation's.
        seed: of the run.
        resolved: the pipeline.
        digest: names its run folder; equal for equal contents.
        needs: digests of the preparations that must be done before.
    """

    row: str
    seed: int
    resolved: ResolvedPipeline
    digest: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedRow:
    """A row: what it changes, as KEY=VALUE, and its trainings by seed."""

    name: str
    keys: RowKeys
    pipeline: str
    changes: tuple[str, ...]
    trainings: tuple[Training, ...]
    place: Place


@dataclass(frozen=True)
class Plan:
    """A table, ready to be trained.

    Args:
        name: the file's name without its ending.
        source: the file.
        config: its contents.
        base: name of the row that the others are compared with.
        rows: in the file's order.
        prepared: trainings that rows need, by name.
        data: the user's data folder.
    """

    name: str
    source: Path
    config: TableConfig
    base: str
    rows: tuple[PlannedRow, ...]
    prepared: Mapping[str, Training] = field(default_factory=dict)
    data: Path | None = None

    @property
    def sheets(self) -> list[MetricSet]:
        """What the rows are judged by besides the toolkit's metrics."""
        return _sheets(self.rows)

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metrics that a row can have, by name."""
        return known_metrics(self.sheets)

    @property
    def baselines(self) -> dict[str, str]:
        """The baselines that there are: name → label."""
        return known_baselines(self.sheets)

    def trainings(self) -> list[Training]:
        """Preparations, then every row's first seed, then the second ones: an early look shows every row."""
        most = max(len(row.trainings) for row in self.rows)
        by_seed = [row.trainings[n] for n in range(most) for row in self.rows if n < len(row.trainings)]
        return [*self.prepared.values(), *by_seed]


def load_plan(
    name_or_path: str,
    host: PluginHost,
    *,
    runs: Path,
    overrides: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    rows: Sequence[str] | None = None,
    data: Path | None = None,
    progress: Progress = QUIET,
) -> Plan:
    """Read a table and resolve all of its rows.

    Args:
        name_or_path: an installed table, or a YAML file.
        host: the plugins; the table's own files are loaded in addition.
        runs: the folder that run folders lie in, which ``prepared:NAME`` becomes a path in.
        overrides: ``KEY=VALUE`` for every row, after its own settings.
        seeds: instead of the table's, for every row.
        rows: names that must be there.
        data: instead of the table's data folder.
        progress: for the making of data.

    Raises:
        DataError: data cannot be used, or lack what a metric needs.
        ConfigError: anything is wrong; every problem at once, with its row, file and line.
    """
    path = find_table(name_or_path, host)
    tree, problems = read(path)
    config, found = _config(tree)
    problems += found
    if config is None or problems:
        raise ConfigError(problems)
    host = host.with_files([(path.parent / Path(file).expanduser()).resolve() for file in config.plugins])
    # Once for all that can be wrong in the file, before data are opened or made, and again with the data.
    reader = _Rows(path, tree, config, host, runs, overrides, seeds, lambda _resolved, _scored: {})
    found_rows = reader.rows(reader.prepared())
    base = config.base or next(iter(config.rows))
    problems = [
        *reader.problems,
        *name_problems(tree, config, base, _sheets(found_rows) or _all_sheets(host)),
        *command_problems(config, rows, seeds, overrides),
    ]
    if problems:
        raise ConfigError(_once(problems))
    folder = data if data is not None else _relative(path, config.data)
    if folder is not None and not folder.is_dir():
        raise ReconError(f"there is no folder {folder}", where="data", remedy="check the path")
    store = DataStore(folder, config.metrics, progress)
    reader = _Rows(path, tree, config, host, runs, overrides, seeds, store.fingerprints)
    prepared = reader.prepared()
    planned = reader.rows(prepared)
    if reader.problems:
        raise ConfigError(_once(reader.problems))
    used = {need for row in planned for training in row.trainings for need in training.needs}
    wanted = {name: training for name, training in prepared.items() if training.digest in used}
    return Plan(table_name(path.name), path, config, base, tuple(planned), wanted, folder)


def table_name(name_or_path: str) -> str:
    """What a table is called, and the folder of its results: the file's name without its ending."""
    name = Path(name_or_path).name.rpartition(":")[2]
    return name.removesuffix(".yaml").removesuffix(".yml")


def _relative(path: Path, given: str | None) -> Path | None:
    return None if given is None else (path.parent / Path(given).expanduser()).resolve()


def _config(tree: Entry) -> tuple[TableConfig | None, list[ReconError]]:
    try:
        return TableConfig.model_validate_json(json.dumps(tree.plain()), strict=True), []
    except ValidationError as error:
        return None, list(validation_problems(error, tree, (), _known_keys))


def _known_keys(keys: Sequence[str | int]) -> Sequence[str]:
    sections: dict[str, type[BaseModel]] = {"budget": Budget}
    if len(keys) > 1 and keys[0] in sections:
        return list(sections[str(keys[0])].model_fields)
    return list(TableConfig.model_fields)


def _all_sheets(host: PluginHost) -> list[MetricSet]:
    """What all models there are are judged by: where no row could be resolved."""
    found = []
    for entry in host.registry.all():
        if entry.kind == "model":
            with contextlib.suppress(Exception):  # one that cannot be loaded brings no metric
                found.append(model_metrics(entry.component.load()))
    return found


def _sheets(rows: Sequence[PlannedRow]) -> list[MetricSet]:
    return [pipeline_metrics(training.resolved) for row in rows for training in row.trainings[:1]]


class _Rows:
    """Resolves the rows of one table and collects their problems."""

    def __init__(
        self,
        path: Path,
        tree: Entry,
        config: TableConfig,
        host: PluginHost,
        runs: Path,
        overrides: Sequence[str],
        seeds: Sequence[int] | None,
        data: Callable[[ResolvedPipeline, bool], Mapping[str, str]],
    ) -> None:
        self.data = data
        self.path, self.tree, self.config, self.host, self.runs = path, tree, config, host, runs
        self.overrides, self.seeds = overrides, seeds
        self.problems: list[ReconError] = []

    def prepared(self) -> dict[str, Training]:
        """The preparations, each with the table's first seed. Table-wide settings are the rows', not theirs."""
        found: dict[str, Training] = {}
        section = self.tree.mapping.get("prepare")
        for name, entry in (section.mapping if section else {}).items():
            keys, changes = self._split(name, entry, "preparation")
            for key in entry.mapping.keys() & (RowKeys.model_fields.keys() - {"pipeline"}):
                error = ReconError(f"'{key}' is for rows", where=str(entry.mapping[key].place), remedy="take it out")
                self.problems.append(_of("preparation", name, error))
            self._refuse_prepared("preparation", name, changes)
            resolved = self._resolve(name, keys, [changes], self.config.seeds[0], "preparation", ())
            if resolved is not None:
                digest = training_digest(resolved, self.data(resolved, False), self.runs)
                found[name] = Training(name, self.config.seeds[0], resolved, digest)
        return found

    def rows(self, prepared: Mapping[str, Training]) -> list[PlannedRow]:
        """Every row with its trainings."""
        common = [*self._set(), *self._budget()]
        common_needs: tuple[str, ...] = ()
        if common:
            common[0], common_needs = self._with_prepared("set", common[0], prepared)
        found: list[PlannedRow] = []
        for name, entry in self.tree.mapping["rows"].mapping.items():
            keys, own = self._split(name, entry, "row")
            changes = own
            changes, needs = self._with_prepared(f"row '{name}'", changes, prepared)
            needs = tuple(dict.fromkeys((*common_needs, *needs)))
            trainings = []
            for seed in self.seeds or keys.seeds or self.config.seeds:
                resolved = self._resolve(name, keys, [*common, changes], seed, "row", self.overrides)
                if resolved is None:
                    break
                digest = training_digest(resolved, self.data(resolved, True), self.runs)
                trainings.append(Training(name, seed, resolved, digest, needs))
            pipeline = keys.pipeline or self.config.pipeline
            shown = tuple(f"{key}={value}" for key, value in flat(own.plain()))
            found.append(PlannedRow(name, keys, pipeline, shown, tuple(trainings), entry.place))
        return found

    def _set(self) -> Iterator[Entry]:
        if "set" in self.tree.mapping:
            yield self.tree.mapping["set"]

    def _budget(self) -> Iterator[Entry]:
        if "budget" in self.tree.mapping:
            budget = self.tree.mapping["budget"]
            yield Entry({"training": budget}, budget.place)

    def _split(self, name: str, entry: Entry, what: str) -> tuple[RowKeys, Entry]:
        """A row's own keys, and what it changes of the pipeline."""
        fields = RowKeys.model_fields
        own = {key: item for key, item in entry.mapping.items() if key in fields}
        try:
            keys = RowKeys.model_validate_json(json.dumps(Entry(own, entry.place).plain()), strict=True)
        except ValidationError as error:
            found = validation_problems(error, Entry(own, entry.place), (), lambda _keys: fields)
            self.problems += [_of(what, name, problem) for problem in found]
            keys = RowKeys()
        changes = {key: item for key, item in entry.mapping.items() if key not in fields}
        for key in changes.keys() & {"seed", "name", "extends", "plugins"}:
            remedy = {"seed": "use 'seeds: [N]'", "name": "the row's name is its key", "extends": "use 'pipeline'"}
            text, where = f"a row cannot set '{key}'", str(changes[key].place)
            error_ = ReconError(text, where=where, remedy=remedy.get(key, "list them for the whole table"))
            self.problems.append(_of(what, name, error_))
            changes = {other: item for other, item in changes.items() if other != key}
        return keys, Entry(changes, entry.place)

    def _refuse_prepared(self, what: str, name: str, changes: Entry) -> None:
        """A preparation cannot need another one."""
        for key, value in flat(changes.plain()):
            if PREPARED in value:
                error = ReconError(f"'{key}' names a preparation", where=str(changes.place), remedy="name a run folder")
                self.problems.append(_of(what, name, error))

    def _with_prepared(
        self, who: str, changes: Entry, prepared: Mapping[str, Training]
    ) -> tuple[Entry, tuple[str, ...]]:
        """The changes with every ``prepared:NAME`` as a path, and the digests of those."""
        needs: list[str] = []

        def replaced(entry: Entry) -> Entry:
            if isinstance(entry.value, dict):
                return Entry({key: replaced(item) for key, item in entry.value.items()}, entry.place)
            if isinstance(entry.value, list):
                return Entry([replaced(item) for item in entry.value], entry.place)
            if not isinstance(entry.value, str) or not entry.value.startswith(PREPARED):
                return entry
            name = entry.value.removeprefix(PREPARED)
            if name not in prepared:
                known = self.config.prepare
                if name not in known:
                    text = f"the table prepares no '{name}'"
                    where, remedy = str(entry.place), suggestion(name, known)
                    self.problems.append(ReconError(f"{who}: {text}", where=where, remedy=remedy))
                return entry
            needs.append(prepared[name].digest)
            return Entry(str((self.runs / prepared[name].digest).resolve()), entry.place)

        return replaced(changes), tuple(dict.fromkeys(needs))

    def _resolve(
        self, name: str, keys: RowKeys, layers: Sequence[Entry], seed: int, what: str, overrides: Sequence[str]
    ) -> ResolvedPipeline | None:
        pipeline = keys.pipeline or self.config.pipeline
        given: str | Path = pipeline
        if "/" in pipeline or pipeline.endswith((".yaml", ".yml")):
            given = self.path.parent / Path(pipeline).expanduser()
        title = Entry({"name": Entry(name, self.tree.place)}, self.tree.place)
        try:
            return load_pipeline(given, [*overrides, f"seed={seed}"], self.host, layers=[*layers, title])
        except ConfigError as error:
            self.problems += [_of(what, name, problem) for problem in error.problems]
        return None


def _of(what: str, name: str, problem: ReconError) -> ReconError:
    return ReconError(f"{what} '{name}': {problem.message}", where=problem.where, remedy=problem.remedy)


def _once(problems: Sequence[ReconError]) -> list[ReconError]:
    """Every problem once: what is wrong for every row at one place is said for the first."""
    seen: set[tuple[str, str]] = set()
    kept = []
    for problem in problems:
        key = (problem.where or "", problem.message.partition("': ")[2] or problem.message)
        if key not in seen:
            seen.add(key)
            kept.append(problem)
    return kept


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """A tree of settings as (dotted key, value) pairs; a component that is named anew stays together."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and "name" not in value and value:
            yield from flat(value, f"{prefix}{key}.")
        elif isinstance(value, Mapping):
            inner = ", ".join(f"{name}: {_shown(item)}" for name, item in value.items())
            yield f"{prefix}{key}", f"{{{inner}}}"
        else:
            yield f"{prefix}{key}", _shown(value)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

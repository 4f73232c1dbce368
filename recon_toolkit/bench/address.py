"""What names a training's run folder: a digest of all that decides its result."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from recon_toolkit.cache import content_key
from recon_toolkit.config.pipeline import ResolvedPipeline
from recon_toolkit.training.checkpoint import WEIGHTS


def address(resolved: ResolvedPipeline, data: Mapping[str, str], runs: Path) -> str:
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

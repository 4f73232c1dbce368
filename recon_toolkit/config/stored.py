"""Whose pipeline it is that lies in a run folder: what a stranger's names is neither executed nor read.

A run's ``pipeline.yaml`` and the metadata of a weights file are passed around with the weights. They may name Python
files under ``plugins``, which would be executed, and files as options, which would be read. A run that this user made
here is known by its seal: a code over its pipeline with a key that lies in the user's configuration folder only.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from recon_toolkit.cache import config_root
from recon_toolkit.errors import ConfigError, ReconError

#: A run's own record of its pipeline, and the file that seals it.
PIPELINE, SEAL = "pipeline.yaml", "pipeline.seal"
#: What a run folder has beside it, by which it is told from a pipeline that somebody wrote.
_BESIDE = ("environment.json", "checkpoints", "model.safetensors", "metrics.jsonl", SEAL)
#: What it may name besides plugins.
FILES = "files that were not read"
REMEDY = "if you know what it does, name it yourself with --plugin FILE, or let in all that is named with --trust"


def is_stored(path: Path) -> bool:
    """Whether a pipeline file is the record of a run."""
    return path.name == PIPELINE and any((path.parent / name).exists() for name in _BESIDE)


def seal(run: Path) -> None:
    """Mark the pipeline of a run as this user's own; without a place for the key, nothing is marked."""
    key = _key(make=True)
    if key is not None:
        (run / SEAL).write_text(_code(key, run / PIPELINE) + "\n", encoding="ascii")


def is_sealed(path: Path) -> bool:
    """Whether a stored pipeline is as a run of this user wrote it."""
    key = _key(make=False)
    try:
        found = path.with_name(SEAL).read_bytes()[:200].decode("ascii", "replace").strip()
        return key is not None and hmac.compare_digest(found.encode(), _code(key, path).encode())
    except OSError:
        return False


def refuse(files: Sequence[Path], source: str, what: str = "plugin files, which are programs and were not run") -> None:
    """Raise ConfigError if there are files that a stored pipeline names and nobody let in."""
    if files:
        named = ", ".join(str(file) for file in files)
        raise ConfigError([ReconError(f"it names {what}: {named}", where=source, remedy=REMEDY)])


def _code(key: bytes, path: Path) -> str:
    return hmac.new(key, path.read_bytes(), hashlib.sha256).hexdigest()


def _key(make: bool) -> bytes | None:
    """This user's key, made at the first run; None if there is none and none can be kept."""
    folder = config_root()
    if folder is None:
        return None
    path = folder / "run-key"
    try:
        if not path.is_file():
            if not make:
                return None
            path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(secrets.token_bytes(32))
        key = path.read_bytes()
        return key if len(key) == 32 else None
    except OSError:  # a home that cannot be written to
        return None

"""Where generated and packed data is kept between runs, and by which names."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import stat
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def cache_root() -> Path:
    """``$XDG_CACHE_HOME/recon-toolkit``, or ``~/.cache/recon-toolkit``; not created here.

    A relative ``XDG_CACHE_HOME`` is ignored, as the XDG base directory specification asks. Where that folder cannot be
    made or written to, as for a user without a home in a container, it is a folder of the user's own under the
    temporary one, and a note says so once.
    """
    base = _user_folder("XDG_CACHE_HOME", ".cache")
    if base is not None and _can_hold(base):
        return base / "recon-toolkit"
    folder = private_temporary()
    if folder is None:
        return (base or Path(tempfile.gettempdir())) / "recon-toolkit"
    _say_once(base, folder)
    return folder


def config_root() -> Path | None:
    """``$XDG_CONFIG_HOME/recon-toolkit``, or ``~/.config/recon-toolkit``; not created here. None without a home."""
    base = _user_folder("XDG_CONFIG_HOME", ".config")
    return None if base is None else base / "recon-toolkit"


def _user_folder(variable: str, below_home: str) -> Path | None:
    """The folder that a variable of the XDG specification names, or its default; None where there is no home."""
    configured = os.environ.get(variable, "")
    try:
        return Path(configured) if os.path.isabs(configured) else Path.home() / below_home
    except RuntimeError:
        return None


def private_temporary() -> Path | None:
    """A folder of this user's own under the temporary one, which nobody else can write to; None if there is none."""
    if not hasattr(os, "getuid"):
        return None
    folder = Path(tempfile.gettempdir()) / f"recon-toolkit-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
    return folder if private and os.access(folder, os.W_OK) else None


def settle_matplotlib() -> None:
    """Give matplotlib a folder of its own where it has none in the home folder; else it complains at every start."""
    base = _user_folder("XDG_CONFIG_HOME", ".config")
    folder = None if base is not None and _can_hold(base) else private_temporary()
    if folder is not None:
        os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))


def _can_hold(base: Path) -> bool:
    """Whether our folder can be written to below ``base``, or made there."""
    for path in (base / "recon-toolkit", base, *base.parents):
        if path.exists():
            return path.is_dir() and os.access(path, os.W_OK | os.X_OK)
    return False


@functools.cache
def _say_once(base: Path | None, folder: Path) -> None:
    place = "there is no home folder" if base is None else f"{base} cannot be written to"
    print(f"note: {place}, so what is kept between runs lies under {folder} (XDG_CACHE_HOME moves it)", file=sys.stderr)


def content_key(values: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that stand for JSON values, whatever their order."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

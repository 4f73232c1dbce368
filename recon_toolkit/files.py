"""Files that appear whole or not at all, and where generated and packed data is kept between runs."""

from __future__ import annotations

import errno
import functools
import glob
import hashlib
import json
import math
import os
import re
import secrets
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from recon_toolkit.errors import DataError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
#: What a file is called while it is written, and stays called where the process is killed meanwhile.
_PARTIAL = re.compile(r"\..+\.partial-[0-9a-f]{8}", re.DOTALL)
#: Seconds without a change after which a partial file belongs to no process that still writes.
_ABANDONED = 3600.0
#: File systems take names of 255 bytes; a longer name's partial file is called by its beginning.
_LONGEST_NAME = 230


class DiskError(DataError):
    """A place cannot be written, which ends what goes on writing there."""


def disk_error(error: OSError, path: str | Path) -> DiskError:
    """What to tell a user about a failed write under ``path``."""
    if error.errno in NO_SPACE:
        return DiskError(
            "no space left on the disk", where=str(path), remedy="free some space or choose another folder"
        )
    if error.errno == errno.ENAMETOOLONG:
        return DiskError("the name is too long", where=printable(path)[:200], remedy="choose a shorter one")
    if error.errno == errno.ENOTDIR:
        return DiskError("lies below a file, not a folder", where=str(path), remedy="choose another place")
    reason = error.strerror or str(error)
    return DiskError(f"cannot be written: {reason}", where=str(path), remedy="check the path and its permissions")


def printable(path: str | Path) -> str:
    """A path as text that can be written anywhere: bytes of a name that are no UTF-8 become a mark."""
    return os.fsencode(path).decode("utf-8", "replace")


def size_of(path: Path) -> int:
    """Bytes of a file.

    Raises:
        DataError: it is a pipe, a device or a socket: reading would wait, or never end.
        OSError: there is no such file, or it may not be looked at.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
        raise DataError("is a pipe or a device, not a file", where=printable(path), remedy="name a file")
    return found.st_size


def make_folder(path: Path) -> bool:
    """Make a folder and those above it where they are missing; whether it was.

    Raises:
        DataError: there is a file in its place or above it, its name cannot be, or the disk is full.
    """
    _refuse_null(path)
    try:
        made = not path.exists()
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise DiskError("is a file, not a folder", where=printable(path), remedy="choose another folder") from None
    except OSError as error:
        raise disk_error(error, path) from error
    return made


def _refuse_null(path: Path) -> None:
    if "\0" in str(path):
        raise DiskError("a name has no null byte", where=printable(path).replace("\0", "\\0"), remedy="choose another")


@contextmanager
def writing(path: str | Path, *, durable: bool = False) -> Iterator[IO[bytes]]:
    """A binary file that takes the place of ``path`` when the block ends well, and leaves no trace otherwise.

    Missing folders above it are made. ``durable`` waits until the disk has the file, so that it outlives a power cut;
    that takes some hundredths of a second, which is right for what cannot be made again and wrong for pictures.

    Raises:
        DataError: the disk is full, or the place cannot be written.
    """
    path = Path(path)
    _refuse_null(path)
    name = path.name if len(os.fsencode(path.name)) <= _LONGEST_NAME else path.name[:50]
    partial = path.with_name(f".{name}.partial-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())  # or a power cut could leave the name with nothing in it
        partial.replace(path)
        if durable:  # records, of which there are few: also tidy up after a process that was killed
            remove_partials(path.parent, of=name, idle=_ABANDONED)
    except OSError as error:
        _remove(partial)
        raise disk_error(error, path) from error
    except BaseException:
        _remove(partial)
        raise


def write_text(path: str | Path, text: str, *, durable: bool = False) -> None:
    """Write ``text`` as UTF-8 to ``path``, whole or not at all; arguments and errors as for :func:`writing`."""
    with writing(path, durable=durable) as file:
        file.write(text.encode())


def is_partial(path: Path) -> bool:
    """Whether a file is what :func:`writing` leaves where its process is killed."""
    return _PARTIAL.fullmatch(path.name) is not None


def remove_partials(folder: Path, *, of: str = "*", idle: float = 0.0) -> None:
    """Remove what killed processes left in a folder; what cannot be removed stays.

    Args:
        folder: only files directly in it count; there may be none.
        of: the name of the file that was to be; any by default.
        idle: only what nobody has changed for this many seconds, for folders that several processes write to.
    """
    pattern = f".{of if of == '*' else glob.escape(of)}.partial-*"
    with suppress(OSError):
        for path in folder.glob(pattern):
            with suppress(OSError):
                if is_partial(path) and path.is_file() and path.stat().st_mtime <= time.time() - idle:
                    path.unlink()


def json_text(value: Any, *, indent: int | None = None, sort_keys: bool = False, ascii_only: bool = True) -> str:
    """Plain data as JSON, which knows neither NaN nor infinity: such numbers become null."""
    return json.dumps(_finite(value), indent=indent, sort_keys=sort_keys, ensure_ascii=ascii_only, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # the first error is the one to report
        return


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

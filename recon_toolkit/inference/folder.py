"""The folder of results: whose it is, and what its parts are called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from recon_toolkit.errors import DataError
from recon_toolkit.files import disk_error, is_partial, make_folder, remove_partials, write_text
from recon_toolkit.inference.pictures import Crop, Source

CONTACT_SHEET, PAGE = "contact_sheet.png", "index.html"
#: The report of the last call, by which a folder is known to hold results.
RECORD = "reconstructions.json"


class Names:
    """Folder names that no two objects share, nor an object and the page.

    Args:
        sources: their names are theirs, whatever else turns up: beside a file ``group-face1``, the first face of
            ``group`` becomes ``group-face1-2``.
    """

    def __init__(self, sources: Iterable[Source]) -> None:
        self._reserved = {source.folder.lower() for source in sources}
        self._taken = {name.lower() for name in (CONTACT_SHEET, PAGE, RECORD)}

    def of(self, crop: Crop) -> str:
        """The crop's name, or ``name-2`` and so on where that is taken. Some file systems do not tell case apart."""
        if crop.source.frame is None and crop.name == crop.source.folder:
            return crop.name
        chosen, number = crop.name, 1
        while chosen.lower() in self._taken | self._reserved:
            number += 1
            chosen = f"{crop.name}-{number}"
        self._taken.add(chosen.lower())
        return chosen


@contextmanager
def claim(out: Path) -> Iterator[None]:
    """Take a folder for results, and leave none behind that was made in vain.

    Raises:
        DataError: it holds other files, or cannot be written.
    """
    made = make_folder(out)
    try:
        known = (out / RECORD).is_file()
        if not made and not known and any(not is_partial(path) for path in out.iterdir()):
            raise DataError(
                "the folder holds other files", where=str(out), remedy="choose a new or an empty one with --out"
            )
    except OSError as error:
        raise disk_error(error, out) from error
    if not known:
        remove_partials(out)  # of a process that was killed while it wrote the record
    fresh = not known
    if fresh:  # from now on the folder is known, whatever happens
        write_text(out / RECORD, "{}\n")
    try:
        yield
    except BaseException:
        if fresh and not any(path.name != RECORD for path in out.iterdir()):
            (out / RECORD).unlink(missing_ok=True)
            if made:
                out.rmdir()
        raise

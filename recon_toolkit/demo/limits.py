"""What the web demo takes at most."""

from __future__ import annotations

from dataclasses import dataclass

from recon_toolkit.errors import ReconError

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Limits:
    """What the web demo takes at most. A picture's pixels are limited by :data:`recon_toolkit.data.decode.MAX_PIXELS`.

    Args:
        upload_bytes: of one upload, with the form around the picture.
        faces: of one picture, the most certain ones.
        places: requests that are looked after at once; one of them is reconstructed, the others upload or wait.
        upload_seconds: for sending a picture.
        work_seconds: for waiting and reconstructing.
        unread_bytes: of a refused upload, what is read and thrown away, so that its sender gets to see the answer.

    Raises:
        ReconError: a limit is not positive.
    """

    upload_bytes: int = 15 * MEGABYTE
    faces: int = 8
    places: int = 6
    upload_seconds: float = 60.0
    work_seconds: float = 60.0
    unread_bytes: int = 100 * MEGABYTE

    def __post_init__(self) -> None:
        for name in ("upload_bytes", "faces", "places", "upload_seconds", "work_seconds"):
            if not getattr(self, name) > 0:
                raise ReconError(f"{name} of the demo is {getattr(self, name)}", remedy="give a number above 0")

    @property
    def upload_words(self) -> str:
        """The limit of an upload in words, e.g. ``15 MB``."""
        return f"{self.upload_bytes / MEGABYTE:g} MB"

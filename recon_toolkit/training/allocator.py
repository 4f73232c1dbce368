"""Memory of one training step is kept for the next one."""

from __future__ import annotations

import ctypes
import sys

#: glibc's numbers of its settings (malloc.h).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
#: Above this glibc takes each block from the system and gives it back; the largest that it accepts.
_LARGEST = 32 << 20


def keep_memory() -> bool:
    """Let glibc keep memory that is freed; whether it does.

    By default large blocks go back to the system when they are freed. A step frees and takes the same blocks again, and
    their pages are then made anew, one fault each, while all threads of the process wait for one lock: on two cores a
    third of a step. For a process of the toolkit's own, whose memory stays at its peak from then on.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    settings = ((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 << 20))
    return all([mallopt(name, value) == 1 for name, value in settings])

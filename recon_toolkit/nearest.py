"""The nearest known name, for messages about a misspelt one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The name in ``known`` that ``word`` most likely meant, or None if nothing is near."""
    names = list(known)
    folded = {name.lower().replace("_", "-"): name for name in names}
    match = get_close_matches(word.lower().replace("_", "-"), folded, n=1, cutoff=0.6)
    if match:
        return folded[match[0]]
    # A short form of one name only (``flip`` for ``flipped``) is too far by edit distance.
    longer = [name for name in names if len(word) >= 3 and name.lower().startswith(word.lower())]
    return longer[0] if len(longer) == 1 else None


def suggestion(word: str, known: Iterable[str]) -> str:
    """``nearest is 'x'``, or the list of what is known, or ``none is known``; for use as a remedy."""
    names = sorted(known)
    near = nearest(word, names)
    if near is not None:
        return f"nearest is '{near}'"
    return f"known: {', '.join(names)}" if names else "none is known"

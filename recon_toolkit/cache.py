"""Where generated and packed data is kept between runs, and by which names."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def cache_root() -> Path:
    """``$XDG_CACHE_HOME/recon-toolkit``, or ``~/.cache/recon-toolkit``; not created here.

    A relative ``XDG_CACHE_HOME`` is ignored, as the XDG base directory specification asks.
    """
    configured = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(configured) if os.path.isabs(configured) else Path.home() / ".cache"
    return base / "recon-toolkit"


def content_key(values: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that stand for JSON values, whatever their order."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

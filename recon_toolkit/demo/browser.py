"""Showing an address in the user's browser, where there is one."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser


def has_browser() -> bool:
    """Whether opening an address would show a window: a browser inside the terminal would take that over."""
    if sys.platform in ("win32", "darwin"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))


def show(address: str) -> None:
    """Open an address in the browser. Where there is none, or it fails, nothing happens."""
    if has_browser():
        # Some browsers keep their starter waiting until they end.
        threading.Thread(target=_open, args=(address,), daemon=True).start()


def _open(address: str) -> None:
    try:
        webbrowser.open(address)
    except Exception:  # whatever a foreign program does, the address is on the screen
        return

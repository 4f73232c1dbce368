"""Progress where it shows bars, where it writes lines, and where it is silent; and the place of the cache."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

import recon_toolkit.progress as module
from recon_toolkit.files import cache_root
from recon_toolkit.progress import Progress, clock, track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_bars_and_messages_above_them() -> None:
    stream = Terminal()
    with Progress(stream=stream) as progress:
        assert list(progress.track([1, 2, 3], description="[faces]", unit="img")) == [1, 2, 3]
        with progress.task("again", 10) as task:
            progress.advance(4)
            progress.say("a [message]")
            assert task.done == 4
    text = stream.getvalue()
    assert "[faces]" in text
    assert "3/3" in text
    assert "a [message]\n" in text


def test_a_log_file_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    with Progress(stream=stream) as progress:
        for _ in progress.track(range(4), description="packing"):
            pass
        assert stream.getvalue() == ""  # it took no time worth a line
        monkeypatch.setattr(module, "LOG_INTERVAL", 0.0)
        for _ in progress.track(range(4), description="packing", unit="img"):
            pass
    first, *_, last = stream.getvalue().splitlines()
    assert first.startswith("packing: 1/4 img (25 %), ")
    assert last.startswith("packing: 4/4 img (100 %), ")
    assert last.endswith(" img/s, 0:00 left")


def test_quiet_shows_warnings_only() -> None:
    for stream in (io.StringIO(), Terminal()):
        with Progress(quiet=True, stream=stream) as progress:
            assert sum(progress.track(range(3), description="x")) == 3
            progress.say("not shown")
            progress.warn("shown")
        assert stream.getvalue() == "warning: shown\n"


def test_tracking_without_a_progress_counts_what_it_can() -> None:
    assert list(track((number for number in range(3)), description="unknown length")) == [0, 1, 2]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3725, "1:02:05"), (-1, "0:00")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_the_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_root() == Path("/somewhere/recon-toolkit")
    for unset in ("", "relative"):  # the specification says to ignore a relative path
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert cache_root() == Path.home() / ".cache" / "recon-toolkit"

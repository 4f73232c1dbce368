"""``recon view``: which page it shows, what it serves, and what it keeps to itself."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
import torch
from demo_requests import PATIENCE, running
from devtools import Browser, find_browser
from PIL import Image
from recon_demo.command import has_browser
from recon_demo.server import listen
from recon_demo.site import POLICY, SiteApp, site_of

from recon_toolkit.cli.app import execute
from recon_toolkit.errors import DataError
from recon_toolkit.geometry import Camera


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Results, among them a name that needs care, and things that are nobody's business."""
    folder = tmp_path / "results"
    (folder / "ein Bild #1?").mkdir(parents=True)
    (folder / "index.html").write_text("<p>the page</p>", encoding="utf-8")
    (folder / "ein Bild #1?" / "größe.txt").write_text("größer", encoding="utf-8")
    (folder / "ein Bild #1?" / "mesh.glb").write_bytes(bytes(range(200)))
    (folder / "sub").mkdir()
    (folder / "sub" / "index.html").write_text("below")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "a.txt").write_text("secret")
    (folder / ".env").write_text("secret")
    (tmp_path / "outside.txt").write_text("secret")
    return folder


@dataclass(frozen=True)
class Server:
    """A site that is served."""

    port: int
    prefix: str
    start: str


@contextlib.contextmanager
def serving(path: Path) -> Iterator[Server]:
    """A server that runs in a thread."""
    site = SiteApp(site_of(path))
    with running(site.app) as port:
        yield Server(port, site.prefix, site.start)


def ask(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer; the path stands as it is, dots and all."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


# -- what is shown -----------------------------------------------------------------------------------------------------


def test_a_folder_with_a_page_begins_with_it(results: Path) -> None:
    with serving(results) as server:
        assert server.start == f"{server.prefix}index.html"
        status, headers, body = ask(server, server.start)
        assert (status, body) == (200, b"<p>the page</p>")
        assert headers["content-type"] == "text/html; charset=utf-8"
        assert headers["content-security-policy"] == POLICY and headers["x-content-type-options"] == "nosniff"
        assert ask(server, server.prefix)[2] == b"<p>the page</p>"
        assert ask(server, f"{server.prefix}sub/")[2] == b"below"
        status, headers, _ = ask(server, f"{server.prefix}sub")
        assert status == 307 and urlsplit(headers["location"]).path == f"{server.prefix}sub/"


def test_an_html_file_is_shown_with_what_lies_beside_it(results: Path) -> None:
    page = results / "my page.html"
    page.write_text("mine")
    with serving(page) as server:
        assert ask(server, server.start)[2] == b"mine"
        assert ask(server, f"{server.prefix}index.html")[0] == 200


def test_results_without_a_page_show_their_contact_sheet(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "contact_sheet.png")
    site = site_of(tmp_path)
    assert (site.start, site.pages) == ("contact_sheet.png", ())


def test_a_folder_of_runs_or_tables_gives_a_list(tmp_path: Path) -> None:
    for name in ("a <b>", "second", "third"):
        (tmp_path / name).mkdir()
        if name != "third":
            (tmp_path / name / "index.html").write_text(name)
    with serving(tmp_path) as server:
        text = ask(server, server.start)[2].decode()
        links = re.findall(r'href="([^"]+)"', text)
        assert len(links) == 2 and "a &lt;b&gt;" in text and "<b>" not in text
        assert ask(server, server.prefix + links[0])[2] == b"a <b>"
    (tmp_path / "second" / "index.html").unlink()
    assert site_of(tmp_path).start == "a <b>/index.html"  # a list of one would be in the way


def test_a_table_is_served_with_its_runs_which_its_page_links_to(tmp_path: Path) -> None:
    for folder in ("quick", "runs/abc"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "index.html").write_text(folder)
    (tmp_path / "quick" / "results.json").write_text("{}")
    with serving(tmp_path / "quick") as server:
        assert ask(server, server.start)[2] == b"quick"
        assert ask(server, f"{server.prefix}runs/abc/index.html")[2] == b"runs/abc"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing", None, "no such file or folder"),
        ("empty", {}, "nothing to look at: no index.html and no contact_sheet.png"),
        ("data", {"a.csv": "1"}, "nothing to look at"),
        ("a.csv", "1", "is no HTML file"),
    ],
)
def test_nothing_to_look_at_is_said_clearly(
    name: str, content: dict[str, str] | str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    if isinstance(content, str):
        path.write_text(content)
    elif content is not None:
        path.mkdir()
        for file, text in content.items():
            (path / file).write_text(text)
    assert execute(["view", str(path), "--no-open"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {path}: ") and message in captured.err and captured.out == ""


def test_names_that_cannot_be_are_one_message(tmp_path: Path) -> None:
    (tmp_path / "circle.html").symlink_to("circle.html")
    for name in ("circle.html", "n" * 5000, "a\0b"):
        with pytest.raises(DataError):
            site_of(tmp_path / name)


# -- what is served ----------------------------------------------------------------------------------------------------


def test_names_and_types_are_those_of_the_files(results: Path) -> None:
    with serving(results) as server:
        _, headers, body = ask(server, server.prefix + quote("ein Bild #1?/größe.txt"))
        assert body.decode() == "größer" and headers["content-type"] == "text/plain; charset=utf-8"
        _, headers, body = ask(server, server.prefix + quote("ein Bild #1?/mesh.glb"))
        assert body == bytes(range(200)) and headers["content-type"] == "model/gltf-binary"


@pytest.mark.parametrize(
    ("wanted", "status", "part"),
    [
        ("bytes=0-9", 206, range(10)),
        ("bytes=150-", 206, range(150, 200)),
        ("bytes=190-1000", 206, range(190, 200)),
        ("bytes=-5", 206, range(195, 200)),
        ("bytes=-1000", 206, range(200)),
        ("bytes=200-", 416, range(0)),
        ("bytes=-0", 416, range(0)),
    ],
)
def test_parts_of_files_are_served_for_videos(results: Path, wanted: str, status: int, part: range) -> None:
    with serving(results) as server:
        found, headers, body = ask(server, server.prefix + quote("ein Bild #1?/mesh.glb"), Range=wanted)
    assert (found, body) == (status, bytes(part))
    if status == 206:
        assert headers["content-range"] == f"bytes {part[0]}-{part[-1]}/200"


@pytest.mark.parametrize("wanted", ["bytes=abc", "bytes=5-2", "bytes=-", "bytes=", "bytes", "lines=1-2", "bytes=²-"])
def test_malformed_ranges_are_400(results: Path, wanted: str) -> None:
    with serving(results) as server:
        assert ask(server, server.prefix + quote("ein Bild #1?/mesh.glb"), Range=wanted)[0] == 400
        assert ask(server, server.start)[0] == 200


def test_an_empty_file_is_served_whole(results: Path) -> None:
    (results / "empty.txt").touch()
    with serving(results) as server:
        assert ask(server, f"{server.prefix}empty.txt", Range="bytes=0-")[0] in (400, 416)  # it has no part
        assert ask(server, f"{server.prefix}empty.txt")[0] == 200


@pytest.mark.parametrize(
    "target",
    ["http://[::1", "http://[::1]x/", "//[", "/[", "/%zz", "/%", "http://", "*", "a\tb", "\xff", "[", "/" * 9000],
)
def test_malformed_targets_get_an_answer_and_no_traceback(
    results: Path, target: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(results) as server:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as line:
            line.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode("latin-1"))
            status = int(line.makefile("rb").readline().split()[1])
        assert status in (400, 404)
        assert ask(server, server.start)[0] == 200
    assert capfd.readouterr() == ("", "")


def test_it_is_for_reading_only(results: Path) -> None:
    with serving(results) as server:
        assert ask(server, server.start, "HEAD")[2] == b""
        assert int(ask(server, server.start, "HEAD")[1]["content-length"]) == 15
        for method in ("POST", "PUT", "DELETE"):
            assert ask(server, server.start, method)[0] == 405


@pytest.mark.parametrize(
    "place",
    [
        "../outside.txt", "%2e%2e/outside.txt", "sub/../../outside.txt", "..%2foutside.txt", "/etc/passwd",
        "%2fetc/passwd", ".env", ".hidden/a.txt", "sub/%2e%2e/.env", "leaving", "leaving-folder/outside.txt",
        "disguised.txt", "missing.html", "ein%20Bild%20%231%3F", "ein%20Bild%20%231%3F/", "%00", "index.html%00",
        "pipe", "a" * 5000,
    ],
)  # fmt: skip
def test_nothing_else_is_served(results: Path, place: str) -> None:
    (results / "leaving").symlink_to(results.parent / "outside.txt")
    (results / "leaving-folder").symlink_to(results.parent)
    (results / "disguised.txt").symlink_to(".env")
    os.mkfifo(results / "pipe")
    with serving(results) as server:
        status, _, body = ask(server, server.prefix + place)
        assert status == 404 and b"secret" not in body and b"root:" not in body


def test_links_within_the_folder_are_followed(results: Path) -> None:
    (results / "latest.html").symlink_to("index.html")
    with serving(results) as server:
        assert ask(server, f"{server.prefix}latest.html")[0] == 200


def test_who_does_not_know_the_address_sees_nothing(results: Path) -> None:
    with serving(results) as server, serving(results) as other:
        assert len(server.prefix) >= 14 and server.prefix != other.prefix
        for path in ("/", "/index.html", other.start, server.start.upper()):
            assert ask(server, path)[0] == 404
        assert ask(server, "/favicon.ico")[0] == 204  # browsers ask for it, and complain of an error
        assert ask(server, server.start, Host="evil.example")[0] == 421  # a name that was made to lead here
        assert ask(server, server.start, Host="localhost:80")[0] == 200


def test_a_reader_that_leaves_is_nothing_to_report(results: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (results / "large.bin").write_bytes(bytes(20_000_000))
    with serving(results) as server:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as line:
            line.sendall(f"GET {server.prefix}large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            line.recv(10)
        assert ask(server, server.start)[0] == 200
    assert capfd.readouterr() == ("", "")


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_opens_the_browser_and_ends_with_ctrl_c(results: Path, tmp_path: Path) -> None:
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f'#!/bin/sh\necho "$1" > "{opened}.partial"; mv "{opened}.partial" "{opened}"\n')
    browser.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-m", "recon_toolkit", "view", str(results)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "BROWSER": str(browser)},
        # A shell's background jobs, and so these tests there, ignore Ctrl-C, and their children after them.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        address = line.removeprefix("look at ").removesuffix(" (Ctrl-C ends this)\n")
        found = urlsplit(address)
        assert found.hostname == "127.0.0.1"
        connection = http.client.HTTPConnection("127.0.0.1", found.port or 0, timeout=PATIENCE)
        connection.request("GET", found.path)
        assert connection.getresponse().read() == b"<p>the page</p>"
        end = time.monotonic() + PATIENCE
        while not opened.exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        assert opened.read_text() == f"{address}\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, errors) == (0, "")


def test_a_port_that_is_taken_is_one_sentence(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        assert execute(["view", str(results), "--port", port, "--no-open"]) == 2
    assert capsys.readouterr().err == (
        f"error: --port {port}: another program uses this port (--port 0 takes a free one)\n"
    )


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="there always is one")
def test_without_a_screen_no_browser_takes_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    assert not has_browser()
    monkeypatch.setenv("DISPLAY", ":0")
    assert has_browser()


def test_it_starts_without_torch(results: Path) -> None:
    code = (
        "import sys\nfrom recon_toolkit.cli.app import execute\n"
        f"execute(['view', {str(results / 'missing')!r}])\nsys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, timeout=PATIENCE).returncode == 0


# -- in a browser ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(find_browser() is None, reason="needs Chromium")
def test_a_page_with_a_face_works_under_the_policy(results: Path, tmp_path: Path) -> None:
    from recon_toolkit.viewer import ViewerScene, viewer_document

    axis = torch.linspace(-1, 1, 17)
    radius = axis[None] ** 2 + axis[:, None] ** 2
    scene = ViewerScene(
        name="bump",
        depth=1 + 0.1 * radius,
        mask=radius < 0.9,
        camera=Camera(10.0),
        input=torch.rand(3, 17, 17),
        pictures={"photo": torch.rand(3, 17, 17)},
        downloads={"mesh.glb": "ein Bild #1?/mesh.glb"},
    )
    (results / "index.html").write_text(viewer_document("A bump", [scene]), encoding="utf-8")
    Image.fromarray(np.full((4, 4, 3), 200, np.uint8)).save(results / "sheet.png")
    (results / "plain.html").write_text('<!doctype html><title>plain</title><img src="sheet.png" alt="">')
    (results / "curious.html").write_text(
        "<!doctype html><title>curious</title><script>"
        "fetch('sub/index.html').then(r => r.text(), () => 'refused').then(t => { document.title = t; })</script>"
    )
    browser = Browser(find_browser() or "", tmp_path / "profile")
    try:
        browser.screen(1000, 800)
        with serving(results) as server:

            def load(place: str) -> None:
                browser.complaints, browser.events = [], []
                browser.send("Page.navigate", url=f"http://127.0.0.1:{server.port}{server.prefix}{place}")
                browser.wait(lambda: any(name == "Page.loadEventFired" for name, _ in browser.events), "the page")

            load("index.html")
            browser.wait("!document.querySelector('.rv-stage').hidden", "the viewer")
            browser.settle()
            assert browser.picture(".rv-canvas").std() > 5 and browser.complaints == []  # not one colour
            link = browser.evaluate("document.querySelector('a[download]').href")
            assert ask(server, urlsplit(link).path)[2] == bytes(range(200))
            load("plain.html")
            assert browser.evaluate("document.images[0].naturalWidth") == 4 and browser.complaints == []
            load("curious.html")  # a page from elsewhere cannot read what lies beside it
            browser.wait("document.title !== 'curious'", "the refusal")
            assert browser.evaluate("document.title") == "refused"
    finally:
        browser.close()

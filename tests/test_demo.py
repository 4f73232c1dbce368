"""The web demo over real connections: what it shows, what it refuses, and that it keeps nothing."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
import trimesh
from demo_requests import (
    BOUNDARY,
    HEAD,
    PATIENCE,
    ask,
    choose,
    form,
    load,
    picture,
    png_of,
    read,
    send,
    serving,
    submit,
)
from devtools import Browser, find_browser
from recon_demo import server as protocol
from recon_demo.limits import Limits
from recon_demo.server import listen, listens_to_this_machine_only, url_of

from recon_toolkit import Detection, Reconstructor
from recon_toolkit.assembly import build_model
from recon_toolkit.cli.app import execute
from recon_toolkit.config.pipeline import load_pipeline
from recon_toolkit.engine.checkpoint import Checkpoint, save_checkpoint
from recon_toolkit.errors import ReconError
from recon_toolkit.plugins import load_plugins


@pytest.fixture(scope="module")
def weights(tiny: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the tiny pipeline that has learned nothing."""
    resolved = load_pipeline(tiny, [], load_plugins())
    torch.manual_seed(0)
    tensors = {f"model.{name}": value for name, value in build_model(resolved).state_dict().items()}
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_checkpoint(path, Checkpoint(0, resolved.to_yaml(), resolved.fingerprint, tensors, {}))
    return path


@pytest.fixture(scope="module")
def reconstructor(weights: Path) -> Iterator[Reconstructor]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several would wait for one another on a busy machine
    yield Reconstructor.load(weights=weights)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def port(reconstructor: Reconstructor) -> Iterator[int]:
    with serving(reconstructor) as port:
        yield port


# -- what it shows -----------------------------------------------------------------------------------------------------


def test_the_form_needs_nothing_from_elsewhere(port: int) -> None:
    answer = ask(port)
    assert answer.status == 200 and answer.headers["content-type"] == "text/html; charset=utf-8"
    assert not re.search(r"https?://|<link|@import|\bsrc=", answer.text)
    for field in re.findall(r'<input type="file" id="(\w+)"', answer.text):
        assert f'<label for="{field}">' in answer.text
    assert 'capture="user"' in answer.text and "at most 15 MB" in answer.text
    (script,) = re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in answer.headers["content-security-policy"]


def test_every_answer_is_guarded(port: int) -> None:
    for answer in (ask(port), ask(port, path="/nothing"), send(port, picture())):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "base-uri 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_crop_becomes_a_page_with_its_face_and_mesh(port: int, kind: str) -> None:
    answer = send(port, picture(kind=kind))
    assert answer.status == 200 and answer.viewer.count('class="rv-result"') == 1
    assert len(answer.text) < 3e6  # the project's bar for the page of one face
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", answer.text)
    (mesh,) = re.findall(r'href="data:model/gltf-binary;base64,([^"]+)" download="face.glb"', answer.viewer)
    loaded = trimesh.load(io.BytesIO(base64.b64decode(mesh)), file_type="glb", force="mesh")
    assert len(loaded.faces) > 100


def test_a_picture_of_one_pixel_is_a_crop_as_well(port: int) -> None:
    assert send(port, picture(1, 1)).status == 200


def test_all_faces_are_shown_up_to_a_limit(reconstructor: Reconstructor) -> None:
    def three(image: np.ndarray) -> list[Detection]:
        return [Detection(20 * n, 5, 18, 18, 3.0 - n, "human") for n in range(3)]

    with serving(replace(reconstructor, detector=three), Limits(faces=2)) as port:
        answer = send(port, picture(), crop=False)
    assert answer.status == 200 and re.findall(r'data-name="(.*?)"', answer.viewer) == ["Object 1", "Object 2"]


def test_nothing_is_kept_and_no_name_is_written(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for data in (picture(), b"no picture"):
        assert "qzxw" not in send(port, data, name="qzxw.png").text
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


# -- what it refuses ---------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # pytest undoes that ours are off
@pytest.mark.parametrize(
    ("data", "crop", "status", "words"),
    [
        (None, True, 400, "No photo was chosen. Choose a photo below."),
        (b"", True, 400, "The file is empty. Choose a photo below."),
        (b"some words", True, 415, "Not an image that can be read. Use a PNG, JPEG,"),
        (b"\x89PNG\r\n\x1a\nwords", True, 415, "Not an image"),
        (picture(kind="JPEG")[:1500], True, 400, "Damaged or truncated"),
        (png_of(10_000, 10_000), True, 413, "10000×10000 pixels are more than the 80,000,000 that are read"),
        (picture(), False, 422, "No face was found. Take one in which a face is upright"),
        (picture(1, 1), False, 422, "No face was found"),
    ],
    ids=["none", "empty", "text", "broken PNG", "truncated JPEG", "100 megapixels", "no face", "one pixel"],
)
def test_a_wrong_picture_is_explained_on_the_form(
    port: int, data: bytes | None, crop: bool, status: int, words: str
) -> None:
    answer = send(port, data, crop=crop, name="photo.jpg")
    assert answer.status == status and answer.problem.startswith(words)
    assert '<form method="post"' in answer.text and "recon-demo-" not in answer.text  # no path of ours


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/x-www-form-urlencoded", b"photo=1", 415),
        ("multipart/form-data", b"", 415),
        (f"multipart/form-data; boundary={BOUNDARY}", b"no boundary", 400),
        (f"multipart/form-data; boundary={BOUNDARY}", form(picture())[:-200], 400),
        (f"multipart/form-data; boundary={BOUNDARY}", f"--{BOUNDARY}\r\nA: {'b' * 9000}\r\n\r\n".encode(), 400),
        (f"multipart/form-data; boundary={BOUNDARY}", (form(b"1") * 9).replace(b"--\r\n", b"\r\n"), 400),
    ],
    ids=["another form", "no boundary", "no parts", "cut off", "long header", "many parts"],
)
def test_a_wrong_form_is_refused(port: int, kind: str, body: bytes, status: int) -> None:
    answer = ask(port, "POST", "/", body, Content_Type=kind)
    assert answer.status == status and answer.problem


def test_other_addresses_and_methods(port: int) -> None:
    assert ask(port, path="/favicon.ico").status == 204  # browsers ask for it, and complain of an error
    assert ask(port, path="/photo").status == 404
    refused = ask(port, "DELETE")
    assert refused.status == 405 and refused.headers["allow"] == "GET, HEAD, POST"
    assert ask(port, "HEAD").text == "" and ask(port, "HEAD").status == 200


def test_a_large_upload_is_refused_while_it_streams(reconstructor: Reconstructor) -> None:
    limit, block = 300_000, b"x" * 50_000
    with (
        serving(reconstructor, Limits(upload_bytes=limit)) as port,
        socket.create_connection(("127.0.0.1", port), PATIENCE) as line,
    ):
        line.sendall(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
        start = form(block)[:10_000]  # ends within the picture
        line.sendall(f"{len(start):x}\r\n".encode() + start + b"\r\n")
        for _ in range(limit // len(block)):
            line.sendall(f"{len(block):x}\r\n".encode() + block + b"\r\n")
        answer = read(line)  # the body is not over: 10 kB beyond the limit have been sent
    assert answer.status == 413 and answer.problem.startswith("The file is larger than 0.3 MB")


def test_a_large_upload_is_refused_before_it_is_sent(reconstructor: Reconstructor) -> None:
    with (
        serving(reconstructor, Limits(upload_bytes=1000)) as port,
        socket.create_connection(("127.0.0.1", port), PATIENCE) as line,
    ):
        line.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
        assert read(line).status == 413


def test_a_refused_upload_is_taken_in_so_that_its_sender_sees_why(reconstructor: Reconstructor) -> None:
    with serving(reconstructor, Limits(upload_bytes=1000)) as port:
        assert send(port, bytes(20_000_000)).status == 413  # http.client reads only when all is sent
    with serving(reconstructor, Limits(upload_bytes=1000, unread_bytes=1000)) as port:
        with pytest.raises(OSError):  # there is an end to it
            send(port, bytes(20_000_000))
        assert ask(port).status == 200


def test_who_comes_while_all_places_are_taken_is_told_to_come_again(reconstructor: Reconstructor) -> None:
    body = form(picture())
    with (
        serving(reconstructor, Limits(places=1)) as port,
        socket.create_connection(("127.0.0.1", port), PATIENCE) as first,
    ):
        first.sendall(f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body[:100])
        for _ in range(100):  # until the first one's head has arrived
            second = send(port, picture())
            if second.status == 503:
                break
        assert second.status == 503 and int(second.headers["retry-after"]) > 0
        assert second.problem == "Others are waiting already. Try again in a moment."
        first.sendall(body[100:])
        assert read(first).status == 200
        assert send(port, picture()).status == 200


def test_one_who_leaves_gives_the_place_back(reconstructor: Reconstructor) -> None:
    with serving(reconstructor, Limits(places=1)) as port:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as line:
            line.sendall(f"{HEAD}Content-Length: 5000\r\n\r\n".encode() + form(picture())[:100])
        end = time.monotonic() + PATIENCE
        while send(port, picture()).status != 200:
            assert time.monotonic() < end


def test_half_open_connections_keep_nobody_out(port: int) -> None:
    with contextlib.ExitStack() as lines:
        for _ in range(2 * protocol.CONNECTIONS):
            line = lines.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
            line.sendall(b"GET / HTTP/1.1\r\nHost: loc")
        assert ask(port).status == 200 and send(port, picture()).status == 200


@pytest.mark.parametrize("head", [b"", b"GET / HTTP/1.1\r\nHost: loc", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_a_head_is_waited_for_so_long_and_an_upload_longer(
    reconstructor: Reconstructor, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.3)
    body = form(picture())
    with (
        serving(reconstructor) as port,
        socket.create_connection(("127.0.0.1", port), PATIENCE) as line,
        socket.create_connection(("127.0.0.1", port), PATIENCE) as upload,
    ):
        upload.sendall(f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body[:100])
        line.sendall(head)
        began = time.monotonic()
        with contextlib.suppress(ConnectionResetError):
            while line.recv(1 << 16):  # an answer, where it was a whole head; then the end
                pass
        assert time.monotonic() - began < 4  # uvicorn's own patience between requests is 5
        time.sleep(0.3)
        upload.sendall(body[100:])
        assert read(upload).status == 200


def test_a_head_that_comes_drop_by_drop_is_not_waited_for(
    reconstructor: Reconstructor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.3)
    with serving(reconstructor) as port, socket.create_connection(("127.0.0.1", port), PATIENCE) as line:
        end = time.monotonic() + PATIENCE
        with pytest.raises(OSError):  # it was closed
            while time.monotonic() < end:
                line.sendall(b"G")
                time.sleep(0.02)


def test_slow_uploads_and_long_work_come_to_an_end(reconstructor: Reconstructor) -> None:
    with (
        serving(reconstructor, Limits(upload_seconds=0.1)) as port,
        socket.create_connection(("127.0.0.1", port), PATIENCE) as line,
    ):
        line.sendall(f"{HEAD}Content-Length: 5000\r\n\r\n".encode())
        assert read(line).status == 408
    with serving(reconstructor, Limits(work_seconds=0.001)) as port:
        answer = send(port, picture())
        assert answer.status == 503 and answer.problem.startswith("This took too long")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "192.168.0.1", ""])
def test_another_name_for_this_machine_is_refused(port: int, host: str) -> None:
    assert ask(port, Host=host).status == 421


def test_own_names_are_taken_and_all_names_where_others_may_come(port: int, reconstructor: Reconstructor) -> None:
    for host in ("localhost", "localhost:1", f"127.0.0.1:{port}", "[::1]:8000"):
        assert ask(port, Host=host).status == 200
    with serving(reconstructor, loopback=False) as other:
        answer = ask(other, Host="machine.example")
        assert answer.status == 200 and "It is sent to this server" in answer.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec_Fetch_Site": "cross-site", "Origin": "http://evil.example"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:1", "Host": "localhost:1"}, 200),
        ({"Sec_Fetch_Site": "same-origin"}, 200),
    ],
)
def test_forms_of_other_sites_are_refused(port: int, headers: dict[str, str], status: int) -> None:
    assert send(port, picture(), **headers).status == status


def test_a_fault_is_reported_and_the_server_goes_on(
    reconstructor: Reconstructor, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(image: np.ndarray) -> list[Detection]:
        raise RuntimeError("out of order")

    with serving(replace(reconstructor, detector=broken)) as port:
        answer = send(port, picture(), crop=False)
        assert answer.status == 500 and answer.problem.startswith("The demo failed on this picture")
        assert send(port, picture()).status == 200
    assert capfd.readouterr().err == "error: RuntimeError: out of order\n"


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_serves_warns_and_ends_with_ctrl_c(weights: Path) -> None:
    command = [sys.executable, "-m", "recon_toolkit", "demo", "--weights", str(weights), "--device", "cpu"]
    command += ["--port", "0", "--host", "0.0.0.0", "--no-open"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()  # ends at the latest when the process does
        address = re.fullmatch(r"look at (http://localhost:\d+/) \(Ctrl-C ends this\)\n", line)
        assert address is not None
        assert ask(urlsplit(address[1]).port or 0).status == 200
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert re.fullmatch(r"warning: anyone who can reach port \d+ here can send pictures\n", errors)


def test_a_port_that_is_taken_is_one_sentence(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        assert execute(["demo", "--weights", str(weights), "--port", port, "--no-open"]) == 2
    expected = f"error: --port {port}: another program uses this port (--port 0 takes a free one)\n"
    assert capsys.readouterr() == ("", expected)


@pytest.mark.parametrize("host", ["203.0.113.1", "no such host"])  # the first is for documentation only
def test_a_host_that_is_not_this_machine(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["demo", "--host", host, "--port", "0", "--no-open"]) == 2
    assert f"error: --host {host}: " in capsys.readouterr().err


def test_addresses_and_limits() -> None:
    with listen("0.0.0.0", 0) as everywhere, listen("localhost", 0) as here:
        assert not listens_to_this_machine_only(everywhere) and listens_to_this_machine_only(here)
        assert url_of(everywhere) == f"http://localhost:{everywhere.getsockname()[1]}/"
    with pytest.raises(ReconError, match="faces of the demo is 0"):
        Limits(faces=0)


# -- in a browser ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(find_browser() is None, reason="needs Chromium")
def test_a_photo_goes_through_the_page(port: int, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.jpg"
    good.write_bytes(picture())
    bad.write_text("no picture")
    browser = Browser(find_browser() or "", tmp_path / "profile")
    try:
        browser.screen(390, 800, touch=True)
        load(browser, f"http://127.0.0.1:{port}/")
        assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing sticks out
        assert browser.evaluate("getComputedStyle(document.querySelector('.camera')).display") == "block"
        browser.screen(1000, 800)
        browser.click("button[type=submit]")
        assert browser.evaluate("document.getElementById('status').textContent") == "Choose a photo first."
        assert browser.evaluate("document.activeElement.id") == "photo"
        assert browser.complaints == []

        browser.evaluate(DROP)
        assert browser.evaluate("[photo.files.length, photo.files[0].name]") == [1, "dropped.png"]
        choose(browser, bad)
        submit(browser)
        assert "Not an image" in browser.evaluate("document.querySelector('[role=alert]').textContent")
        (complaint,) = browser.complaints  # the browser logs every status from 400
        assert "415" in complaint

        load(browser, f"http://127.0.0.1:{port}/")
        choose(browser, good)
        browser.wait("!document.getElementById('preview').hidden", "the preview")
        browser.press("Tab")  # from the photo to the box: the camera is for phones
        browser.press(" ")
        assert browser.evaluate("document.querySelector('[name=crop]').checked")
        submit(browser)
        inside = "document.querySelector('iframe').contentDocument"
        browser.wait(f"!{inside}.querySelector('.rv-stage').hidden", "the viewer")
        browser.settle()
        browser.evaluate(f"{inside}.querySelector('.rv-canvas').scrollIntoView()")
        assert browser.picture("iframe").reshape(-1, 3).std(axis=0).min() > 20  # something is drawn
        assert browser.complaints == []
        browser.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=os.fspath(tmp_path / "saved"))
        browser.click("#save")
        saved = tmp_path / "saved" / "faces.html"
        browser.wait(lambda: saved.exists() and saved.stat().st_size, "the saved page")
        assert saved.read_text(encoding="utf-8") == browser.evaluate("document.querySelector('iframe').srcdoc")
        assert {urlsplit(address).netloc for address in browser.requests if address.startswith("http")} == {
            f"127.0.0.1:{port}"
        }
    finally:
        browser.close()


#: Two files let go over the page's heading.
DROP = """(() => {
  const dropped = new DataTransfer();
  for (const name of ["dropped.png", "another.png"]) dropped.items.add(new File(["a"], name, { type: "image/png" }));
  const event = new DragEvent("drop", { dataTransfer: dropped, bubbles: true, cancelable: true });
  document.querySelector("h1").dispatchEvent(event);
})()"""

"""The page to look at faces in a real browser: what is drawn, turned, lit and saved, and what people are told."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from devtools import Browser, find_browser
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from viewer_scenes import CAMERA, HALF, HOSTILE, LIGHT, SIZE, TOP, VIEW, hill, scene, spotted

from recon_toolkit.geometry import normals_from_depth, shade, transform
from recon_toolkit.io.maps import normals_picture
from recon_toolkit.viewer import ViewerScene, viewer_document, viewer_part

PROGRAM = find_browser()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium or Chrome on the PATH, as chromium or the like")

CANVAS = ".rv-canvas"
FRONT_ZOOM = 0.9
DEGREE = math.pi / 180
#: Pixels of the hill, away from its border, to compare with the geometry of Python.
PLACES = [(v, u) for v in range(6, 60, 9) for u in range(6, 60, 9)]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PROGRAM is not None
    found = Browser(PROGRAM, tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Callable[..., Browser]:
    """Opens a page of scenes and waits for its picture."""

    def open_page(*scenes: ViewerScene, page: str | None = None, width: int = 800, **screen: object) -> Browser:
        path = tmp_path / "a page.html"
        path.write_text(page or viewer_document("Hills", scenes), encoding="utf-8")
        browser.screen(width, 480, **screen)  # type: ignore[arg-type]
        browser.open(path)
        browser.wait("document.querySelector('.rv').dataset.state === 'ready'", "the viewer")
        browser.settle()
        assert browser.complaints == []
        assert browser.requests == [path.as_uri()]
        return browser

    return open_page


def press(browser: Browser, key: str, times: int = 1) -> None:
    browser.evaluate(f"document.querySelector('{CANVAS}').focus()")
    browser.press(key, times=times)
    browser.settle()


def seen(browser: Browser) -> NDArray[np.uint8]:
    """The canvas without the mark of the focus."""
    browser.evaluate("document.activeElement.blur()")
    return browser.picture(CANVAS)


def spot(browser: Browser) -> tuple[float, float]:
    """Middle of the red spot on the canvas: to the right and down from its middle, in halves of its side."""
    picture = browser.picture(CANVAS).astype(float)
    red = (picture[..., 0] > 1.5 * picture[..., 2]) & (picture[..., 0] > 60)
    assert red.sum() > 20
    v, u = np.nonzero(red)
    half = picture.shape[1] / 2
    return (u.mean() + 0.5) / half - 1, (v.mean() + 0.5) / half - 1


def place(view: Tensor, zoom: float = FRONT_ZOOM) -> tuple[float, float]:
    """Where the hill's top has to be, by the toolkit's geometry."""
    depth = 1.04 - 0.09
    top = torch.tensor([TOP[0] * HALF * depth, TOP[1] * HALF * depth, depth])[None, :, None]
    x, y, z = transform(top, view[None])[0, :, 0].tolist()
    return x / z / HALF * zoom, y / z / HALF * zoom


def turned(yaw: float, pitch: float = 0.0) -> Tensor:
    return torch.tensor([pitch * DEGREE, yaw * DEGREE, 0, 0, 0, 0])


def close(found: tuple[float, float], expected: tuple[float, float]) -> bool:
    """Within 1.5 % of the canvas: the middle of a slanted, curved spot is not quite where its centre is."""
    return all(abs(a - b) < 0.03 for a, b in zip(found, expected, strict=True))


def colours(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Colours (N, 3) in [0, 1] of a front view of the canvas at PLACES, between the pixels of the screen."""
    side = picture.shape[1]
    found = []
    for row, column in PLACES:
        x, y = (((2 * i / (SIZE - 1) - 1) * FRONT_ZOOM + 1) / 2 * side - 0.5 for i in (column, row))
        u, v = int(x), int(y)
        weights = np.outer((1 - (y - v), y - v), (1 - (x - u), x - u))
        found.append((picture[v : v + 2, u : u + 2] * weights[..., None]).sum((0, 1)) / 255)
    return np.array(found)


def shading(light: Tensor) -> NDArray[np.float64]:
    """The shading at PLACES by the toolkit's geometry."""
    normals = normals_from_depth(hill()[None], CAMERA)
    values = shade(torch.ones(1, 3, SIZE, SIZE), normals, light[None])[1][0, 0]
    return np.array([float(values[at]) for at in PLACES])


#: Half a step of 8 bits on the screen, another for the light's slider or interpolation, and one for slopes: the
#: depth's 16 bits tilt a normal by up to 4e-4.
TOLERANCE = 2 / 255


def test_it_draws_what_the_geometry_says(show: Callable[..., Browser]) -> None:
    browser = show(scene())
    pictures = {}
    for key, mode in enumerate(("photo", "albedo", "shading", "normals", "depth", "wireframe"), start=1):
        press(browser, str(key))
        assert browser.evaluate("document.querySelector('.rv-modes :checked').value") == mode
        pictures[mode] = seen(browser)
    assert np.abs(colours(pictures["shading"]) - shading(LIGHT)[:, None]).max() < TOLERANCE
    expected = normals_picture(normals_from_depth(hill()[None], CAMERA))[0]
    truth = np.array([expected[:, v, u].tolist() for v, u in PLACES])
    assert np.abs(colours(pictures["normals"]) - truth).max() < TOLERANCE
    assert np.abs(colours(pictures["albedo"]) - 0.6 * shading(LIGHT)[:, None]).max() < TOLERANCE
    nearness = colours(pictures["depth"])[:, 0]
    # Bright is near; contour lines darken a few pixels.
    assert np.corrcoef(nearness, [-float(hill()[at]) for at in PLACES])[0, 1] > 0.97
    for one in pictures:
        for other in pictures:
            assert one == other or np.abs(pictures[one].astype(int) - pictures[other]).mean() > 3
    browser.evaluate("document.querySelector('[value=albedo]').click(); document.querySelector('[name=lit]').click()")
    browser.settle()
    assert np.abs(colours(seen(browser)) - 0.6).max() < TOLERANCE  # the albedo itself


def test_keys_and_buttons_turn_it_the_right_way(show: Callable[..., Browser]) -> None:
    browser = show(scene())
    front = seen(browser)
    assert close(spot(browser), place(turned(0)))
    press(browser, "ArrowRight", 6)
    assert place(turned(-30))[0] > place(turned(0))[0] + 0.15  # the near side goes right
    assert close(spot(browser), place(turned(-30)))
    press(browser, "ArrowLeft", 10)
    press(browser, "ArrowDown", 4)
    assert close(spot(browser), place(turned(20, 20)))
    browser.wait("document.querySelector('.rv-status').textContent.includes('20° to the left and 20° down')", "words")
    press(browser, "+", 2)
    assert close(spot(browser), place(turned(20, 20), FRONT_ZOOM * 1.15**2))
    press(browser, "0")
    assert np.array_equal(seen(browser), front)
    browser.click("[data-do=photographed]")
    browser.settle()
    assert close(spot(browser), place(VIEW, 1.0))
    browser.click(CANVAS, clicks=2)
    browser.settle()
    assert np.array_equal(seen(browser), front)


def test_mouse_and_fingers_turn_it_and_zoom(show: Callable[..., Browser]) -> None:
    browser = show(scene())
    x, y, side, _ = browser.box(CANVAS)
    x, y = x + side / 2, y + side / 2
    browser.drag(CANVAS, (side / 9, -side / 18))  # half a turn is the whole side
    browser.settle()
    assert close(spot(browser), place(turned(-20, -10)))
    assert browser.evaluate(f"document.activeElement.matches('{CANVAS}')")
    browser.mouse("Wheel", x, y, deltaX=0, deltaY=-100)
    browser.wait("!window.scrollY", "no scrolling")
    browser.settle()
    assert close(spot(browser), place(turned(-20, -10), FRONT_ZOOM * math.exp(0.2)))

    browser = show(scene(), touch=True)
    x, y, side, _ = browser.box(CANVAS)
    x, y = x + side / 2, y + side / 2
    browser.touch("Start", (x, y))
    browser.touch("Move", (x - side / 9, y))
    browser.touch("End")
    browser.settle()
    assert close(spot(browser), place(turned(20)))
    browser.touch("Start", (x - 40, y), (x + 40, y))
    browser.touch("Move", (x - 50, y), (x + 50, y))
    browser.touch("End")
    browser.settle()
    assert close(spot(browser), place(turned(20), FRONT_ZOOM * 100 / 80))


def test_the_light_moves(show: Callable[..., Browser]) -> None:
    browser = show(scene(pictures={"photo": torch.full((3, 32, 32), 0.3)}))
    before = seen(browser)
    assert np.abs(colours(before) - 0.3).max() < TOLERANCE  # under the predicted light, the photograph itself
    browser.evaluate("document.querySelector('[name=right]').focus()")
    browser.press("Home")  # fully from the left
    browser.settle()
    up = math.asin(float(LIGHT[3]))
    light = torch.tensor([0.35, 0.55, math.cos(up), math.sin(up), 0.0])
    after = colours(seen(browser))
    expected = 0.3 * np.clip(shading(light) / shading(LIGHT), 0, 4)
    assert np.abs(after - expected[:, None]).max() < TOLERANCE
    gain = dict(zip(PLACES, after[:, 0] / colours(before)[:, 0], strict=True))
    assert gain[24, 24] > gain[24, 51] + 0.05  # left and right flank of the hill, whose top is at column 39
    browser.click("[data-do=relight]")
    browser.settle()
    assert np.array_equal(seen(browser), before)
    x, y, side, _ = browser.box(".rv-ball")
    browser.mouse("Pressed", x + side * 0.95, y + side / 2, held=True)
    browser.mouse("Released", x + side * 0.95, y + side / 2)
    browser.settle()
    assert int(browser.evaluate("document.querySelector('[name=right]').value")) > 50
    browser.press("3")  # not the canvas's: the ball does not take the focus from where it was
    assert browser.evaluate("document.querySelector('.rv-modes :checked').value") == "photo"


def test_several_faces_take_turns(show: Callable[..., Browser]) -> None:
    bare = scene("bare", pictures={"albedo": spotted()}, light=None, view=None, reconstruction=None, downloads={})
    browser = show(scene("first"), bare, scene(HOSTILE))
    first = seen(browser)
    assert browser.evaluate("[...document.querySelectorAll('.rv-strip span')].map((e) => e.textContent)") == [
        "first",
        "bare",
        HOSTILE,
    ]
    browser.click(".rv-strip label:nth-child(2)")
    browser.wait(f"document.querySelector('{CANVAS}').ariaLabel === '3D view of bare'", "the second face")
    browser.settle()
    assert browser.evaluate("document.querySelector('.rv-modes :checked').value") == "albedo"
    assert browser.evaluate("document.querySelector('.rv-modes [value=photo]').disabled")
    assert browser.evaluate("[...document.querySelectorAll('.rv-result')].map((e) => e.hidden)") == [True, False, True]
    press(browser, "1")  # there is no photo to show
    assert browser.evaluate("document.querySelector('.rv-modes :checked').value") == "albedo"
    browser.evaluate("document.querySelectorAll('.rv-strip input')[1].focus()")
    browser.press("ArrowRight")
    browser.wait(f"document.querySelector('{CANVAS}').ariaLabel.includes('</script>')", "the third face")
    press(browser, "1")
    assert np.array_equal(seen(browser), first)
    assert browser.evaluate("typeof hacked") == "undefined"
    assert browser.complaints == []


def test_files_are_saved(show: Callable[..., Browser], tmp_path: Path) -> None:
    browser = show(scene("a/../b <i>"))
    browser.save_to(tmp_path / "saved")
    browser.click(".rv-files a")
    mesh = tmp_path / "saved" / "mesh.glb"
    browser.wait(mesh.exists, "the mesh")
    assert mesh.read_bytes() == bytes(range(256)) * 5
    browser.click("[data-do=save]")
    picture = tmp_path / "saved" / "a-b-i-photo.png"
    browser.wait(picture.exists, "the picture")
    saved = Image.open(io.BytesIO(picture.read_bytes()))
    shown = seen(browser)
    assert saved.size == shown.shape[1::-1] and saved.getpixel((2, 2)) == (0, 0, 0, 0)
    middle = slice(saved.width // 4, -saved.width // 4)
    difference = np.asarray(saved.convert("RGB")).astype(int) - shown
    assert np.abs(difference[middle, middle]).max() == 0


#: Notes every rotation that is drawn, at the border between the page and the browser.
WATCH = """
window.rotations = [];
const original = WebGL2RenderingContext.prototype.uniformMatrix3fv;
WebGL2RenderingContext.prototype.uniformMatrix3fv = function (place, transpose, values) {
  window.rotations.push([...values]);
  return original.call(this, place, transpose, values);
};
"""


def test_it_moves_only_for_those_who_want_it(show: Callable[..., Browser], browser: Browser) -> None:
    def yaws() -> list[float]:
        """Angles of the pictures drawn since the last call, in degrees to the left; rows of R are columns here."""
        return [math.degrees(math.atan2(r[6], r[0])) for r in browser.evaluate("rotations.splice(0)")]

    def moves(what: str) -> None:
        drawn: list[float] = []

        def far() -> bool:
            drawn.extend(yaws())
            return max(drawn, default=0) - min(drawn, default=0) > 10

        browser.wait(far, what)

    def rests() -> bool:
        browser.settle()
        yaws()
        browser.settle()
        return not yaws()

    added = browser.send("Page.addScriptToEvaluateOnNewDocument", source=WATCH)["identifier"]
    try:
        show(scene(), still=False)
        moves("the greeting")
        press(browser, "ArrowUp")
        assert rests()  # it stops when somebody takes hold
        pressed = "document.querySelector('[data-do=turn]').ariaPressed"
        browser.click("[data-do=turn]")
        assert browser.evaluate(pressed) == "true"
        moves("the turning")
        browser.drag(CANVAS, (5, 0))
        assert browser.evaluate(pressed) == "false" and rests()
        browser.click("[data-do=front]")
        browser.wait(rests, "the end of gliding back")
        show(scene(), still=True)
        assert {round(yaw) for yaw in yaws()} == {0} and rests()
    finally:
        browser.send("Page.removeScriptToEvaluateOnNewDocument", identifier=added)


def test_a_lost_context_comes_back(show: Callable[..., Browser]) -> None:
    browser = show(scene())
    press(browser, "ArrowLeft", 3)
    before = seen(browser)
    context = f"document.querySelector('{CANVAS}').getContext('webgl2')"
    browser.evaluate(f"(window.taken = {context}.getExtension('WEBGL_lose_context')).loseContext()")
    browser.wait("!document.querySelector('.rv-stage .rv-message').hidden", "the message")
    press(browser, "3")  # nothing breaks meanwhile
    press(browser, "1")
    browser.evaluate("taken.restoreContext()")
    browser.wait("document.querySelector('.rv-stage .rv-message').hidden", "the picture to come back")
    browser.settle()
    assert np.array_equal(seen(browser), before)
    assert not any("exception" in text.lower() for text in browser.complaints)


def test_without_webgl_there_are_still_pictures(show: Callable[..., Browser], browser: Browser) -> None:
    script = "HTMLCanvasElement.prototype.getContext = () => null"
    added = browser.send("Page.addScriptToEvaluateOnNewDocument", source=script)["identifier"]
    try:
        show(scene("one"), scene("two"))
        assert "cannot draw in 3D" in browser.evaluate("document.querySelector('.rv-stage .rv-message').textContent")
        shown = "[...document.querySelectorAll('.rv-result:not([hidden]) img')].filter((e) => e.naturalWidth).length"
        assert browser.evaluate(shown) == 5  # input, reconstruction, depth, photo, albedo
        browser.click(".rv-strip label:nth-child(2)")
        browser.wait("document.querySelector('.rv-result').hidden", "the second face")
        browser.wait(f"{shown} === 5", "its pictures")
        assert browser.complaints == []
    finally:
        browser.send("Page.removeScriptToEvaluateOnNewDocument", identifier=added)


def test_without_scripts_all_faces_stand_below_each_other(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(viewer_document("Hills", [scene("one"), scene("two")]), encoding="utf-8")
    browser.screen(1300, 800)
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(tmp_path / "page.html")
        boxes = "[...document.querySelectorAll('.rv-result')].map((e) => e.getBoundingClientRect())"
        (top, height), (second, _) = browser.evaluate(f"{boxes}.map((b) => [b.top, b.height])")
        assert height > 80 and second >= top + height
        assert "JavaScript" in browser.evaluate("document.body.innerText")
    finally:
        browser.send("Emulation.setScriptExecutionDisabled", value=False)


def test_it_fits_small_and_dense_screens_and_dark_rooms(show: Callable[..., Browser]) -> None:
    faces = [scene(f"a rather long name of a face {number}") for number in range(6)]
    browser = show(*faces, width=360, density=2.0, touch=True)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 360
    width, height = browser.evaluate(
        f"(() => {{ const c = document.querySelector('{CANVAS}'); return [c.width, c.clientWidth] }})()"
    )
    assert width == 2 * height
    small = "[...document.querySelectorAll('.rv button, .rv-modes label')].filter((e) => e.offsetHeight < 44).length"
    assert browser.evaluate(small) == 0  # large enough for fingers
    light = browser.picture().mean()
    browser.screen(360, 800, density=2.0, touch=True, dark=True)
    browser.settle()
    assert browser.picture().mean() < light - 60


def test_everything_has_a_name_for_screen_readers(show: Callable[..., Browser]) -> None:
    browser = show(scene("Ada"), scene("Bea"))
    browser.wait("document.querySelector('.rv-status').textContent", "the words")
    nodes = [n for n in browser.send("Accessibility.getFullAXTree")["nodes"] if not n["ignored"]]
    named = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes]
    controls = [(role, name) for role, name in named if role in ("button", "radio", "slider", "checkbox", "link")]
    assert len(controls) >= 6 + 4 + 7 + 2 and [role for role, name in controls if not name] == []
    assert ("slider", "Ambient") in named
    assert ("radio", "Bea") in named and ("radio", "Wireframe") in named
    assert any(name.startswith("3D view of Ada") for _, name in named)
    assert browser.evaluate("document.querySelector('.rv-status').role || 'status'") == "status"
    assert "Photo, from the front" in browser.evaluate("document.querySelector('.rv-status').textContent")
    browser.press("Tab")
    assert browser.evaluate("document.activeElement.matches('.rv-strip :checked')")
    browser.press("Tab")
    assert browser.evaluate(f"document.activeElement.matches('{CANVAS}:focus-visible')")


def test_parts_share_a_page(show: Callable[..., Browser]) -> None:
    parts = (viewer_part([scene("one")]), viewer_part([scene("two"), scene("three")]))
    page = f"<!doctype html><title>Run</title>{parts[0]}{parts[1]}"
    browser = show(page=page)
    browser.wait("[...document.querySelectorAll('.rv')].every((e) => e.dataset.state === 'ready')", "both parts")
    assert browser.evaluate("document.querySelectorAll('.rv-modes :checked').length") == 2  # groups of their own
    browser.wait(lambda: close(spot(browser), place(turned(0))), "the first picture")
    x, y, side, _ = browser.box(CANVAS)
    browser.mouse("Wheel", x + side / 2, y + side / 2, deltaX=0, deltaY=50)
    browser.wait("window.scrollY > 0", "the page to scroll, because nobody has taken hold of the view")

"""The page to look at shapes in a real browser: what is drawn, turned, lit and told."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from devtools import Browser, find_browser
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from viewer_scenes import CORNERS, HOSTILE, MARKS, SIDES, scene, shape, sphere

from recon_toolkit.geometry.orthographic import camera_rotation, looking_from
from recon_toolkit.viewer import Scene, viewer_document
from recon_toolkit.viewer.payload import framing

Floats = NDArray[np.float64]

PROGRAM = find_browser()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium or Chrome on the PATH, as chromium or the like")

CANVAS = ".rv-canvas"
CONTROLS = ".rv-controls:not([hidden])"
BACKGROUND = (255, 0, 255)
HOME, ZOOM, FOV = (30.0, 20.0), 0.9, 30.0


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PROGRAM is not None
    found = Browser(PROGRAM, tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Callable[..., Browser]:
    """Opens a page of scenes, waits for its picture, and lays it before a colour that no shape has."""

    def open_page(*scenes: Scene, width: int = 800, **screen: Any) -> Browser:
        path = tmp_path / "page.html"
        path.write_text(viewer_document("Shapes", scenes), encoding="utf-8")
        browser.screen(width, 480, **screen)
        browser.open(path)
        browser.wait("document.querySelector('.rv').dataset.state === 'ready'", "the viewer")
        browser.evaluate(f"document.querySelector('{CANVAS}').style.background = 'rgb{BACKGROUND}'")
        browser.settle()
        assert browser.complaints == [] and browser.requests == [path.as_uri()]
        return browser

    return open_page


def press(browser: Browser, key: str, times: int = 1) -> None:
    browser.evaluate(f"document.querySelector('{CANVAS}').focus()")
    browser.press(key, times=times)
    browser.settle()


def slide(browser: Browser, size: float) -> None:
    browser.evaluate(
        f"(() => {{ const s = document.querySelector('{CONTROLS} [name=size]'); s.value = {size}; "
        "s.dispatchEvent(new Event('input')); })()"
    )
    browser.settle()


def seen(browser: Browser) -> NDArray[np.int64]:
    browser.evaluate("document.activeElement.blur()")
    return np.asarray(browser.picture(CANVAS), dtype=np.int64)


def drawn(picture: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where the shape is, away from the canvas's round corners."""
    mask: NDArray[np.bool_] = np.abs(picture - BACKGROUND).max(-1) > 60
    edge = len(mask) // 20
    mask[:edge] = mask[-edge:] = mask[:, :edge] = mask[:, -edge:] = False
    return mask


def projected(
    points: Floats, azimuth: float, elevation: float, zoom: float = ZOOM, of: tuple[Floats, float] | None = None
) -> Floats:
    """Where points have to be on the canvas by the toolkit's viewpoints: (N, 2), right and down, in half sides."""
    view = looking_from(*(torch.tensor(math.radians(angle), dtype=torch.float64) for angle in (azimuth, elevation)))
    centre, radius = of or framing(np.concatenate((MARKS, CORNERS)))
    half = math.radians(FOV) / 2
    turned = (points - centre) / radius * math.sin(half) @ camera_rotation(view).numpy().T
    return np.asarray(turned[:, :2] / (1 + turned[:, 2:]) / math.tan(half) * zoom)


def marks(browser: Browser) -> Floats:
    """Middles of the three marks on the canvas, from the lowest to the highest, as of :func:`projected`."""
    picture = seen(browser)
    labels, count = ndimage.label(drawn(picture))
    assert count == 3
    found = []
    for label in (1, 2, 3):
        _, green, blue = picture[labels == label].mean(0)
        v, u = np.nonzero(labels == label)
        found.append((green / blue, (u.mean() + 0.5) / len(picture) * 2 - 1, (v.mean() + 0.5) / len(picture) * 2 - 1))
    return np.array(sorted(found))[:, 1:]  # purple, green and yellow: more green than blue the higher


#: In half sides of the canvas, about 170 pixels: most of a pixel, because discs of 9 pixels have ragged rims, and a
#: disc's middle is that of its pixels.
NEAR = 0.004


def test_points_are_where_the_viewpoints_say(show: Callable[..., Browser]) -> None:
    cloud = shape(vertices=None, faces=None)
    of = framing(MARKS)
    browser = show(cloud)
    slide(browser, 16)

    def check(azimuth: float, elevation: float, zoom: float = ZOOM) -> None:
        expected = projected(MARKS, azimuth, elevation, zoom, of)
        assert np.abs(marks(browser) - expected).max() < NEAR

    check(*HOME)
    right, high = projected(MARKS, *HOME, of=of)[[0, 2]]
    mirrored = projected(MARKS * (-1, 1, 1), *HOME, of=of)
    assert (
        high[1] < right[1] and np.abs(mirrored - projected(MARKS, *HOME, of=of)).max() > 0.3
    )  # a mirror would be seen
    press(browser, "ArrowLeft", 10)
    check(80, 20)
    press(browser, "ArrowLeft", 20)
    check(180, 20)
    press(browser, "ArrowUp", 12)
    check(180, -40)
    press(browser, "ArrowDown", 40)  # as far as straight above, not over the top
    check(180, 90)
    browser.wait(
        "document.querySelector('.rv-status').textContent === 'Points, from straight above, zoom 100%'", "words"
    )
    for action, view in (("front", (0, 0)), ("side", (90, 0)), ("above", (0, 90)), ("home", HOME)):
        browser.click(f"{CONTROLS} [data-do={action}]")
        browser.settle()
        check(*view)
    x, y, side, _ = browser.box(CANVAS)
    browser.drag(CANVAS, (-side / 4, side / 18))  # half a turn is the whole side
    browser.settle()
    check(75, 30)
    browser.wait("document.querySelector('.rv-status').textContent.includes('75° to the right and 30° above')", "words")
    browser.mouse("Wheel", x + side / 2, y + side / 2, deltaX=0, deltaY=50)
    browser.settle()
    check(75, 30, ZOOM * math.exp(-0.1))
    press(browser, "0")
    check(*HOME)
    browser = show(cloud, touch=True)
    slide(browser, 16)
    x, y, side, _ = browser.box(CANVAS)
    browser.touch("Start", (x + side / 2, y + side / 2))
    browser.touch("Move", (x + side / 4, y + side / 2))
    browser.touch("End")
    browser.settle()
    check(75, 20)


def test_the_surface_has_the_outline_of_the_mesh(show: Callable[..., Browser]) -> None:
    browser = show(shape())
    press(browser, "2")
    for times in (0, 23):
        press(browser, "ArrowRight", times)
        found = drawn(seen(browser))
        places = (projected(CORNERS, HOME[0] - 5 * times, HOME[1]) + 1) / 2 * len(found) - 0.5
        picture = Image.new("1", found.shape[::-1])
        for face in SIDES:
            ImageDraw.Draw(picture).polygon([tuple(place) for place in places[face]], fill=1)
        truth = np.asarray(picture)
        rim = truth & ~ndimage.binary_erosion(truth)  # half a pixel of difference along the outline, and as much again
        assert (found ^ truth).sum() < rim.sum()


def test_a_smooth_surface_is_lit_as_its_true_normals(show: Callable[..., Browser]) -> None:
    """Of a ball, points have the normals of a formula and the mesh has those that the page computes."""
    cloud, ball = sphere(50_000), trimesh.creation.icosphere(4, 0.5)
    browser = show(shape(points=cloud, normals=cloud, vertices=ball.vertices, faces=ball.faces))
    slide(browser, 6)  # they just cover the ball
    points = seen(browser)
    press(browser, "2")
    surface = seen(browser)
    inside = ndimage.binary_erosion(drawn(points) & drawn(surface), iterations=8)
    assert inside.mean() > 0.4
    difference = np.abs(points - surface)[inside]
    # Discs show the light of their middles, up to 1.7 of the ball's 150 pixels away; 8 pixels inside the outline that
    # is 2° of the normal, and light and outline together change by 1.2 of 220 steps in a radian; 3 for bytes.
    assert difference.mean() < 2 and difference.max() < 12
    upper, lower = (surface[rows][inside[rows]].mean() for rows in (slice(0, 170), slice(170, None)))
    assert upper > lower + 20  # light from above
    # Edges stay edges where faces share their corners: each side of a box has one light.
    box = trimesh.creation.box((0.6, 0.5, 0.7))
    browser = show(shape(vertices=box.vertices, faces=box.faces))
    press(browser, "2")
    flat = seen(browser)
    steps = np.abs(np.diff(flat.mean(-1), axis=1))[ndimage.binary_erosion(drawn(flat), iterations=3)[:, 1:]]
    assert np.quantile(steps, 0.97) < 2 and steps.max() > 15  # even sides, and an edge between them


def test_what_there_is_can_be_chosen(show: Callable[..., Browser]) -> None:
    browser = show(shape(), shape("cloud", vertices=None, faces=None), shape("solid", points=np.zeros((0, 3))))
    shown = f"[...document.querySelectorAll('{CONTROLS} .rv-modes label:not([hidden])')].map((e) => e.textContent)"
    mode = f"document.querySelector('{CONTROLS} .rv-modes :checked').value"
    sized = f"!document.querySelector('{CONTROLS} .rv-points').hidden"
    assert browser.evaluate(shown) == ["Points", "Surface", "Both"] and browser.evaluate(mode) == "points"
    points = seen(browser)
    slide(browser, 3)
    assert drawn(seen(browser)).sum() < drawn(points).sum() / 4
    press(browser, "3")
    both = seen(browser)
    press(browser, "2")
    surface = seen(browser)
    assert not browser.evaluate(sized) and drawn(both).sum() >= drawn(surface).sum() > 5 * drawn(points).sum()
    orange = (both[..., 0] > both[..., 2] + 80) & drawn(both)
    assert orange.any() and not ((surface[..., 0] > surface[..., 2] + 80) & drawn(surface)).any()
    browser.click(".rv-strip label:nth-child(2)")
    browser.wait(f"document.querySelector('{CANVAS}').ariaLabel === '3D view of cloud'", "the cloud")
    assert browser.evaluate(shown) == ["Points"] and browser.evaluate(mode) == "points" and browser.evaluate(sized)
    press(browser, "2")
    assert browser.evaluate(mode) == "points"
    browser.click(".rv-strip label:nth-child(3)")
    browser.wait(f"document.querySelector('{CANVAS}').ariaLabel === '3D view of solid'", "the solid")
    browser.settle()
    assert browser.evaluate(shown) == ["Surface"] and drawn(seen(browser)).sum() > 1000
    assert browser.complaints == []


def test_both_kinds_share_a_page(show: Callable[..., Browser]) -> None:
    browser = show(scene("hill"), scene("hill"))
    alone = seen(browser)
    browser = show(shape(HOSTILE), scene("hill"))
    kinds = "[...document.querySelectorAll('.rv-controls')].filter((e) => !e.hidden).map((e) => e.dataset.kind)"
    assert browser.evaluate(kinds) == ["shape"]
    assert browser.evaluate("[...document.querySelectorAll('.rv-ball, [name=lit]')].every((e) => !e.offsetHeight)")
    first = seen(browser)
    press(browser, "ArrowLeft", 3)
    browser.click(".rv-strip label:nth-child(2)")
    browser.wait(f"document.querySelector('{CANVAS}').ariaLabel === '3D view of hill'", "the hill")
    browser.settle()
    assert browser.evaluate(kinds) == ["grid"] and np.array_equal(seen(browser), alone)
    press(browser, "2")
    described = f"document.querySelector('{CANVAS}').getAttribute('aria-describedby').split(' ')"
    texts = browser.evaluate(f"{described}.map((id) => document.getElementById(id).textContent)")
    assert "1 to 6" in texts[1]
    browser.click(".rv-strip label:nth-child(1)")
    browser.wait(f"document.querySelector('{CANVAS}').ariaLabel.includes('</script>')", "the shape")
    browser.settle()
    assert np.array_equal(seen(browser), first)  # from its own first view
    assert "1 to 3" in browser.evaluate(f"{described}.map((id) => document.getElementById(id).textContent)")[1]
    context = f"document.querySelector('{CANVAS}').getContext('webgl2')"
    browser.evaluate(f"(window.taken = {context}.getExtension('WEBGL_lose_context')).loseContext()")
    browser.wait("!document.querySelector('.rv-stage .rv-message').hidden", "the message")
    browser.evaluate("taken.restoreContext()")
    browser.wait("document.querySelector('.rv-stage .rv-message').hidden", "the picture to come back")
    browser.settle()
    assert np.array_equal(seen(browser), first) and browser.evaluate("typeof hacked") == "undefined"


def test_everything_has_a_name_and_fits_a_phone(show: Callable[..., Browser]) -> None:
    browser = show(shape(), scene(), width=360, density=3.0, touch=True)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 360
    fingers = f"[...document.querySelectorAll('{CONTROLS} button, {CONTROLS} .rv-modes label')]"
    assert browser.evaluate(f"{fingers}.filter((e) => e.offsetHeight < 44).length") == 0
    slide(browser, 16)
    dense = drawn(seen(browser)).mean()
    nodes = [n for n in browser.send("Accessibility.getFullAXTree")["nodes"] if not n["ignored"]]
    named = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes]
    controls = [(role, name) for role, name in named if role in ("button", "radio", "slider", "checkbox", "link")]
    assert [role for role, name in controls if not name] == [] and ("radio", "Surface") in controls
    assert [name for role, name in controls if role == "slider"] == ["Size"]  # none of the light's
    assert browser.evaluate(f"document.querySelector('{CONTROLS} [name=size]').ariaValueText") == "16 px"
    browser = show(shape(), scene(), width=360)
    slide(browser, 16)
    assert drawn(seen(browser)).mean() == pytest.approx(dense, rel=0.1)  # as large on any screen; rims are coarse here


#: Notes every rotation that is drawn, at the border between the page and the browser.
WATCH = """
window.rotations = [];
const original = WebGL2RenderingContext.prototype.uniformMatrix3fv;
WebGL2RenderingContext.prototype.uniformMatrix3fv = function (place, transpose, values) {
  window.rotations.push([...values]);
  return original.call(this, place, transpose, values);
};
"""


def test_it_turns_round_and_round_until_somebody_takes_hold(show: Callable[..., Browser], browser: Browser) -> None:
    added = browser.send("Page.addScriptToEvaluateOnNewDocument", source=WATCH)["identifier"]
    try:
        show(shape())
        browser.click(f"{CONTROLS} [data-do=turn]")
        yaw = "rotations.map((r) => Math.atan2(r[6], r[0]) * 180 / Math.PI)"
        browser.wait(f"Math.max(...{yaw}) - Math.min(...{yaw}) > 40", "the turning")  # more than to and fro
        browser.drag(CANVAS, (5, 0))
        browser.settle()
        pressed = f"document.querySelector('{CONTROLS} [data-do=turn]').ariaPressed"
        count = browser.evaluate("rotations.length")
        browser.settle()
        assert browser.evaluate(pressed) == "false" and browser.evaluate("rotations.length") == count
    finally:
        browser.send("Page.removeScriptToEvaluateOnNewDocument", identifier=added)


def test_without_webgl_there_are_still_pictures(browser: Browser, tmp_path: Path) -> None:
    script = "HTMLCanvasElement.prototype.getContext = () => null"
    added = browser.send("Page.addScriptToEvaluateOnNewDocument", source=script)["identifier"]
    try:
        (tmp_path / "page.html").write_text(viewer_document("t", [shape(), scene()]), encoding="utf-8")
        browser.screen(800, 480)
        browser.open(tmp_path / "page.html")
        browser.wait("document.querySelector('.rv').dataset.state === 'ready'", "the stills")
        assert "cannot draw in 3D" in browser.evaluate("document.querySelector('.rv-stage .rv-message').textContent")
        shown = "[...document.querySelectorAll('.rv-result:not([hidden]) img')].filter((e) => e.naturalWidth).length"
        assert browser.evaluate(shown) == 2  # input and silhouette
        browser.click(".rv-strip label:nth-child(2)")
        browser.wait(f"{shown} === 5", "the hill's pictures")
        assert browser.evaluate("document.querySelectorAll('.rv-controls:not([hidden])').length") == 0
        assert browser.complaints == []
    finally:
        browser.send("Page.removeScriptToEvaluateOnNewDocument", identifier=added)

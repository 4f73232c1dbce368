"""The page that shows objects in 3D: HTML, style and script in one file that opens from disk."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath
from urllib.parse import quote

from markupsafe import Markup

from recon_toolkit.pages import page
from recon_toolkit.viewer.payload import data_uri, image_uri, scene_json, shape_json, share, shown_shape
from recon_toolkit.viewer.scene import Scene, ViewerScene

_US = "recon_toolkit"
#: In the order in which they build on each other.
SCRIPTS = (
    *("geometry.js", "shape.js", "shaders.js", "shape_shaders.js"),
    *("renderer.js", "grid_painter.js", "shape_painter.js"),
    *("controls.js", "panel.js", "grid_panel.js", "shape_panel.js", "viewer.js"),
)
#: The page may run and show what it holds, and fetch or send nothing.
POLICY = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)
#: Types that not every system's table knows.
_TYPES = {".glb": "model/gltf-binary", ".obj": "model/obj", ".mtl": "model/mtl", ".stl": "model/stl"}


def viewer_document(title: str, scenes: Iterable[Scene], *, intro: str = "") -> str:
    """A whole page with one object or several to turn, light and take away.

    It needs a browser with WebGL 2 and nothing else: no network, no server. Without WebGL 2 it shows still pictures.

    Args:
        title: plain text.
        scenes: the objects, of either kind; more than one get a strip of small pictures to choose from. The more
            shapes there are, the fewer points and faces of each are drawn, which the page says.
        intro: plain text below the title.

    Raises:
        DataError: a scene's mask leaves nothing to show.
        ValueError: there is no scene, or a tensor of the wrong shape.
    """
    return page(_US, "viewer.html", title=title, intro=intro, policy=Markup(POLICY), **_part(scenes, greet=True))


def viewer_part(scenes: Iterable[Scene]) -> str:
    """The same as a part of another page: one ``section`` with its style and script.

    Here the wheel zooms only once the view has been clicked, so that it does not catch readers who scroll by. Several
    parts may stand on a page; each holds one WebGL context, of which browsers allow about a dozen.

    Args:
        scenes: the objects.

    Raises:
        DataError: a scene's mask leaves nothing to show.
        ValueError: there is no scene, or a tensor of the wrong shape.
    """
    return page(_US, "viewer_part.html", **_part(scenes, greet=False))


@dataclass(frozen=True)
class _Figure:
    """A picture beside the stage."""

    caption: str
    address: str
    width: int
    height: int
    wide: bool


@dataclass(frozen=True)
class _Download:
    name: str
    address: str
    size: str


@dataclass(frozen=True)
class _Object:
    """What the template shows of one scene; ``data`` is JSON that may stand in a script."""

    name: str
    figures: Sequence[_Figure]
    facts: Sequence[tuple[str, str]]
    downloads: Sequence[_Download]
    data: Markup


def _part(scenes: Iterable[Scene], *, greet: bool) -> dict[str, object]:
    """The variables of ``viewer_part.html``."""
    shown = list(scenes)
    if not shown:
        raise ValueError("a page needs at least one object")
    grids = sum(isinstance(scene, ViewerScene) for scene in shown)
    shapes = len(shown) - grids
    parts = ("stage.html", *["controls.html"] * bool(grids), *["shape_controls.html"] * bool(shapes))
    return {
        "style": Markup(_asset("viewer.css")),
        "greet": greet,
        "controls": [Markup(_asset(part)) for part in parts],
        "objects": [_object(scene, share(shapes)) for scene in shown],
        "script": Markup(script()),
    }


@cache
def script() -> str:
    """The viewer's whole script, as one function that leaves no names behind."""
    return '(() => {\n"use strict";\n' + "\n".join(_asset(name) for name in SCRIPTS) + "})();\n"


@cache
def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _object(scene: Scene, most: int) -> _Object:
    shown, facts = {"Input": scene.input}, list(scene.facts)
    if isinstance(scene, ViewerScene):
        if scene.reconstruction is not None:
            shown["Reconstruction"] = scene.reconstruction
        data = scene_json(scene)
    else:
        shape = shown_shape(scene, most)
        facts += shape.facts
        data = shape_json(scene.name, shape)
    wide = set(shown)  # the photograph and what was made of it; maps are smaller beside the stage
    shown |= scene.maps
    figures = [
        _Figure(caption, image_uri(image), image.shape[-1], image.shape[-2], caption in wide)
        for caption, image in shown.items()
    ]
    return _Object(scene.name, figures, facts, [_download(*item) for item in scene.downloads.items()], Markup(data))


def _download(name: str, content: str | bytes) -> _Download:
    if isinstance(content, str):
        return _Download(name, quote(content), "")  # with its colons, so that no path can be a scheme
    kind = _TYPES.get(PurePosixPath(name).suffix.lower()) or mimetypes.guess_type(name)[0]
    return _Download(name, data_uri(content, kind or "application/octet-stream"), _size(len(content)))


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{max(1, round(count / 1000))} kB"

"""The page that shows objects in 3D: HTML, style and script in one file that opens from disk."""

from __future__ import annotations

import html
import mimetypes
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath
from urllib.parse import quote

from torch import Tensor

from recon_toolkit.viewer.payload import data_address, picture_address, scene_json, shape_json, share, shown_shape
from recon_toolkit.viewer.scene import Scene, ViewerScene

STYLE = """
:root { --ink: #1f2328; --soft: #59636e; --line: #d8dee4; --wash: #f6f8fa; --link: #0b5cad; }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; color: var(--ink); }
h1, h2 { line-height: 1.25; margin: 2rem 0 .5rem; }
h1 { margin-top: 0; overflow-wrap: anywhere; }
p, li { max-width: 48rem; }
a { color: var(--link); }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .4rem; }
th, td { padding: .3rem 1rem .3rem 0; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; height: auto; }
figure { margin: 1.5rem 0; }
figcaption { color: var(--soft); }
details img { margin: .5rem 0; }
.warning { background: #fff3cd; padding: .5rem 1rem; border-radius: .3rem; }
.scroll { overflow-x: auto; }
"""


def document(title: str, body: str, *, style: str = "") -> str:
    """A whole HTML document.

    Args:
        title: plain text.
        body: HTML.
        style: CSS besides :data:`STYLE`.
    """
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}{style}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )


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
    lead = f'<p class="rv-intro">{html.escape(intro)}</p>\n' if intro else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{html.escape(title)}</title></head>\n"
        f'<body class="rv-page"><main>\n<h1>{html.escape(title)}</h1>\n{lead}{_part(scenes, greet=True)}\n'
        "</main></body></html>\n"
    )


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
    return _part(scenes, greet=False)


def _part(scenes: Iterable[Scene], *, greet: bool) -> str:
    shown = list(scenes)
    if not shown:
        raise ValueError("a page needs at least one object")
    grids = sum(isinstance(scene, ViewerScene) for scene in shown)
    shapes = len(shown) - grids
    results = [_result(scene, share(shapes)) for scene in shown]
    parts = ("stage.html", *["controls.html"] * bool(grids), *["shape_controls.html"] * bool(shapes))
    return (
        f"<style>\n{_asset('viewer.css')}</style>\n"
        f'<section class="rv"{" data-greet" if greet else ""} aria-label="Objects in 3D">\n'
        f"{''.join(map(_asset, parts))}{''.join(results)}</section>\n<script>\n{script()}</script>"
    )


@cache
def script() -> str:
    """The viewer's whole script, as one function that leaves no names behind."""
    return '(() => {\n"use strict";\n' + "\n".join(_asset(name) for name in SCRIPTS) + "})();\n"


@cache
def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _figure(name: str, caption: str, image: Tensor, wide: bool) -> str:
    kind = ' class="rv-wide"' if wide else ""
    described = html.escape(f"{caption} of {name}")
    return (
        f'<figure{kind}><img src="{picture_address(image)}" alt="{described}" width="{image.shape[-1]}" '
        f'height="{image.shape[-2]}"><figcaption>{html.escape(caption)}</figcaption></figure>'
    )


def _result(scene: Scene, most: int) -> str:
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
    figures = "".join(_figure(scene.name, caption, image, caption in wide) for caption, image in shown.items())
    return (
        f'<article class="rv-result" data-name="{html.escape(scene.name)}">\n'
        f'<div class="rv-pictures">{figures}</div>\n'
        f'<div class="rv-details"><h2>{html.escape(scene.name)}</h2>{_facts(facts)}{_downloads(scene)}</div>\n'
        f'<script type="application/json">{data}</script>\n</article>\n'
    )


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{html.escape(label)}</dt><dd>{html.escape(value)}</dd>" for label, value in facts)
    return f'<dl class="rv-facts">{rows}</dl>' if rows else ""


def _downloads(scene: Scene) -> str:
    links = []
    for name, content in scene.downloads.items():
        size = ""
        if isinstance(content, str):
            address = quote(content)  # with its colons, so that no path can be a scheme
        else:
            suffix = PurePosixPath(name).suffix.lower()
            kind = _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
            address = data_address(content, kind)
            size = f" <small>{_size(len(content))}</small>"
        escaped = html.escape(name)
        links.append(f'<li><a href="{address}" download="{escaped}">{escaped}{size}</a></li>')
    return f'<ul class="rv-files" aria-label="Downloads">{"".join(links)}</ul>' if links else ""


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{max(1, round(count / 1000))} kB"

"""Scenes for the viewer's tests, of shapes whose truth is known, and ways to read a page without a browser."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_toolkit.geometry import Camera
from recon_toolkit.viewer import ShapeScene, ViewerScene

CAMERA = Camera(10.0)
SIZE = 64
#: Where the hill's top is, in units of half the picture's width: right of the middle, and above it.
TOP = (0.25, -0.125)
#: Half the picture's width at depth 1.
HALF = math.tan(math.radians(CAMERA.fov) / 2)
#: From the upper left: it travels to the right and down.
LIGHT = torch.tensor([0.35, 0.55, 0.48, 0.36, 0.8])
#: Turned to the left by 20°, nodding down by 10°, leaning by 5°, and shifted.
VIEW = torch.tensor([math.radians(10), math.radians(20), math.radians(5), 0.01, -0.005, 0.0])
HOSTILE = "</script><script>hacked = 1</script>\"'><img src=x onerror=hacked=1>&amp;<!-- ünïcode"


def hill(size: int = SIZE) -> Tensor:
    """Depth (size, size) of a smooth hill before a plane, as steep as a nose."""
    v, u = torch.meshgrid(*[torch.linspace(-1, 1, size, dtype=torch.float64)] * 2, indexing="ij")
    return (1.04 - 0.09 * torch.exp(-4 * ((u - TOP[0]) ** 2 + (v - TOP[1]) ** 2))).float()


def spotted(size: int = 65) -> Tensor:
    """A blue picture (3, size, size) with a red spot on the hill's top."""
    v, u = torch.meshgrid(*[torch.linspace(-1, 1, size)] * 2, indexing="ij")
    spot = ((u - TOP[0]) ** 2 + (v - TOP[1]) ** 2).sqrt() < 0.08
    blue = torch.tensor([0.1, 0.3, 0.6])[:, None, None].expand(3, size, size)
    return blue.where(~spot, torch.tensor([0.9, 0.1, 0.1])[:, None, None])


def scene(name: str = "hill", **changes: Any) -> ViewerScene:
    parts: dict[str, Any] = {
        "name": name,
        "depth": hill(),
        "mask": torch.ones(SIZE, SIZE, dtype=torch.bool),
        "camera": CAMERA,
        "input": spotted(64),
        "light": LIGHT,
        "view": VIEW,
        "pictures": {"photo": spotted(), "albedo": torch.full((3, 16, 16), 0.6)},
        "reconstruction": spotted(64),
        "maps": {"Depth": hill()[None] - 0.5},
        "downloads": {"mesh.glb": bytes(range(256)) * 5},
        "facts": [("Turned", "20° left")],
    }
    return ViewerScene(**(parts | changes))


#: Three points that no turn takes to their mirror image: low, middle and high, which the page tells apart by colour.
MARKS = np.array([[0.3, -0.35, -0.4], [-0.4, -0.1, 0.0], [0.15, 0.4, 0.45]])
#: A tetrahedron without symmetry, its faces anticlockwise from outside.
CORNERS = np.array([[0.4, -0.3, -0.45], [-0.35, -0.2, -0.45], [0.1, 0.45, -0.4], [0.2, -0.35, 0.45]])
SIDES = np.array([[0, 1, 2], [0, 3, 1], [1, 3, 2], [2, 3, 0]])[:, ::-1]


def sphere(count: int, radius: float = 0.5) -> NDArray[np.float64]:
    """Points evenly on a sphere (Fibonacci's lattice)."""
    z = 1 - (2 * np.arange(count) + 1) / count
    angle = np.arange(count) * math.pi * (3 - math.sqrt(5))
    across = np.sqrt(1 - z * z)
    return radius * np.stack((across * np.cos(angle), across * np.sin(angle), z), axis=1)


def shape(name: str = "marks", **changes: Any) -> ShapeScene:
    parts: dict[str, Any] = {
        "name": name,
        "input": spotted(64),
        "points": MARKS,
        "vertices": CORNERS,
        "faces": SIDES,
        "maps": {"Silhouette": hill()[None] - 0.5},
        "downloads": {"cloud.ply": bytes(range(256))},
        "facts": [("Method", "by hand")],
    }
    return ShapeScene(**(parts | changes))


class Reader(HTMLParser):
    """Reads a page: elements with attributes, the text of scripts, and whatever is not closed as it was opened."""

    VOID = frozenset({"meta", "link", "img", "input", "br"})

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.faults: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        self.faults += self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif self.open and self.open[-1] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    def scenes(self) -> list[dict[str, Any]]:
        """The data of the faces."""
        kinds = [attributes.get("type") for attributes in self.all("script")]
        return [json.loads(text) for text, kind in zip(self.scripts, kinds, strict=True) if kind == "application/json"]

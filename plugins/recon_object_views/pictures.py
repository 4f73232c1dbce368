"""What a data set holds of one object: pictures to learn from, depth maps from many sides, a cloud of its surface."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from numpy.random import Generator
from numpy.typing import NDArray

from recon_object_views.render import colour_views, depth_views
from recon_object_views.sampling import sample_surface
from recon_object_views.solids import ColouredMesh
from recon_toolkit.data.fields import FieldSpec, field_specs
from recon_toolkit.geometry.orthographic import fixed_views, looking_from, random_views

#: Depths are stored in 16 bits over this range; 0 is where the object is not.
DEEPEST = 2.0


@dataclass(frozen=True)
class Layout:
    """How many pictures of an object there are, and of which size.

    Args:
        image_size: of the pictures that a model is shown, in pixels.
        images: how many of them.
        depth_size: of the depth maps.
        fixed: of the eight fixed views.
        novel: random views.
        points: of the cloud.
        elevation: range of the height that pictures are taken from, degrees.
    """

    image_size: int = 64
    images: int = 24
    depth_size: int = 128
    fixed: int = 8
    novel: int = 100
    points: int = 10000
    elevation: tuple[float, float] = (0.0, 35.0)

    def fields(self) -> dict[str, FieldSpec]:
        """How a packed data set stores them; all but the pictures belong to the object."""
        plane, steps = (self.depth_size, self.depth_size), 65535 / DEEPEST
        shared: dict[str, Any] = {"each": self.images}
        return field_specs(self.image_size) | {
            "fixed_depth": FieldSpec(dtype="uint16", shape=(self.fixed, *plane), steps=steps, **shared),
            "novel_depth": FieldSpec(dtype="uint16", shape=(self.novel, *plane), steps=steps, **shared),
            "novel_view": FieldSpec(dtype="float32", shape=(self.novel, 4), **shared),
            "cloud": FieldSpec(dtype="float32", shape=(self.points, 3), **shared),
            "category": FieldSpec(dtype="uint8", shape=(1,), **shared),
        }


def pictures_of(mesh: ColouredMesh, layout: Layout, rng: Generator) -> dict[str, NDArray[Any]]:
    """Draw an object: the fields of :meth:`Layout.fields` but for its category.

    ``image`` is (images, 3, S, S) bytes, the others are (1, …).

    Args:
        mesh: within the cube [−1/2, 1/2]³.
        layout: what to draw.
        rng: the only source of chance.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    vertices, faces = torch.from_numpy(mesh.vertices).float(), torch.from_numpy(mesh.faces)
    low, high = (math.radians(value) for value in layout.elevation)
    # One from each sector around the object, in any order of heights.
    sector = (torch.arange(layout.images) + torch.rand(layout.images, generator=generator)) / layout.images
    height = low + (high - low) * torch.rand(layout.images, generator=generator)
    seen = looking_from(2 * math.pi * sector, height)
    colours = torch.from_numpy(mesh.colours).float()
    image = colour_views(vertices, faces, colours, seen, layout.image_size).image
    assert image is not None
    novel = random_views(layout.novel, generator)
    sides = torch.cat((fixed_views(layout.fixed), novel))
    depth = depth_views(vertices, faces, sides, layout.depth_size).depth.numpy()[None]
    return {
        "image": (image * 255).round().byte().numpy(),
        "fixed_depth": depth[:, : layout.fixed],
        "novel_depth": depth[:, layout.fixed :],
        "novel_view": novel.numpy()[None],
        "cloud": sample_surface(mesh.vertices, mesh.faces, layout.points, rng)[None],
    }

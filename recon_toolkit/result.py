"""One reconstructed object: what is known of it, and the ways to take it elsewhere."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_toolkit.errors import DataError
from recon_toolkit.geometry.camera import Camera
from recon_toolkit.structures import TEXTURES, Reconstruction

if TYPE_CHECKING:
    from PIL import Image

    from recon_toolkit.shapes.clouds import CleanCloud
    from recon_toolkit.shapes.forms import Cloud, Mesh
    from recon_toolkit.shapes.mesh import TexturedMesh
    from recon_toolkit.viewer import Scene

#: Vertices along a native pixel's side in meshes, which makes the surface look as smooth as it is.
DETAIL = 2


@dataclass(frozen=True, eq=False)
class Result:
    """One object of one picture.

    Tensors are on the device that the model was on; :meth:`to` moves them. Conventions are those of
    :mod:`recon_toolkit.structures`: depth is z in units of the object's distance, angles are radians, images RGB in
    [0, 1], normals point along the line of sight.

    Attributes:
        maps: the model's maps for this object, a batch of one.
        camera: the camera of all maps.
        photo: (3, S, S) the crop at its own resolution, up to 256 pixels, framed as ``maps.image``.
        name: what to call it, such as ``group-face2``.
        box: x, y, width and height of the crop in the picture, in pixels; None if the picture was taken as it is.
    """

    maps: Reconstruction
    camera: Camera
    photo: Tensor
    name: str
    box: tuple[float, float, float, float] | None = None

    @property
    def image(self) -> Tensor:
        """What the model saw, (3, H, W)."""
        return self.maps.image[0]

    @property
    def depth(self) -> Tensor | None:
        """Depth in the input view, (H, W)."""
        return _first(self.maps.depth)

    @property
    def mask(self) -> Tensor | None:
        """Where there is depth, (H, W) bool."""
        return _first(self.maps.mask)

    @property
    def normals(self) -> Tensor | None:
        """Unit normals in the input view, (3, H, W)."""
        return _first(self.maps.normals)

    @property
    def albedo(self) -> Tensor | None:
        """Albedo in the input view, (3, H, W)."""
        return _first(self.maps.albedo)

    @property
    def shading(self) -> Tensor | None:
        """Shading in the input view, (1, H, W)."""
        return _first(self.maps.shading)

    @property
    def reconstruction(self) -> Tensor | None:
        """The rendered picture, (3, H, W)."""
        return _first(self.maps.reconstruction)

    @property
    def light(self) -> Tensor | None:
        """Ambient and diffuse strength and the direction the light travels in, (5,)."""
        return _first(self.maps.light)

    @property
    def view(self) -> Tensor | None:
        """Rotation about x, y, z in radians and translation, canonical to input view, (6,)."""
        return _first(self.maps.view)

    @property
    def confidence(self) -> Tensor | None:
        """Spread σ of the colours, (1, H, W): large where the model is unsure."""
        return _first(self.maps.confidence)

    @property
    def canonical_depth(self) -> Tensor | None:
        """Depth seen from the front, (H, W)."""
        return _first(self.maps.canonical_depth)

    @property
    def canonical_image(self) -> Tensor | None:
        """The object seen from the front, (3, H, W)."""
        return _first(self.maps.canonical_image)

    @property
    def canonical_albedo(self) -> Tensor | None:
        """Albedo seen from the front, (3, H, W)."""
        return _first(self.maps.canonical_albedo)

    @property
    def points(self) -> Tensor | None:
        """Points (N, 3) of the object's surface in its own frame, z up, as the model gives them."""
        maps = self.maps.clouds()
        return None if maps is None else maps[0]

    @property
    def of_points(self) -> bool:
        """Whether the object is known by points, and not by depth."""
        return self.maps.points is not None and self.maps.depth is None and self.maps.canonical_depth is None

    @cached_property
    def _clean(self) -> CleanCloud:
        from recon_toolkit.shapes.clouds import CleanCloud

        return CleanCloud.of(_numbers(self.points))

    @property
    def cloud(self) -> Cloud:
        """The points without outliers and with outward normals.

        Raises:
            DataError: the model predicts no points, too few of them belong to the object, or they lie on a plane.
        """
        return self._clean.cloud

    @property
    def closed(self) -> Mesh:
        """The solid that the points are the surface of: watertight and manifold, in the object's frame, z up.

        Raises:
            DataError: as for :attr:`cloud`.
        """
        return self._clean.mesh

    def to(self, device: torch.device | str) -> Result:
        """The same with all tensors on ``device``; itself where they are there."""
        if self.photo.device == self.maps.image.device == torch.empty(0, device=device).device:
            return self
        return Result(self.maps.to(device), self.camera, self.photo.to(device), self.name, self.box)

    @cached_property
    def outlined(self) -> Reconstruction:
        """The maps on the CPU, with the object's outline as seen from the front.

        Where the model does not say it, it is taken from the photograph's colours; where these do not tell the object
        from what is around it, there is none.
        """
        maps = self.maps.to("cpu")
        if maps.canonical_depth is None or maps.view is None or maps.canonical_mask is not None:
            return maps
        from recon_toolkit.shapes.texture import canonical_silhouette, photo_silhouette

        silhouette = photo_silhouette(self.photo)
        if silhouette is None:
            return maps
        return replace(maps, canonical_mask=canonical_silhouette(maps, self.camera, silhouette))

    @cached_property
    def photo_texture(self) -> Tensor:
        """The photograph as a texture of the object seen from the front, (3, 256, 256) on the CPU.

        What the photograph does not show is taken from its mirrored side, or from the model.
        """
        from recon_toolkit.shapes.texture import photo_texture

        return photo_texture(self.maps.to("cpu"), self.camera, self.photo.cpu())

    def texture(self, kind: str = "photo") -> Tensor:
        """A texture for :meth:`mesh`, (3, S, S) on the CPU.

        Args:
            kind: ``photo``, the photograph itself; ``model``, what the model made of it; ``albedo``, without light.

        Raises:
            ValueError: another kind.
        """
        if kind not in TEXTURES:
            raise ValueError(f"a texture is one of {', '.join(TEXTURES)}, not {kind!r}")
        if kind == "photo":
            return self.photo_texture
        maps = self.maps
        choices = (
            (maps.canonical_albedo, maps.albedo, maps.canonical_image)
            if kind == "albedo"
            else (maps.canonical_image, maps.reconstruction)
        )
        return next((image[0].cpu() for image in choices if image is not None), self.image.cpu())

    def mesh(self, *, detail: int = DETAIL, trim: bool = True) -> TexturedMesh:
        """The surface: x right, y up, z towards the viewer; the unit is half the picture's width.

        Args:
            detail: vertices along a native pixel's side.
            trim: remove the background's rim around an object that is seen from the front.

        Raises:
            DataError: the model predicts no depth, or nothing of it is left inside the mask.
        """
        from recon_toolkit.shapes.mesh import mesh_from_depth
        from recon_toolkit.shapes.surface import surface_of

        depth, mask, outlined = surface_of(self.outlined if trim else self.maps)
        # What a model sees in the input view has a mask that ends at the object already.
        trim = trim and self.maps.canonical_depth is not None
        return mesh_from_depth(depth, self.camera, mask=mask, detail=detail, trim=trim, rim=not outlined)

    def save(self, folder: str | Path, outputs: Sequence[str] | None = None) -> list[Path]:
        """Write files into ``folder``, which is made where it is missing.

        Args:
            folder: where to.
            outputs: some of :data:`~recon_toolkit.inference.outputs.OUTPUTS`; by default maps, meshes and a page.

        Returns:
            The files.

        Raises:
            DataError: an output is unknown, cannot be made of this model's maps, or the disk cannot be written.
        """
        from recon_toolkit.inference.outputs import Outputs, write_outputs

        return write_outputs(self, Path(folder), Outputs.of(outputs))

    def scene(self, downloads: Mapping[str, bytes | str] | None = None) -> Scene:
        """The object as a page shows it.

        Args:
            downloads: file name → content, or a path relative to the page, for its download buttons.
        """
        if self.of_points:
            from recon_toolkit.viewer.scene import shape_scene_of

            return shape_scene_of(self, downloads=downloads)
        from recon_toolkit.viewer import scene_of

        return scene_of(self.to("cpu"), self.photo_texture, downloads=downloads)

    def scene_with_mesh(self, file: str | None = None) -> Scene:
        """The same with its mesh inside, to download as GLB; called ``file``, or by the result's name."""
        return self.scene({file or f"{Path(self.name).name}.glb": self.glb()})

    def glb(self) -> bytes:
        """The mesh as binary glTF: the textured surface, or the closed solid of a result of points."""
        if self.of_points:
            from recon_toolkit.io.shape_files import shape_bytes

            return shape_bytes(self.closed, ".glb")
        from recon_toolkit.io.mesh_files import glb_bytes

        return glb_bytes(self.mesh(), self.texture())

    def page(self) -> str:
        """One HTML document that shows the object in 3D, with its mesh to download; it needs no network."""
        from recon_toolkit.viewer import viewer_document

        return viewer_document(self.name, [self.scene_with_mesh()])

    def picture(self) -> Image.Image:
        """A contact sheet of all maps."""
        from recon_toolkit.io.contact_sheet import overview

        return overview(self.maps.to("cpu"), rows=[self.name])

    def __repr__(self) -> str:
        maps = [
            name
            for name in ("depth", "normals", "albedo", "shading", "light", "view", "confidence", "points")
            if getattr(self.maps, name) is not None
        ]
        size = self.maps.image.shape[-1]
        turned = ""
        if self.view is not None:
            pitch, yaw, roll = (math.degrees(float(angle)) for angle in self.view[:3])
            turned = f", turned by {yaw:+.0f}°, nodding {pitch:+.0f}°, rolled {roll:+.0f}°"
        device = self.maps.image.device
        return f"<Result '{self.name}': {size}×{size} {', '.join(maps)}{turned}; on {device}>"

    def _repr_html_(self) -> str:
        """In a notebook: the object to turn, and below it the maps."""
        import base64

        from recon_toolkit.pages import page

        buffer = io.BytesIO()
        self.picture().save(buffer, "PNG")
        maps = base64.b64encode(buffer.getvalue()).decode()
        return page("recon_toolkit", "notebook.html", name=self.name, page=self.page(), maps=maps)


def _first(values: Tensor | None) -> Tensor | None:
    return None if values is None else values[0]


def _numbers(points: Tensor | None) -> NDArray[np.float64]:
    if points is None:
        raise DataError("the model predicts no points", remedy="use one that does")
    if not len(points):
        raise DataError("the model sees no object here", remedy="check that it fills the picture")
    places = np.asarray(points.detach().cpu().numpy(), dtype=np.float64)
    inside = (np.abs(places) <= 1).all(axis=1)
    if inside.mean() < 0.9:
        raise DataError(
            f"{(~inside).mean():.0%} of the points lie far outside of the object's frame: the model has hardly learnt",
            remedy="train it for longer, and look at the scores of its run",
        )
    return places

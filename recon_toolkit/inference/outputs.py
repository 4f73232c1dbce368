"""What is written of a reconstruction, and writing it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recon_toolkit.components import blamed
from recon_toolkit.errors import DataError, PluginError, suggestion
from recon_toolkit.io.maps import write_maps
from recon_toolkit.structures import TEXTURES

if TYPE_CHECKING:
    from recon_toolkit.plugins import PluginHost
    from recon_toolkit.result import Result

#: Everything that can be written, with what it is.
OUTPUTS = {
    "maps": "depth, normals, albedo, shading, confidence, mask and views as pictures and arrays",
    "exr": "depth and normals as OpenEXR",
    "glb": "mesh.glb, the mesh with its texture in one file, for Blender, browsers and phones",
    "obj": "mesh.obj with mesh.mtl and mesh.png",
    "ply": "mesh.ply with colours at its vertices",
    "stl": "mesh.stl, a closed solid in millimetres for 3D printing",
    "3mf": "mesh.3mf, the same with its unit in the file",
    "cloud": "cloud.ply, the points with their normals, of a model that predicts points",
    "voxels": "voxels.binvox, the solid in 64 voxels along its longest side, of such a model",
    "page": "index.html, which shows all objects in 3D",
    "pages": "an index.html in each object's own folder",
    "turntable": "turntable.mp4, the object turning",
    "relight": "relight.mp4, the light going around it",
}
DEFAULT_OUTPUTS = ("maps", "glb", "obj", "page")
#: The same for results of points.
POINT_OUTPUTS = ("cloud", "glb", "stl", "page")
MESHES = ("glb", "obj", "ply")
SOLIDS = frozenset({"stl", "3mf"})
VIDEO_FORMATS = ("mp4", "gif")


#: Voxels along the longest side.
VOXELS = 64
_ONLY_DEPTH = ("exr", "turntable", "relight")


#: A plugin's way to write a result.
Exporter = Callable[["Result", Path], Iterable[str | Path]]


def exporters_of(host: PluginHost) -> dict[str, Exporter]:
    """The plugins' exporters, each imported when it is first used."""

    def exporter(name: str) -> Exporter:
        return lambda result, folder: host.registry.get("exporter", name).load()(result, folder)

    return {entry.name: exporter(entry.name) for entry in host.registry.all() if entry.kind == "exporter"}


@dataclass(frozen=True)
class Outputs:
    """What to write of each reconstruction.

    Args:
        kinds: some of :data:`OUTPUTS`; what suits the result if None: :data:`DEFAULT_OUTPUTS` or :data:`POINT_OUTPUTS`.
        size: side of maps and videos in pixels; the model's own for maps and 256 for videos if None.
        texture: what meshes wear: ``photo``, ``model`` or ``albedo``.
        height: height of the printed solid (STL) in millimetres.
        video: ``mp4`` or ``gif``.
        exporters: of plugins, by what ``kinds`` calls them: (result on the CPU, folder) → the files that it wrote.
    """

    kinds: frozenset[str] | None = None
    size: int | None = None
    texture: str = "photo"
    height: float = 60.0
    video: str = "mp4"
    exporters: Mapping[str, Exporter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind in sorted(self.kinds or ()):
            if kind not in OUTPUTS and kind not in self.exporters:
                raise DataError(f"there is no output '{kind}'", remedy=suggestion(kind, [*OUTPUTS, *self.exporters]))
        for value, known, what in ((self.texture, TEXTURES, "texture"), (self.video, VIDEO_FORMATS, "video format")):
            if value not in known:
                raise DataError(f"there is no {what} '{value}'", remedy=suggestion(value, known))
        if self.size is not None and not 8 <= self.size <= 4096:
            raise DataError(f"a size of {self.size} pixels is outside 8 to 4096", remedy="choose another size")
        if not 1 <= self.height <= 2000:
            raise DataError(f"a height of {self.height:g} mm is outside 1 to 2000", remedy="choose another height")

    def check(self) -> None:
        """Raise DataError if a package that an output needs is not installed."""
        if "exr" in (self.kinds or ()):
            from recon_toolkit.data.float_maps import openexr

            openexr("output 'exr'")

    def kinds_for(self, result: Result) -> frozenset[str]:
        """What to write of a result."""
        return self.kinds or frozenset(POINT_OUTPUTS if result.of_points else DEFAULT_OUTPUTS)

    def wants(self, kind: str) -> bool:
        """Whether an output that all defaults have, or that was named, is to be written."""
        return kind in (self.kinds or DEFAULT_OUTPUTS)

    @classmethod
    def of(cls, kinds: Iterable[str] | None) -> Outputs:
        """The default outputs, or those named."""
        return cls() if kinds is None else cls(frozenset(kinds))


def write_outputs(result: Result, folder: Path, outputs: Outputs, *, page: bool = True) -> list[Path]:
    """Write what ``outputs`` names of one result into ``folder``.

    Args:
        result: on any device.
        folder: made where it is missing.
        outputs: what.
        page: False leaves the page out, for a batch that has one for all.

    Raises:
        DataError: the disk cannot be written, or an output cannot be made of this model's maps.
    """
    result = result.to("cpu")
    kinds = outputs.kinds_for(result)
    written: list[Path] = []
    if kinds & {"maps", "exr"}:
        sized = _sized(result, outputs)
        written += write_maps(folder, sized.maps, 0) if "maps" in kinds else []
        written += _write_exr(sized, folder) if "exr" in kinds else []
    if result.of_points:
        written += _write_shapes(result, folder, kinds, outputs.height)
    else:
        written += _write_meshes(result, folder, kinds, outputs)
    if kinds & {"turntable", "relight"}:
        written += _write_videos(result, folder, kinds, outputs)
    for kind in sorted(kinds & outputs.exporters.keys()):
        folder.mkdir(parents=True, exist_ok=True)
        written += _exported(kind, outputs.exporters[kind], result, folder)
    if page and kinds & {"page", "pages"}:
        from recon_toolkit.files import write_text

        write_text(folder / "index.html", result.page())
        written.append(folder / "index.html")
    return written


def _exported(kind: str, exporter: Exporter, result: Result, folder: Path) -> list[Path]:
    """What a plugin's exporter wrote; where it fails, that is this result's failure, and others go on."""
    try:
        with blamed(f"the exporter '{kind}'"):
            paths = exporter(result, folder)
    except PluginError as error:
        raise DataError(error.message, remedy=error.remedy) from error
    if isinstance(paths, str | Path) or not isinstance(paths, Iterable):
        raise DataError(f"the exporter '{kind}' returned no list of paths", remedy="return the files that it wrote")
    return [Path(path) for path in paths]


def _sized(result: Result, outputs: Outputs) -> Result:
    if outputs.size is None or outputs.size == result.maps.image.shape[-1]:
        return result
    from recon_toolkit.shapes.surface import resized_maps

    maps = resized_maps(result.maps, outputs.size, camera=result.camera)
    return replace(result, maps=maps)


def _write_exr(result: Result, folder: Path) -> list[Path]:
    from recon_toolkit.data.float_maps import write_exr

    if result.depth is None:
        return []
    depth = result.depth if result.mask is None else result.depth.where(result.mask, torch.nan)
    normals = None if result.normals is None else result.normals.numpy()
    write_exr(folder / "depth.exr", depth.numpy(), normals=normals)
    return [folder / "depth.exr"]


def _write_meshes(result: Result, folder: Path, kinds: Set[str], outputs: Outputs) -> list[Path]:
    if kinds & {"cloud", "voxels"}:
        wrong = next(kind for kind in ("cloud", "voxels") if kind in kinds)
        raise DataError(f"the output '{wrong}' is of points, which the model does not predict", remedy="leave it out")
    if not kinds & {*MESHES, *SOLIDS}:
        return []
    from recon_toolkit.io.mesh_files import write_mesh
    from recon_toolkit.shapes.printable import solid

    written: list[Path] = []
    surface = result.mesh()
    texture = result.texture(outputs.texture)
    for suffix in MESHES:
        if suffix in kinds:
            written += write_mesh(folder / f"mesh.{suffix}", surface, texture)
    closed = solid(surface, height=outputs.height) if kinds & SOLIDS else None
    if closed is not None and "stl" in kinds:
        written += write_mesh(folder / "mesh.stl", closed, None)
    if closed is not None and "3mf" in kinds:
        from recon_toolkit.io.shape_files import write_shape
        from recon_toolkit.shapes.forms import Mesh

        written += [write_shape(folder / "mesh.3mf", Mesh(closed.vertices, closed.faces))]
    return written


def _write_shapes(result: Result, folder: Path, kinds: Set[str], height_mm: float) -> list[Path]:
    """Write what ``kinds`` names of a result of points into ``folder``.

    Meshes for printing (STL, 3MF) are ``height_mm`` millimetres high; the others keep the object's own units, in which
    the cube that it lies in has sides of 1.

    Raises:
        DataError: there are too few points, an output needs depth, or the disk cannot be written.
    """
    from recon_toolkit.io.shape_files import write_shape
    from recon_toolkit.shapes.convert import voxels_of_mesh

    for kind in _ONLY_DEPTH:
        if kind in kinds:
            raise DataError(f"the output '{kind}' is of depth, which the model does not predict", remedy="leave it out")
    written = [write_shape(folder / "cloud.ply", result.cloud)] if "cloud" in kinds else []
    written += [write_shape(folder / f"mesh.{kind}", result.closed) for kind in ("glb", "obj", "ply") if kind in kinds]
    written += [
        write_shape(folder / f"mesh.{kind}", result.closed, height_mm=height_mm)
        for kind in ("stl", "3mf")
        if kind in kinds
    ]
    if "voxels" in kinds:
        written.append(write_shape(folder / "voxels.binvox", voxels_of_mesh(result.closed, VOXELS)))
    return written


def _albedo(result: Result) -> Tensor:
    """The photograph without its light, which is sharper than the model's albedo; that where there is no shading."""
    from recon_toolkit.shapes.texture import albedo_from_photo

    if result.maps.canonical_shading is None:
        return result.texture("albedo")
    return albedo_from_photo(result.photo_texture, result.maps)


def _write_videos(result: Result, folder: Path, kinds: Set[str], outputs: Outputs) -> Sequence[Path]:
    from recon_toolkit.io.video import write_video
    from recon_toolkit.viewer.turntable import relighting, turntable

    size = outputs.size or 256
    written = []
    if "turntable" in kinds:
        path = folder / f"turntable.{outputs.video}"
        write_video(path, turntable(result.outlined, result.camera, result.texture(outputs.texture), size=size))
        written.append(path)
    if "relight" in kinds and result.light is not None:
        path = folder / f"relight.{outputs.video}"
        write_video(path, relighting(result.outlined, result.camera, _albedo(result), size=size))
        written.append(path)
    return written

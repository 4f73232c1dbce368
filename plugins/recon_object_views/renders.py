"""The data set ``shapenet-renders``: objects in the layout of Lin, Kong and Lucey's released data."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recon_toolkit.errors import DataError, MissingSplit, suggestion
from recon_toolkit.files import content_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recon_object_views.render import Layout
    from recon_object_views.shapenet import ObjectFiles
    from recon_toolkit.data.packed import PackedImages
    from recon_toolkit.data.packing import DataContext, Skipped

#: Raise it when the same files and options give other fields, so that caches of older versions are not used.
READER_VERSION = 1
SPLITS = ("train", "val", "test")
_GROUP = 16  # objects read at a time
_ASKED = 32  # objects whose headers say how many pictures and views there are
_NAMED = 3  # skipped objects named in the warning; the index lists all of them


@dataclass(frozen=True)
class _Read:
    """One object's fields, and whether its cloud is made from its depth maps."""

    name: str
    fields: dict[str, NDArray[Any]]
    from_depth: bool


class ShapenetRenders:
    """Lin et al.'s released renderings of ShapeNet, or any meshes that ``recon data render-views`` has drawn.

    The folder, or ``data`` in it, has for each category a list of each split, and folders with 24 pictures, depth from
    8 fixed and 100 random sides, and the true points of each object; :mod:`recon_object_views.shapenet` says what is
    in them. The released data has no list for validation: then the last tenth of the training list, of each category,
    is the split ``val`` and not in ``train``. An object that several lists name belongs to ``test`` before ``val`` and
    ``val`` before ``train``.

    The field ``cloud`` is drawn from the true points ``Vd``, each as likely; with fewer than are asked for, all of
    them are repeated. An object without them, as the released training objects, has points of its fixed depth maps in
    their place, which lie closer where several views see the surface.

    Objects with missing or damaged files, or with other numbers of pictures and views than most have, are left out and
    named.

    Args:
        root: the folder; ``--data DIR`` goes before it.
        categories: synset numbers, ShapeNet's names such as ``chair``, or what else the lists are called by; all that
            there are by default.
        novel_views: how many of the random views to keep, from the first; all by default.
        points: of each object's cloud.
        seed: of the choice of points.

    Raises:
        DataError: an option is out of range.
    """

    splits = SPLITS
    reads_folder = True

    def __init__(
        self,
        *,
        root: Path | None = None,
        categories: tuple[str, ...] | None = None,
        novel_views: int | None = None,
        points: int = 10000,
        seed: int = 0,
    ) -> None:
        for name, value, low, high in (
            ("novel_views", 1 if novel_views is None else novel_views, 1, 10_000), ("points", points, 1, 10_000_000),
            ("seed", seed, 0, 2**63 - 1),
        ):  # fmt: skip
            if not low <= value <= high:
                raise DataError(f"{value} is outside {low} to {high}", where=f"dataset.{name}", remedy="choose another")
        if categories is not None and (not categories or len(set(categories)) < len(categories)):
            raise DataError("name each category once", where="dataset.categories", remedy="or leave it out for all")
        self.root, self.categories = root, None if categories is None else tuple(categories)
        self.novel_views, self.points, self.seed = novel_views, points, seed

    def open(self, split: str, size: int, context: DataContext) -> PackedImages:
        """The packed split, read first if it is not in the cache.

        The cache's key covers the options and the sizes and times of change of all the split's files.

        Args:
            split: one of ``splits``.
            size: image height and width in pixels; pictures of another size are resized.
            context: the user's folder, where the cache is, and where progress is shown.

        Raises:
            MissingSplit: no list names an object of the split.
            DataError: the folder or a category is missing, or no object can be used.
        """
        import numpy as np

        from recon_toolkit.data.packed import PackWriter
        from recon_toolkit.data.packing import Skipped, open_cached
        from recon_toolkit.threads import given

        if split not in self.splits:
            raise DataError(f"there is no split '{split}'", remedy=f"choose one of {', '.join(self.splits)}")
        root = self._root(context)
        categories = self._categories(root)
        objects, skipped = _listed(root, categories, split)
        options = {
            "version": READER_VERSION, "categories": categories, "novel_views": self.novel_views, "points": self.points,
            "seed": self.seed, "size": size, "files": _state(objects, skipped),
        }  # fmt: skip
        folder = context.cache / "shapenet-renders" / f"{split}-{size}px-{content_key(options)}"
        cached = open_cached(folder, context, "packed")
        if cached is not None:
            _warn(cached.index.provenance, split, context)
            return cached
        layout = self._layout(objects, size)

        def read(files: ObjectFiles) -> _Read | Skipped:
            try:
                return self._read(files, layout, categories.index(files.category))
            except DataError as error:
                return Skipped(f"{files.category}/{files.name}", f"{error.where}: {error.message}")

        left_out, names, from_depth = list(skipped), list[str](), list[str]()
        with (
            PackWriter(folder, len(objects) * layout.images, size, layout.fields()) as writer,
            context.progress.task(f"packing shapenet-renders {split}", len(objects), "object") as task,
            ThreadPoolExecutor(given().count) as pool,
        ):
            for start in range(0, len(objects), _GROUP):
                results = list(pool.map(read, objects[start : start + _GROUP]))
                left_out += [result for result in results if isinstance(result, Skipped)]
                good = [result for result in results if isinstance(result, _Read)]
                if good:
                    joined = {name: np.concatenate([one.fields[name] for one in good]) for name in good[0].fields}
                    writer.write(len(names), **joined)
                names += [f"{one.name}/{view:02d}" for one in good for view in range(layout.images)]
                from_depth += [one.name for one in good if one.from_depth]
                task.advance(len(results))
            if not names:
                reasons = "; ".join(f"{item.name}: {item.reason}" for item in left_out[:_NAMED])
                raise DataError(
                    f"none of the {len(objects)} objects of the split '{split}' can be used: {reasons}",
                    where=str(root),
                    remedy="fix the files, or lists that name others",
                )
            provenance = {
                "dataset": "shapenet-renders", "split": split, **options, "layout": asdict(layout),
                "clouds_from_depth": from_depth,
                "skipped": [{"name": item.name, "reason": item.reason} for item in left_out],
            }  # fmt: skip
            packed = writer.finish(names, provenance)
        _warn(provenance, split, context)
        return packed

    def _root(self, context: DataContext) -> Path:
        from recon_object_views.shapenet import data_folder

        chosen = context.root or self.root
        if chosen is None:
            raise DataError("the data set shapenet-renders needs a folder",
                            remedy="give --data DIR, or dataset.root in the pipeline")  # fmt: skip
        return data_folder(Path(chosen).expanduser())

    def _categories(self, root: Path) -> tuple[str, ...]:
        from recon_object_views.shapenet import SYNSETS, listed_categories

        there = listed_categories(root)
        if self.categories is None:
            return there
        known = {SYNSETS[name]: name for name in there if name in SYNSETS} | {name: name for name in there}
        for name in self.categories:
            if name not in known:
                raise DataError(f"{root} has no lists of the category '{name}'", where="dataset.categories",
                                remedy=suggestion(name, known))  # fmt: skip
        return tuple(known[name] for name in self.categories)

    def _layout(self, objects: Sequence[ObjectFiles], size: int) -> Layout:
        """What most objects have, of some spread over the list."""
        from recon_object_views.render import Layout
        from recon_object_views.shapenet import shapes

        asked = objects[:: -(-len(objects) // _ASKED)]
        found = Counter(filter(None, map(shapes, asked))) or Counter(filter(None, map(shapes, objects)))
        # Where no header can be read, reading the first object will say why.
        images, views, depth_size = found.most_common(1)[0][0] if found else (1, self.novel_views or 1, 1)
        if self.novel_views is not None and views < self.novel_views:
            raise DataError(f"there are {views} random views of an object, not {self.novel_views}",
                            where="dataset.novel_views", remedy="lower it, or leave it out for all")  # fmt: skip
        kept = self.novel_views or views
        return Layout(image_size=size, images=images, depth_size=depth_size, novel=kept, points=self.points)

    def _read(self, files: ObjectFiles, layout: Layout, category: int) -> _Read:
        import numpy as np

        from recon_object_views.shapenet import read_fixed, read_images, read_novel, read_truth

        images = read_images(files.images)
        novel, views = read_novel(files.novel)
        fixed = read_fixed(files.fixed)
        plane = (layout.depth_size, layout.depth_size)
        for path, found, right in (
            (files.images, len(images), len(images) == layout.images),
            (files.novel, novel.shape, len(novel) >= layout.novel and novel.shape[1:] == plane),
            (files.fixed, fixed.shape, fixed.shape[1:] == plane),
        ):
            if not right:
                raise DataError(f"holds {found} pictures, unlike most objects", where=str(path),
                                remedy="make the file again")  # fmt: skip
        digest = hashlib.sha256(f"{files.category}/{files.name}".encode()).digest()
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, *digest[:16]))))
        from_depth = not files.truth.exists()
        surface = _points_of(fixed) if from_depth else read_truth(files.truth)
        fields: dict[str, NDArray[Any]] = {
            "image": _resized(images, layout.image_size),
            "fixed_depth": fixed[None],
            "novel_depth": novel[None, : layout.novel],
            "novel_view": views[None, : layout.novel],
            "cloud": surface[_chosen(len(surface), layout.points, rng)][None],
            "category": np.array([[category]], np.uint8),
        }
        return _Read(f"{files.category}/{files.name}", fields, from_depth)


def _listed(root: Path, categories: Sequence[str], split: str) -> tuple[list[ObjectFiles], list[Skipped]]:
    """The objects of a split and what of its lists cannot be used; see :class:`ShapenetRenders` for ``val``."""
    from recon_object_views.shapenet import ObjectFiles, list_path, read_list
    from recon_toolkit.data.packing import Skipped

    objects: list[ObjectFiles] = []
    skipped: list[Skipped] = []
    for category in categories:
        lists = {name: read_list(root, category, name) for name in SPLITS}
        of = {name: found[0] if found else [] for name, found in lists.items()}
        source = split
        if lists["val"] is None:
            source = "train" if split == "val" else split
            kept = len(of["train"]) - max(len(of["train"]) // 10, int(len(of["train"]) > 1))
            of["train"], of["val"] = of["train"][:kept], of["train"][kept:]
        others = {"test": set[str](), "val": set(of["test"]), "train": {*of["test"], *of["val"]}}[split]
        repeated = others & set(of[split])
        found = lists[source]
        where = list_path(root, category, source).name
        skipped += [Skipped(f"{where}: '{line}'", f"is no '{category}/id'") for line in (found[1] if found else [])]
        skipped += [Skipped(f"{category}/{name}", "another split's list names it too") for name in sorted(repeated)]
        objects += [ObjectFiles.of(root, category, name) for name in of[split] if name not in repeated]
    if not objects:
        names = ", ".join(f"{category}_{split}.list" for category in categories[:_NAMED])
        raise MissingSplit(f"has no objects of the split '{split}'", where=str(root),
                           remedy=f"name some in {names}, or choose another split")  # fmt: skip
    return objects, skipped


def _state(objects: Sequence[ObjectFiles], skipped: Sequence[Skipped]) -> str:
    """A digest of what objects there are and of their files' sizes and times of change."""
    digest = hashlib.sha256(json.dumps([[item.name, item.reason] for item in skipped]).encode())
    for files in objects:
        digest.update(f"{files.category}/{files.name}".encode())
        for path in files.paths():
            try:
                state = path.stat()
            except OSError as error:  # reading it will say so; the key must only differ
                digest.update(f"{error.errno};".encode())
            else:
                digest.update(f"{state.st_size} {state.st_mtime_ns};".encode())
    return digest.hexdigest()


def _resized(images: NDArray[Any], size: int) -> NDArray[Any]:
    """Pictures (N, S, S, 3) → (N, 3, size, size)."""
    import numpy as np
    from PIL import Image

    from recon_toolkit.data.decode import resized

    if images.shape[1] != size:
        whole = (0.0, 0.0, float(images.shape[2]), float(images.shape[1]))
        images = np.stack([np.asarray(resized(Image.fromarray(image), whole, size)) for image in images])
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _points_of(fixed: NDArray[Any]) -> NDArray[Any]:
    """The points that depth maps (8, S, S) show, (N, 3) in the object's frame."""
    import numpy as np
    import torch

    from recon_toolkit.geometry.orthographic import fixed_views, to_object

    views, size, _ = fixed.shape
    row, column = np.indices((size, size), dtype=np.float32)
    pixels = np.stack(np.broadcast_arrays(column, row, fixed), axis=-1).reshape(1, views, size * size, 3)
    points = to_object(torch.from_numpy(pixels), fixed_views(views), size)[0].numpy()
    return np.asarray(points[fixed.reshape(views, -1) > 0])


def _chosen(there: int, count: int, rng: Any) -> NDArray[Any]:
    """Which of ``there`` points to take: as often as all can be, and each as likely among the rest."""
    import numpy as np

    whole, rest = divmod(count, there)
    return np.concatenate((np.tile(np.arange(there), whole), rng.choice(there, rest, replace=False)))


def _warn(provenance: dict[str, Any], split: str, context: DataContext) -> None:
    left_out = provenance["skipped"]
    if left_out:
        named = "; ".join(f"{item['name']}: {item['reason']}" for item in left_out[:_NAMED])
        more = f"; and {len(left_out) - _NAMED} more (all in the pack's index.json)" if len(left_out) > _NAMED else ""
        context.progress.warn(f"shapenet-renders {split}: {len(left_out)} objects skipped: {named}{more}")
    without = provenance["clouds_from_depth"]
    if without and split == "test":  # what is scored; the released data has true points of no other split
        context.progress.warn(
            f"shapenet-renders test: {len(without)} objects have no true points, such as {without[0]}; their clouds "
            "are those of their fixed depth maps"
        )

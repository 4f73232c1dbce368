"""The data set ``mixture``: several data sets as one, such as photographs beside synthetic images with truth."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recon_image_datasets.folders import SPLITS, check_split
from recon_toolkit.data.fields import FieldSpec
from recon_toolkit.data.packed import PackedImages, PackWriter
from recon_toolkit.data.packing import DataContext, open_cached
from recon_toolkit.errors import DataError
from recon_toolkit.files import content_key

#: Images that are copied at a time.
_CHUNK = 2048


#: The field that says which part an image is of.
PART = "part"


class Mixture:
    """Several data sets whose images are trained on together; an epoch shows each image once.

    The field ``part`` says which data set an image is of, so that the sampler ``balanced`` can draw them by shares.

    Images of a part without ground truth have an empty mask, so that a loss that compares with the truth, such as
    ``supervised-depth``, counts nothing there. Validation and test images are those of one part.

    Args:
        parts: the data sets by any name, each with ``name`` and its options, as under ``dataset``; ``--data DIR`` is
            given to those that read a folder and name none.
        scored: the part whose validation and test images are used; the first if not given.
        fields: which ground truth is kept for training, of parts that have it.

    Raises:
        DataError: there is no part, ``scored`` is none of them, or a part is not described by a name and options.
    """

    splits: ClassVar[tuple[str, ...]] = SPLITS

    def __init__(
        self,
        *,
        parts: dict[str, dict[str, Any]],
        scored: str | None = None,
        fields: tuple[str, ...] = ("depth", "mask"),
    ) -> None:
        if not parts:
            raise DataError("a mixture needs at least one part", where="dataset.parts", remedy="name a data set there")
        for key, part in parts.items():
            if not isinstance(part.get("name"), str):
                raise DataError(
                    "a part needs the name of a data set", where=f"dataset.parts.{key}", remedy="name: image-folder"
                )
        self.scored = next(iter(parts)) if scored is None else scored
        if self.scored not in parts:
            raise DataError(
                f"there is no part '{self.scored}'", where="dataset.scored", remedy=f"one of {', '.join(parts)}"
            )
        self.parts, self.fields = parts, fields

    def open(self, split: str, size: int, context: DataContext) -> PackedImages:
        """The images of ``split``: of all parts for training, of one for the other splits.

        Raises:
            DataError: a part cannot be opened, or two store one field in different ways.
        """
        check_split(split)
        if split != "train":
            return self._open(self.scored, split, size, context)
        packs = {key: self._open(key, split, size, context) for key in self.parts}
        if len(packs) == 1:
            return next(iter(packs.values()))
        specs = self._specs(packs)
        specs[PART] = FieldSpec(dtype="int32", shape=(), kind="plain", words=tuple(packs))
        key = content_key({"parts": [pack.fingerprint for pack in packs.values()], "fields": list(specs)})
        count = sum(map(len, packs.values()))
        folder = context.cache / "mixture" / f"{split}-{size}px-{count}-{key}"
        cached = open_cached(folder, context)
        if cached is not None:
            return cached
        names, start = [], 0
        with (
            PackWriter(folder, count, size, specs) as writer,
            context.progress.task("mixing data sets", count, "img") as task,
        ):
            for number, (part, pack) in enumerate(packs.items()):
                for first in range(0, len(pack), _CHUNK):
                    rows = np.arange(first, min(first + _CHUNK, len(pack)))
                    entries = _entries(pack, rows, specs) | {PART: np.full(len(rows), number, np.int32)}
                    writer.write(start, **entries)
                    start += len(rows)
                    task.advance(len(rows))
                names += [f"{part}/{name}" for name in pack.names]
            return writer.finish(
                names, {"dataset": "mixture", "split": split, "parts": {key: len(pack) for key, pack in packs.items()}}
            )

    def _open(self, key: str, split: str, size: int, context: DataContext) -> PackedImages:
        from recon_toolkit.config.pipeline import resolve_component
        from recon_toolkit.plugins import load_plugins

        options = dict(self.parts[key])
        settings = [f"{name}={json.dumps(value, default=str)}" for name, value in options.items() if name != "name"]
        part = resolve_component("dataset", options["name"], settings, load_plugins())
        dataset = part.build()
        if split not in dataset.splits:
            raise DataError(f"the data set {options['name']} has no split '{split}'", where=f"dataset.parts.{key}")
        if "root" in options or not getattr(dataset, "reads_folder", True):
            context = replace(context, root=None)
        opened: PackedImages = dataset.open(split, size, context)
        return opened

    def _specs(self, packs: dict[str, PackedImages]) -> dict[str, FieldSpec]:
        specs: dict[str, FieldSpec] = {}
        for key, pack in packs.items():
            for name in ("image", *self.fields):
                spec = pack.fields.get(name)
                if spec is None:
                    continue
                if spec.each != 1 or specs.setdefault(name, spec) != spec:
                    raise DataError(
                        f"its field '{name}' is stored in another way than that of the parts before it",
                        where=f"dataset.parts.{key}",
                        remedy="mix data sets of one kind of ground truth, or leave the field out of dataset.fields",
                    )
        if len(specs) > 1 and "mask" not in specs:
            raise DataError("ground truth needs the mask beside it", where="dataset.fields", remedy="add mask")
        return specs


def _entries(pack: PackedImages, rows: NDArray[np.int64], specs: dict[str, FieldSpec]) -> dict[str, NDArray[Any]]:
    """Rows of a pack in storage types; fields that it lacks are zero, so that its mask is empty."""
    raw = pack.raw_batch(rows, specs)
    return {
        name: raw[name].numpy() if name in raw else np.zeros((len(rows), *spec.shape), spec.dtype)
        for name, spec in specs.items()
    }

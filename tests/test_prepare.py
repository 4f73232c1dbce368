"""``recon data prepare``: what is found, left out, divided and written, against truth that is known beforehand."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from conftest import Run
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from recon_image_datasets.prepared import PreparedPhotographs

from recon_toolkit.data.archives import ArchiveLimits, Member, Omitted, read_archive
from recon_toolkit.data.packed import PackedImages
from recon_toolkit.data.packing import DataContext
from recon_toolkit.detection import Detection
from recon_toolkit.errors import DataError, MissingSplit
from recon_toolkit.preparation import flow
from recon_toolkit.preparation import flow as store
from recon_toolkit.preparation.flow import prepare
from recon_toolkit.preparation.look import first_alike, measure
from recon_toolkit.preparation.page import judge
from recon_toolkit.preparation.record import Picture, Prepared, PrepareOptions, read_record

AS_CROPS = PrepareOptions(size=32, detector=None, min_side=32)


def picture(seed: int, side: int = 64) -> Image.Image:
    """A picture of random patches, unlike that of any other seed, with fine detail."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((side, side))
    fine = generator.integers(-30, 31, (side, side, 3))
    return Image.fromarray((np.asarray(coarse, dtype=np.int64) + fine).clip(0, 255).astype(np.uint8))


def save(path: Path, image: Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def folder_of(root: Path, names: Sequence[str], side: int = 64) -> Path:
    for seed, name in enumerate(names):
        save(root / name, picture(seed, side))
    return root


def reasons(prepared: Prepared) -> dict[str, str | None]:
    """Reason by the picture's file name, and the number of the object where it has several."""
    return {Path(each.name).name: each.reason for each in prepared.pictures}


# -- measures ----------------------------------------------------------------------------------------------------------


def test_sharpness_falls_with_blur_and_not_with_contrast_or_size() -> None:
    image = picture(0, 256).filter(ImageFilter.GaussianBlur(1))
    plain = measure(np.asarray(image)).sharpness
    blurred = [measure(np.asarray(image.filter(ImageFilter.GaussianBlur(r)))).sharpness for r in (4, 8, 12)]
    assert plain > blurred[0] > blurred[1] > blurred[2]
    faint = measure(np.asarray(image.point(lambda value: 60 + value // 2))).sharpness
    small = measure(np.asarray(image.resize((128, 128), Image.Resampling.BOX))).sharpness
    assert faint == pytest.approx(plain, rel=0.1) and small == pytest.approx(plain, rel=0.1)
    assert measure(np.full((64, 64, 3), 7, np.uint8)).sharpness == 0


def test_colour_is_none_of_grey_and_tinted_pictures() -> None:
    image = picture(1)
    grey = np.asarray(image.convert("L"), dtype=np.float64)
    sepia = (grey[..., None] * (1.0, 0.8, 0.6)).astype(np.uint8)
    assert measure(np.asarray(image.convert("L").convert("RGB"))).colour == 0
    assert measure(sepia).colour < 0.5 and measure(np.asarray(image)).colour > 5


def test_asymmetry_is_nothing_of_a_mirrored_picture() -> None:
    pixels = np.asarray(picture(2)).copy()
    assert measure(pixels).asymmetry > 0.2
    pixels[:, 32:] = pixels[:, 31::-1]
    assert measure(pixels).asymmetry == pytest.approx(0, abs=1e-6)


def test_doubles_are_told_from_others_and_found_through_changes() -> None:
    images = [picture(seed) for seed in range(40)]
    data = io.BytesIO()
    images[3].save(data, "JPEG", quality=40)
    changed = [Image.open(data), images[5].resize((40, 40)), images[7].point(lambda value: min(255, value * 6 // 5))]
    found = [measure(np.asarray(image)) for image in [*images, *changed]]
    alike = first_alike(np.stack([m.hash for m in found]), np.stack([m.small for m in found]))
    assert alike.tolist() == [-1] * 40 + [3, 5, 7]
    assert first_alike(np.empty((0, 2), np.uint64), np.empty((0, 16, 16), np.uint8)).tolist() == []


def test_doubles_follow_their_definition() -> None:
    generator = np.random.default_rng(0)
    small = generator.integers(0, 256, (60, 16, 16), dtype=np.uint8)
    hashes = generator.integers(0, 2**63, (60, 2), dtype=np.uint64)
    for index in range(1, 60, 2):  # each odd one is its neighbour with so many bits turned over
        bits = sum(1 << int(bit) for bit in generator.choice(64, index % 25, replace=False))
        hashes[index] = hashes[index - 1] ^ np.array([0, bits], dtype=np.uint64)
        small[index] = small[index - 1]
    found = first_alike(hashes, small)
    expected = [index - 1 if index % 2 and index % 25 <= 14 else -1 for index in range(60)]
    assert found.tolist() == expected


# -- archives ----------------------------------------------------------------------------------------------------------


def png(seed: int) -> bytes:
    data = io.BytesIO()
    picture(seed).save(data, "PNG")
    return data.getvalue()


def tar_of(path: Path, members: Sequence[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz", "a.tar.bz2", "a.tar.xz", "a.zip"])
def test_archives_give_their_pictures_and_nothing_else(tmp_path: Path, name: str) -> None:
    members = [("./x/a.png", png(0)), ("notes.txt", b"hello"), ("x/b.png", png(1)), ("__MACOSX/._b.png", b"?")]
    if name == "a.zip":
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member, data in members:
                archive.writestr(member, data)
    else:
        mode = {"tar": "w", "gz": "w:gz", "tgz": "w:gz", "bz2": "w:bz2", "xz": "w:xz"}[name.rpartition(".")[2]]
        tar_of(tmp_path / name, members, mode)
    before = set(tmp_path.iterdir())
    found = list(read_archive(tmp_path / name))
    assert [Path(item.name).name for item in found] == ["a.png", "b.png"]
    assert [item.data for item in found if isinstance(item, Member)] == [png(0), png(1)]
    later = list(read_archive(tmp_path / name, skip=1))
    assert [isinstance(item, Member) and item.data for item in later] == [None, png(1)]
    assert set(tmp_path.iterdir()) == before


def test_what_attacks_is_left_out_and_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("../up.png", "/etc/absolute.png", "a/../../b.png", "C:\\windows.png", "good.png"):
            info = tarfile.TarInfo(name)
            info.size = len(png(0))
            tar.addfile(info, io.BytesIO(png(0)))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("special.png")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        info = tarfile.TarInfo("large.png")
        info.size = 20_000
        tar.addfile(info, io.BytesIO(bytes(20_000)))
        info = tarfile.TarInfo("last.png")
        info.size = len(png(1))
        tar.addfile(info, io.BytesIO(png(1)))
    found = list(read_archive(path, limits=ArchiveLimits(member_bytes=19_000)))
    assert [item.name for item in found if isinstance(item, Member)] == ["good.png", "last.png"]
    why = [item.reason for item in found if isinstance(item, Omitted)]
    assert [reason.split(",")[0] for reason in why] == [
        *["its path leads out of the archive"] * 4,
        *["is a link"] * 2,
        *["is a device"] * 2,
        "has 20",
    ]


def test_bombs_end_in_one_line(tmp_path: Path) -> None:
    limits = ArchiveLimits(members=5, least_bytes=100_000, ratio=2)
    bomb = tar_of(tmp_path / "bomb.tar.gz", [("a.png", png(0)), ("zeros.bin", bytes(3_000_000))], "w:gz")
    found = list(read_archive(bomb, limits=limits))
    assert isinstance(found[0], Member) and isinstance(found[-1], Omitted)
    assert len(found) == 2 and "more than 100,000 bytes come out" in found[-1].reason
    many = tar_of(tmp_path / "many.tar", [(f"{n}.png", b"") for n in range(9)])
    found = list(read_archive(many, limits=limits))
    assert len(found) == 6 and "more than the 5 members" in found[-1].reason  # type: ignore[union-attr]
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.png", bytes(3_000_000))
    (only,) = read_archive(tmp_path / "bomb.zip", limits=limits)
    assert isinstance(only, Omitted) and "100,000" in only.reason


def test_a_header_of_gigabytes_is_not_read_into_memory(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 4 << 30
    (tmp_path / "long.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    (only,) = read_archive(tmp_path / "long.tar")
    assert isinstance(only, Omitted) and "a header has 4,294,967,296 bytes" in only.reason


def test_damaged_archives_give_what_comes_before(tmp_path: Path) -> None:
    whole = tar_of(tmp_path / "whole.tar", [(f"{n}.png", png(n)) for n in range(4)]).read_bytes()
    second = 512 + -(-len(png(0)) // 512) * 512
    (tmp_path / "cut.tar").write_bytes(whole[: second + 600])
    (tmp_path / "header.tar").write_bytes(whole[:second] + b"?" * 512 + whole[second + 512 :])
    (tmp_path / "not.zip").write_bytes(b"PK but no more")
    (tmp_path / "empty.tar.gz").write_bytes(b"")
    for name, before in (("cut.tar", 1), ("header.tar", 1), ("not.zip", 0), ("empty.tar.gz", 0)):
        found = list(read_archive(tmp_path / name))
        assert [type(item) for item in found] == [Member] * before + [Omitted], name


# -- what is kept and what is left out ---------------------------------------------------------------------------------


def test_reasons_are_the_true_ones(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "photos", [f"good{n}.png" for n in range(6)])
    save(root / "h-blurred.png", picture(20, 128).filter(ImageFilter.GaussianBlur(12)))
    save(root / "h-double.png", picture(2).resize((50, 50)))
    save(root / "h-grey.png", picture(21).convert("L"))
    save(root / "h-small.png", picture(22, 31))
    (root / "h-broken.png").write_bytes(png(23)[:200])
    (root / "notes.txt").write_text("no picture")
    options = AS_CROPS.model_copy(update={"min_colour": 1.5})
    prepared = prepare([root], tmp_path / "out", options)
    assert reasons(prepared) == dict.fromkeys(f"good{n}.png" for n in range(6)) | {
        "h-blurred.png": "blurred",
        "h-double.png": "double",
        "h-grey.png": "grey",
        "h-small.png": "too small",
        "h-broken.png": "unreadable",
    }
    assert sum(prepared.kept.values()) == 6 and not prepared.complete
    double = next(each for each in prepared.pictures if each.reason == "double")
    assert double.detail is not None and double.detail.endswith("good2.png")
    assert read_record(tmp_path / "out") == prepared


def test_packs_hold_the_crops_as_they_are_cut(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "photos", [f"{n}.png" for n in range(9)], side=32)
    prepared = prepare([root], tmp_path / "out", AS_CROPS)
    for split, count in prepared.kept.items():
        packed = PackedImages.open(tmp_path / "out" / split)
        assert len(packed) == count > 0
        for name, pixels in zip(packed.names, packed.raw_batch(np.arange(count))["image"].numpy(), strict=True):
            assert (pixels.transpose(1, 2, 0) == np.asarray(picture(int(Path(name).stem), 32))).all()


class Corners:
    """Finds an object of 40 pixels in each corner that is not black; what is in the right half is a dog."""

    finds, margin, down = "thing", 1.0, 0.0
    yaws: ClassVar[dict[str, float | None]] = {"cat": 10.0, "dog": 70.0}

    def __call__(self, image: NDArray[np.uint8], /) -> list[Detection]:
        height, width = image.shape[:2]
        found = []
        for left, label in ((0, "cat"), (width - 40, "dog")):
            for top in (0, height - 40):
                if image[top : top + 40, left : left + 40].any():
                    found.append(Detection(left, top, 40, 40, 1.0 + top, label, yaw=self.yaws[label]))
        return sorted(found, key=lambda each: -each.score)


def corners(path: Path, *seeds: int | None) -> Path:
    """A black picture with pictures in its corners: left, then right, each from the top."""
    canvas = Image.new("RGB", (120, 100))
    for seed, place in zip(seeds, ((0, 0), (0, 60), (80, 0), (80, 60)), strict=True):
        if seed is not None:
            canvas.paste(picture(seed, 40), place)
    return save(path, canvas)


def test_objects_are_found_labelled_and_counted(tmp_path: Path) -> None:
    corners(tmp_path / "in" / "one.png", 1, None, None, None)
    corners(tmp_path / "in" / "two.png", 2, 3, None, None)
    corners(tmp_path / "in" / "dog.png", None, None, 4, None)
    corners(tmp_path / "in" / "none.png", None, None, None, None)

    def result(name: str, **options: object) -> dict[str, str | None]:
        chosen = PrepareOptions(size=32, detector="corners", min_side=32, **options)  # type: ignore[arg-type]
        return reasons(prepare([tmp_path / "in"], tmp_path / name, chosen, detector=Corners()))

    plain = {"dog.png": None, "none.png": "nothing found", "one.png": None, "two.png": None, "two.png #2": None}
    assert result("a") == plain
    assert result("b", label="cat") == plain | {"dog.png": "nothing found"}
    assert result("c", several="best") == plain | {"two.png #2": "several"}
    assert result("d", several="leave-out") == plain | {"two.png": "several", "two.png #2": "several"}
    assert result("e", max_yaw=45) == plain | {"dog.png": "turned"}
    record = read_record(tmp_path / "a")
    two = [each for each in record.pictures if each.place == "two.png"]
    assert [each.box for each in two] == [(0, 60, 40, 40), (0, 0, 40, 40)]
    assert two[0].group == two[1].group and two[0].split == two[1].split and two[0].yaw == 10


def test_what_is_cut_off_is_told_by_its_share(tmp_path: Path) -> None:
    class Wide(Corners):
        margin = 2.0  # 7/16 of a corner's crop lie outside of the picture

    corners(tmp_path / "in" / "one.png", 1, None, None, None)
    options = PrepareOptions(size=32, detector="wide", max_outside=0.43)
    with pytest.raises(DataError, match=r"no picture remains of 1: 1 cut off.*44 % lie outside.*raise --max-outside"):
        prepare([tmp_path / "in"], tmp_path / "out", options, detector=Wide())
    assert not (tmp_path / "out").exists()
    prepared = prepare(
        [tmp_path / "in"], tmp_path / "out", options.model_copy(update={"max_outside": 0.45}), detector=Wide()
    )
    assert prepared.kept["train"] == 1 and prepared.pictures[0].outside == 0.4375


# -- splits ------------------------------------------------------------------------------------------------------------


def test_no_group_is_in_two_splits_and_doubles_are_in_none(tmp_path: Path) -> None:
    names = [f"person{person}/{photo}.png" for person in range(12) for photo in range(4)]
    root = folder_of(tmp_path / "photos", names)
    save(root / "person3" / "copy.png", picture(4 * 7))  # person 7's first
    prepared = prepare([root], tmp_path / "out", AS_CROPS.model_copy(update={"val": 0.2, "test": 0.2}))
    splits: dict[str, set[str | None]] = {}
    for each in prepared.pictures:
        if each.reason is None:
            splits.setdefault(each.place.partition("/")[0], set()).add(each.split)
    assert len(splits) == 12 and all(len(found) == 1 for found in splits.values())
    assert all(prepared.kept.values())
    assert [each.reason for each in prepared.pictures].count("double") == 1


@pytest.mark.parametrize("archive", [False, True])
def test_folders_of_splits_are_taken(tmp_path: Path, archive: bool) -> None:
    names = ["Train/a.png", "Train/b.png", "valid/c.png", "test/x/d.png", "other/e.png"]
    given = folder_of(tmp_path / "photos", names)
    if archive:
        given = tar_of(tmp_path / "photos.tar", [(f"top/{name}", (given / name).read_bytes()) for name in names])
    prepared = prepare([given], tmp_path / "out", AS_CROPS)
    found = {Path(each.place).stem: each.split or each.reason for each in prepared.pictures}
    assert found == {"a": "train", "b": "train", "c": "val", "d": "test", "e": "no split"}


def test_files_named_one_by_one_keep_their_folders(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "photos", [f"{person}/{n}.png" for person in "abc" for n in range(2)])
    each_file = prepare(sorted(root.rglob("*.png")), tmp_path / "one", AS_CROPS)
    pattern = prepare([str(root / "*" / "*.png")], tmp_path / "two", AS_CROPS)
    assert (
        [p.group for p in each_file.pictures]
        == [p.group for p in pattern.pictures]
        == ["a/"] * 2 + ["b/"] * 2 + ["c/"] * 2
    )


def test_a_video_is_one_group(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        for seed in range(6):
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture(seed)), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    prepared = prepare([tmp_path / "film.mp4"], tmp_path / "out", AS_CROPS.model_copy(update={"every": 2}))
    assert [each.frame for each in prepared.pictures] == [0, 2, 4]
    assert {(each.group, each.split) for each in prepared.pictures} == {("film.mp4", "train")}
    (line,) = (line for line in prepared.verdict.lines if line.what == "splits")
    assert line.level == "may work"


# -- restarting --------------------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder; the folder's own name in them is made the same."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes().replace(folder.name.encode(), b"FOLDER")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class Killed(BaseException):
    """What no handler expects."""


def test_a_killed_call_goes_on_to_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder_of(tmp_path / "photos", [f"{n:02d}.png" for n in range(11)])
    tar = tar_of(tmp_path / "more.tar", [(f"{n}.png", png(100 + n)) for n in range(9)] + [("../out.png", b"")])
    monkeypatch.setattr(store, "CHUNK", 4)
    whole, broken = tmp_path / "aaaa", tmp_path / "bbbb"
    prepare([root, tar], whole, AS_CROPS)
    looked: list[str] = []
    real_write, real_look = store.Store.write, flow.look

    def look_and_count(item: object, *rest: object) -> object:
        looked.append(item.picture.name)  # type: ignore[attr-defined]
        return real_look(item, *rest)  # type: ignore[arg-type]

    def die_at(limit: int) -> None:
        def write(self: store.Store, number: int, *rest: object) -> None:
            if number == limit:
                raise Killed
            real_write(self, number, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(store.Store, "write", write)

    for limit in (0, 1, 4):
        die_at(limit)
        with pytest.raises(Killed):
            prepare([root, tar], broken, AS_CROPS)
        assert not (broken / "prepared.json").exists()
    monkeypatch.setattr(store.Store, "write", real_write)
    monkeypatch.setattr(flow, "look", look_and_count)
    for part in ("write_page", "write_pipeline", "write_text"):  # killed while the results are written
        with monkeypatch.context() as patch:
            patch.setattr(flow, part, lambda *_, **__: (_ for _ in ()).throw(Killed()))
            with pytest.raises(Killed):
                prepare([root, tar], broken, AS_CROPS)
    (broken / "train.partial-00000000").mkdir()
    prepare([root, tar], broken, AS_CROPS)
    assert len(looked) == 21 - 16  # what was looked at before is not looked at again
    assert contents(whole) == contents(broken)
    looked.clear()
    assert prepare([root, tar], broken, AS_CROPS) == read_record(broken) and not looked


def test_a_process_that_is_killed_leaves_nothing_half_done(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "photos", [f"{n:02d}.png" for n in range(12)])
    code = (
        "import os, signal, sys\nfrom recon_toolkit.preparation import flow\n"
        "from recon_toolkit.preparation.record import PrepareOptions\nflow.CHUNK = 4\nreal = flow.Store.write\n"
        "def write(self, number, *rest):\n    real(self, number, *rest)\n"
        "    number == 1 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "flow.Store.write = write\n"
        "flow.prepare([sys.argv[1]], sys.argv[2], PrepareOptions(size=32, detector=None, min_side=32))\n"
    )
    out = tmp_path / "bbbb"
    assert subprocess.run([sys.executable, "-c", code, str(root), str(out)], timeout=60).returncode < 0
    assert (out / ".prepare" / "chunk-000001.npz").exists() and not (out / "prepared.json").exists()
    prepare([root], out, AS_CROPS)
    prepare([root], tmp_path / "aaaa", AS_CROPS)
    assert contents(out) == contents(tmp_path / "aaaa")


def test_other_options_and_other_pictures_are_refused(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "photos", [f"{n}.png" for n in range(4)])
    prepare([root], tmp_path / "out", AS_CROPS)
    with pytest.raises(DataError, match=r"other options: size is now 48, was 32.*another --out"):
        prepare([root], tmp_path / "out", AS_CROPS.model_copy(update={"size": 48}))
    save(root / "new.png", picture(9))
    with pytest.raises(DataError, match="other pictures"):
        prepare([root], tmp_path / "out", AS_CROPS)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("do not touch")
    with pytest.raises(DataError, match="holds other files"):
        prepare([root], tmp_path / "full", AS_CROPS)


# -- the data set and the verdict --------------------------------------------------------------------------------------


def test_the_data_set_reads_the_packs_and_averages_for_smaller_images(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "photos", [f"{n}.png" for n in range(8)])
    prepare([root], tmp_path / "out", AS_CROPS)
    context = DataContext(cache=tmp_path / "cache", root=None)
    dataset = PreparedPhotographs(root=tmp_path / "out")
    full, half = dataset.open("train", 32, context), dataset.open("train", 16, context)
    assert full.folder == tmp_path / "out" / "train" and half.names == full.names
    images = full.batch([0, 1]).image
    mean = images.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))
    assert (half.batch([0, 1]).image - mean).abs().max() < 1.01 / 255  # Pillow rounds after the rows, and again
    assert dataset.open("train", 16, context).folder == half.folder
    assert PreparedPhotographs().open("val", 32, DataContext(cache=context.cache, root=tmp_path / "out"))
    with pytest.raises(DataError, match=r"prepare again with --size 64"):
        dataset.open("train", 64, context)
    with pytest.raises(DataError, match="recon data prepare"):
        PreparedPhotographs(root=root).open("train", 32, context)
    prepare([root], tmp_path / "none", AS_CROPS.model_copy(update={"val": 0.0}))
    with pytest.raises(MissingSplit, match="--val"):
        PreparedPhotographs(root=tmp_path / "none").open("val", 32, context)


def judged(count: int, *, yaw: Sequence[float | None] = (None,), doubles: int = 0, side: float = 128) -> dict[str, str]:
    pictures = [
        Picture(source=str(n), input=0, place=str(n), box=(0, 0, side, side), yaw=yaw[n % len(yaw)], asymmetry=0.3)
        for n in range(count)
    ]
    mean = np.tile(np.abs(np.arange(16) - 7.5), (16, 1))
    verdict = judge(
        pictures, {"train": count, "val": 5, "test": 5}, {"double": doubles} if doubles else {}, PrepareOptions(), mean
    )
    return {line.what: line.level for line in verdict.lines} | {"": verdict.overall}


def test_the_verdict_follows_the_numbers() -> None:
    assert set(judged(5000).values()) == {"good"}
    few = judged(300)
    assert few["images"] == few[""] == "will not work"
    little = judged(1000)
    assert little["images"] == little[""] == "may work"
    assert judged(5000, yaw=(-20, 0, 20))["turn"] == "good"
    assert judged(5000, yaw=(-1, 0, 1))["turn"] == "will not work"
    assert judged(5000, side=50)["resolution"] == "may work"
    assert judged(4000, doubles=2500)["doubles"] == "may work"


def test_one_image_repeated_is_told(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for n in range(20):
        save(root / f"{n}.png", picture(0))
    prepared = prepare([root], tmp_path / "out", AS_CROPS)
    (line,) = (line for line in prepared.verdict.lines if line.what == "doubles")
    assert prepared.kept == {"train": 1, "val": 0, "test": 0} and prepared.left_out == {"double": 19}
    assert line.level == prepared.verdict.overall == "will not work" and "one picture, over and over" in line.found


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_leads_to_training(tmp_path: Path, recon: Run) -> None:
    root = folder_of(tmp_path / "photos", [f"{n}.png" for n in range(40)])
    command = ("data", "prepare", root, "--out", tmp_path / "out", "--no-detect", "--size", "32", "--min-side", "32")
    code, out, _ = recon(*command)
    assert code == 0 and "verdict before training: will not work" in out
    pipeline = tmp_path / "out" / "pipeline.yaml"
    assert f"recon run --pipeline {pipeline} --out runs/mine" in out
    page = (tmp_path / "out" / "index.html").read_text()
    assert "kept.png" in page and (tmp_path / "out" / "kept.png").is_file() and "will not work" in page
    code, out, _ = recon("data", "pack", "--pipeline", pipeline, "--size", "16", "--json")
    assert code == 0 and sum(each["images"] for each in json.loads(out).values()) == 40
    code, out, err = recon(*command, "--json")
    assert code == 0 and json.loads(out)["kept"]["train"] > 30 and "prepared already" in err


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_bad_inputs_are_named_and_the_rest_goes_on(tmp_path: Path, recon: Run) -> None:
    root = folder_of(tmp_path / "photos", ["a.png", "b.png"])
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.png")).write_bytes(png(7))
    options = ("--no-detect", "--size", "32")
    code, out, err = recon("data", "prepare", root, tmp_path / "gone", "--out", tmp_path / "out", *options)
    assert code == 3 and "3 crops of 3 are kept" in out and "gone: no such file" in err
    assert read_record(tmp_path / "out").pictures[2].place == "caf\ufffd.png"
    (tmp_path / "empty").mkdir()
    code, _, err = recon("data", "prepare", tmp_path / "empty", "--out", tmp_path / "none", *options)
    assert code == 2 and "holds no images" in err and not (tmp_path / "none").exists()
    code, _, err = recon("data", "prepare", root, "--out", tmp_path / "none", "--no-detect", "--min-side", "999")
    assert code == 2 and "3 too small" in err and "lower --min-side" in err and not (tmp_path / "none").exists()
    for wrong, message in (
        (("--no-detect", "--crop", "a"), "--crop"),
        (("--crop", "20"), "--no-detect"),
        (("--no-detect", "--several", "some"), "--several"),
        (("--no-detect", "--val", "0.6", "--test", "0.5"), "below 1"),
    ):
        code, _, err = recon("data", "prepare", root, "--out", tmp_path / "none", *wrong)
        assert code == 2 and message in err, err


def test_a_square_of_ones_own_is_cut(tmp_path: Path, recon: Run) -> None:
    save(tmp_path / "photos" / "a.png", picture(0, 100))
    command = (
        "data",
        "prepare",
        tmp_path / "photos",
        "--no-detect",
        "--size",
        "32",
        "--min-side",
        "32",
        "--crop",
        "10,20,32",
    )
    assert recon(*command, "--out", tmp_path / "out")[0] == 0
    (pixels,) = PackedImages.open(tmp_path / "out" / "train").raw_batch([0])["image"].numpy()
    assert (pixels.transpose(1, 2, 0) == np.asarray(picture(0, 100))[20:52, 10:42]).all()

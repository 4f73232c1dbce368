"""``recon score`` and ``recon data`` as a user calls them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from recon_toolkit.data.float_maps import write_exr
from recon_toolkit.io.maps import write_depth_png
from recon_toolkit.metrics.score import resampled

Run = Callable[..., tuple[int, str, str]]
SIZE = 20
#: What the integers of :func:`as_png` mean.
SCALE = ("--gt-scale", "1.1", "-0.2")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is packed here is counted here."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def ball(seed: int = 0) -> np.ndarray[Any, Any]:
    """A depth map with an object before a background at 1.1: (SIZE, SIZE)."""
    v, u = (np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2) / (SIZE / 2)
    shift = np.random.default_rng(seed).uniform(-0.1, 0.1)
    inside = 0.7 - (u + shift) ** 2 - v**2
    return np.where(inside > 0, 1.07 - 0.1 * np.sqrt(np.maximum(inside, 0)), 1.1)


def as_png(depth: np.ndarray[Any, Any], bits: int = 16) -> Image.Image:
    steps = 2**bits - 1
    return Image.fromarray(np.rint((1.1 - depth) / 0.2 * steps).astype(np.uint16 if bits == 16 else np.uint8))


def write_floats(path: Path, depth: np.ndarray[Any, Any]) -> None:
    match path.name:
        case "p.exr":
            write_exr(path, depth)
        case "p.pfm":
            path.write_bytes(b"Pf\n%d %d\n-1.0\n" % depth.shape[::-1] + depth[::-1].astype("<f4").tobytes())
        case "p16.tif" | "p64.tif":
            tifffile.imwrite(path, depth.astype(np.float16 if "16" in path.name else np.float64))
        case "p16.npy":
            np.save(path, depth.astype(np.float16))
        case _:
            np.savez_compressed(path, depth=depth, other=depth * 2)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    prediction, truth = tmp_path / "prediction", tmp_path / "truth"
    prediction.mkdir()
    truth.mkdir()
    for seed in range(3):
        np.save(prediction / f"{seed}.npy", ball(seed) * 1.5)
        as_png(ball(seed)).save(truth / f"{seed}.png")
    return prediction, truth


def test_one_object_of_json_on_standard_output(recon: Run, folders: tuple[Path, Path]) -> None:
    code, out, _ = recon("score", *folders, *SCALE, "--json")
    found = json.loads(out)
    assert code == 0
    # The truth has 16 bits: half a step of 3e-6 in depth is 1.5e-6, which is 1.5e-4 in units of 1e-2.
    assert found["side"] < 3e-4
    # That step between neighbours two pixels (0.018) apart tilts a normal by up to 0.01 degrees.
    assert found["mad"] < 0.02
    assert found["slope"] == pytest.approx(1, abs=1e-3)
    assert (found["images"], found["skipped"], found["skipped_files"]) == (3, 0, [])
    for baseline in ("constant", "average"):
        assert set(found["baselines"][baseline]) >= {"side", "mad"}
    assert found["baselines"]["constant"]["mad"] > 10
    assert found["baselines"]["average"]["side"] < found["baselines"]["constant"]["side"]


def test_text_for_people(recon: Run, folders: tuple[Path, Path]) -> None:
    code, out, _ = recon("score", *folders, *SCALE)
    assert code == 0 and "another size" not in out
    assert "constant depth" in out and "average depth" in out and "3 images scored" in out


def test_single_files_of_8_bits_and_scales(recon: Run, tmp_path: Path) -> None:
    as_png(ball(), 8).save(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", ball())
    of_wu = ("--pred-scale", "1.1", "-0.2")
    code, out, _ = recon("score", tmp_path / "a.png", tmp_path / "b.npy", "--json", *of_wu)
    assert code == 0
    assert json.loads(out)["side"] < 0.05  # half a step of 8 bits: 4e-4 in depth, 0.04 in units of 1e-2
    code, out, _ = recon("score", tmp_path / "a.png", tmp_path / "b.npy", "--json", "--pred-scale", "2.2", "-0.4")
    assert json.loads(out)["mae"] == pytest.approx(1, abs=0.1)  # twice as far, about 1 too much


def test_masks_may_be_given(recon: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", ball())
    spoilt = ball()
    spoilt[:, : SIZE // 2] += 0.5
    np.save(tmp_path / "p.npy", spoilt)
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    mask[5:15, SIZE // 2 :] = True
    np.save(tmp_path / "m.npy", mask)
    for option in ("--mask", "--pred-mask"):
        code, out, _ = recon("score", tmp_path / "p.npy", tmp_path / "t.npy", option, tmp_path / "m.npy", "--json")
        assert code == 0
        found = json.loads(out)
        assert found["side"] == 0 and found["mae"] == 0
    assert found["coverage"] < 0.5


def test_what_cannot_be_scored_is_skipped_named_and_counted(recon: Run, folders: tuple[Path, Path]) -> None:
    prediction, truth = folders
    (prediction / "0.npy").write_bytes(b"")
    np.save(prediction / "1.npy", np.ones((7, 7)))
    np.save(prediction / "extra.npy", ball())
    code, out, err = recon("score", prediction, truth, "--json", "--no-resize", *SCALE)
    found = json.loads(out)
    assert (code, found["images"], found["skipped"]) == (0, 1, 3)
    assert {item["name"] for item in found["skipped_files"]} == {"0", "1", "extra"}
    assert "0 bytes" in err and "7×7" in err and "no ground truth" in err


@pytest.mark.parametrize("kind", ["nowhere", "mixed", "empty", "names", "nothing good", "fov"])
def test_errors_say_what_to_do_and_exit_with_2(
    recon: Run, folders: tuple[Path, Path], tmp_path: Path, kind: str
) -> None:
    prediction, truth = folders
    arguments: dict[str, tuple[Any, ...]] = {
        "nowhere": (tmp_path / "nowhere", truth),
        "mixed": (prediction, truth / "0.png"),
        "empty": (tmp_path / "cache", truth),
        "names": (tmp_path / "other", truth),
        "nothing good": (tmp_path / "bad", truth),
        "fov": (prediction, truth, "--fov", "200"),
    }
    (tmp_path / "cache").mkdir()
    (tmp_path / "other").mkdir()
    np.save(tmp_path / "other" / "x.npy", ball())
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "0.npy").write_bytes(b"no array")
    code, out, err = recon("score", *arguments[kind])
    assert (code, out) == (2, "")
    assert err.startswith("error: ") or "\nerror: " in err
    assert "(" in err  # the remedy


def test_integers_of_unknown_meaning_are_not_scored_in_silence(recon: Run, tmp_path: Path) -> None:
    as_png(ball()).save(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", ball())
    for files, option in ((("a.png", "b.npy"), "--pred-scale"), (("b.npy", "a.png"), "--gt-scale")):
        code, out, err = recon("score", *(tmp_path / name for name in files))
        assert (code, out) == (2, "") and "a.png" in err and f"{option} OFFSET SLOPE" in err
        assert recon("score", *(tmp_path / name for name in files), option, "1.1", "-0.2")[0] == 0
    write_depth_png(tmp_path / "a.png", ball(), np.ones((SIZE, SIZE), bool))  # which says its scale
    assert recon("score", tmp_path / "a.png", tmp_path / "b.npy")[0] == 0


def test_predictions_of_another_size_are_resampled_and_counted(recon: Run, tmp_path: Path) -> None:
    def plane(size: int) -> np.ndarray[Any, Any]:
        """Flat in all but a corner; bilinear sampling keeps it exactly, with the corners where they were."""
        v, u = np.mgrid[:size, :size] / (size - 1)
        return 1 + 0.05 * u + 0.02 * v

    np.save(tmp_path / "t.npy", plane(SIZE))
    np.save(tmp_path / "p.npy", plane(33))
    code, out, _ = recon("score", tmp_path / "p.npy", tmp_path / "t.npy", "--json")
    found = json.loads(out)
    # Sampling a plane is exact but for the rounding of float64, 1e-16.
    assert (code, found["resized"]) == (0, 1) and found["mae"] < 1e-12
    assert "1 predictions were of another size" in recon("score", tmp_path / "p.npy", tmp_path / "t.npy")[1]
    code, out, err = recon("score", tmp_path / "p.npy", tmp_path / "t.npy", "--no-resize")
    assert (code, out) == (2, "") and "33×33" in err and "20×20" in err


def test_what_is_no_depth_has_no_part_in_what_is_resampled() -> None:
    depth = np.full((4, 4), np.nan)
    depth[:, :2] = 1.0
    found = resampled(depth, (7, 7))
    assert np.array_equal(np.isfinite(found[0]), [True] * 4 + [False] * 3)  # column 3 lies between 1 and 2
    assert np.nanmax(found) == np.nanmin(found) == 1


@pytest.mark.parametrize("name", ["p.exr", "p.pfm", "p16.tif", "p64.tif", "p16.npy", "p.npz"])
def test_every_form_of_floats_is_scored(recon: Run, tmp_path: Path, name: str) -> None:
    if name.endswith("exr"):
        pytest.importorskip("OpenEXR")
    np.save(tmp_path / "t.npy", ball())
    write_floats(tmp_path / name, ball())
    code, out, _ = recon("score", tmp_path / name, tmp_path / "t.npy", "--json")
    # float16 has steps of 1e-3 at 1, half of which is 5e-4.
    assert code == 0 and json.loads(out)["mae"] < 5e-4


def test_pipes_devices_and_circular_links_are_one_message(recon: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", ball())
    for suffix in (".npy", ".npz", ".png", ".exr", ".pfm", ".tif"):
        (tmp_path / f"zero{suffix}").symlink_to("/dev/zero")
        (tmp_path / f"circle{suffix}").symlink_to(f"circle{suffix}")
        os.mkfifo(tmp_path / f"pipe{suffix}")
        for kind, message in (("zero", "pipe or a device"), ("pipe", "pipe or a device"), ("circle", "link")):
            code, out, err = recon("score", tmp_path / f"{kind}{suffix}", tmp_path / "t.npy")
            assert (code, out) == (2, "") and message in err and err.count("\n") <= 2
    for name in ("a\0b.npy", "a" * 5000 + ".npy"):
        assert recon("score", tmp_path / name, tmp_path / "t.npy")[0] == 2


def test_an_image_without_a_pixel_to_score_is_null_in_json(recon: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.ones((SIZE, SIZE)))  # constant: no object
    code, out, _ = recon("score", tmp_path / "t.npy", tmp_path / "t.npy", "--json")
    found = json.loads(out)
    assert (code, found["images"], found["empty"], found["side"]) == (0, 0, 1, None)


def test_data_previews_packs_and_lists_a_folder(recon: Run, tmp_path: Path) -> None:
    (tmp_path / "photos" / "train").mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (30, 20), (number * 60, 9, 9)).save(tmp_path / "photos" / "train" / f"{number}.png")
    (tmp_path / "photos" / "train" / "bad.jpg").write_bytes(b"nothing")
    common = ("--dataset", "image-folder", "--data", tmp_path / "photos", "--size", "16")
    code, out, err = recon("data", "pack", *common, "--split", "train", "--json")
    found = json.loads(out)
    assert (code, found["train"]["images"], found["train"]["skipped"]) == (0, 3, 1)
    assert "bad.jpg" in err
    code, out, _ = recon("data", "preview", *common, "--out", tmp_path / "sheet.png")
    assert code == 0 and "3 of 3 images" in out
    assert Image.open(tmp_path / "sheet.png").width > 96
    code, out, _ = recon("data", "list", "--json")
    listed = json.loads(out)
    assert {"image-folder", "celeba", "depth-pairs"} <= {item["name"] for item in listed["datasets"]}
    assert [item["images"] for item in listed["packed"]] == [3]
    code, out, _ = recon("data", "list")
    assert code == 0 and "image-folder" in out and "3 images" in out


def test_data_errors_exit_with_2(recon: Run, tmp_path: Path) -> None:
    common = ("data", "pack", "--dataset", "image-folder")
    for arguments, problem in (
        ((*common, "--data", tmp_path / "nowhere"), "no such folder"),
        ((*common, "--data", tmp_path, "--split", "trian"), "no split 'trian'"),
        (("data", "pack", "--dataset", "image-floder"), "image-floder"),
        (("data", "pack", "--pipeline", "unsup3d-quik"), "unsup3d-quik"),
        (("data", "make", "--out", tmp_path), "exists"),
        (("data", "make", "--out", tmp_path / "new", "--depth", "jpg"), "jpg"),
    ):
        code, out, err = recon(*arguments)
        assert (code, out) == (2, ""), arguments
        assert problem in err


def test_reconstructions_are_scored_as_they_lie(recon: Run, untrained_run: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "truth").mkdir()
    for number in range(2):
        Image.new("RGB", (32, 32), (90, 60 * number, 30)).save(tmp_path / "images" / f"{number}.png")
        v, u = (np.mgrid[:32, :32] - 15.5) / 16
        np.save(tmp_path / "truth" / f"{number}.npy", np.where(u**2 + v**2 < 0.5, 1 + 0.1 * (u**2 + v**2), 1.1))
    out = tmp_path / "out"
    arguments = ("--run", untrained_run, "--no-detect", "--write", "maps", "--out", out, tmp_path / "images")
    assert recon("reconstruct", *arguments)[0] == 0
    code, text, _ = recon("score", out, tmp_path / "truth", "--json")
    found = json.loads(text)
    assert (code, found["images"], found["skipped"]) == (0, 2, 0)
    assert math.isfinite(found["side"]) and found["coverage"] > 0

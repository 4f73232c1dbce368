"""``recon reconstruct`` and the library's front door: files, folders, videos, models and what is written of each."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from recon_toolkit import DataError, Model, ReconError, Reconstructor, Result, load_pipeline
from recon_toolkit.detection import Detection
from recon_toolkit.engine.checkpoint import WEIGHTS, share_weights
from recon_toolkit.errors import CheckpointError, PluginError
from recon_toolkit.inference.batch import reconstruct_files
from recon_toolkit.inference.bundled import bundled_models
from recon_toolkit.inference.folder import find_sources
from recon_toolkit.inference.models import load_model, load_models
from recon_toolkit.inference.outputs import OUTPUTS, Outputs
from recon_toolkit.inference.pictures import Finder, Source, pixels_of
from recon_toolkit.plugins import load_plugins
from recon_toolkit.reconstructor import load_detector
from recon_toolkit.structures import Reconstruction

Run = Callable[..., tuple[int, str, str]]
SIZE = 32  # of the untrained run


@pytest.fixture(scope="module")
def run_folder(untrained_run: Path) -> Path:
    return untrained_run


@pytest.fixture(scope="module")
def reconstructor(run_folder: Path) -> Reconstructor:
    return Reconstructor.load(run=run_folder, detector=None)


def noise(height: int = 40, width: int = 50, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def middle(image: NDArray[np.uint8], /) -> list[Detection]:
    """A detector that sees an object in the middle of every picture but a black one, and a second one at the left."""
    if image.max() == 0:
        return []
    height, width = image.shape[:2]
    return [
        Detection(width / 4, height / 4, width / 2, height / 2, 2.0, "thing"),
        Detection(-width / 8, 0, width / 4, width / 4, 1.0, "thing"),
    ]


# --- inputs ---------------------------------------------------------------------------------------------------------


def test_names_of_all_kinds_are_found_once_and_keep_their_places(tmp_path: Path) -> None:
    crops = tmp_path / "a folder"
    (crops / "tief").mkdir(parents=True)
    names = ["a.png", "a.jpg", "A.PNG.png", "tief/a.png", "ünï ☃.png", "odd[1].png", ".hidden.png", "clip.mp4", "x.txt"]
    for name in names:
        (crops / name).write_bytes(b"x")
    sources, failed = find_sources([crops, crops / "odd[1].png", f"{crops}/*.jpg", tmp_path / "none.png"])
    folders = [source.folder for source in sources]
    assert sorted(folders) == sorted(["a", "a-2", "A.PNG", "tief/a", "ünï ☃", "odd[1]", "clip"])
    assert [(item.image, item.reason) for item in failed] == [(str(tmp_path / "none.png"), "no such file or folder")]


def test_results_are_no_inputs(recon: Run, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        Image.fromarray(noise()).save(name)
    for _ in range(2):
        code, text, _ = recon("reconstruct", "--weights", run_folder / WEIGHTS, "--no-detect", "--json", ".")
        assert code == 0 and len(json.loads(text)["reconstructed"]) == 2
    assert json.loads((tmp_path / "reconstructions" / "reconstructions.json").read_text()) == json.loads(text)


def test_no_two_objects_share_a_folder(run_folder: Path, tmp_path: Path) -> None:
    trained, pictures = load_model(run=run_folder), tmp_path / "in"
    pictures.mkdir()
    for seed, name in enumerate(("group.png", "group-face1.png", "index.html.png", "...jpg")):
        Image.fromarray(noise(seed=seed)).save(pictures / name, "PNG")
    report = reconstruct_files(
        trained,
        [pictures, pictures / "...jpg"],
        tmp_path / "out",
        finder=Finder(SIZE, middle),
        outputs=Outputs.of(["maps", "page"]),
    )
    folders = [item.folder for item in report.reconstructed]
    assert len(folders) == 8 == len(set(folders)) and not report.failed
    assert all(Path(folder).parent == tmp_path / "out" for folder in folders)
    assert all((Path(folder) / "depth.npy").is_file() for folder in folders)
    assert (tmp_path / "out" / "index.html").is_file()


def test_a_folder_of_the_users_own_is_left_alone(recon: Run, run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "kate").mkdir()
    (tmp_path / "kate" / "input.png").write_text("mine")
    Image.fromarray(noise()).save(tmp_path / "kate.png")
    code, _, err = recon("reconstruct", "--run", run_folder, "--no-detect", "--out", tmp_path, tmp_path / "kate.png")
    assert code == 2 and "holds other files" in err
    assert (tmp_path / "kate" / "input.png").read_text() == "mine"
    code, _, _ = recon("reconstruct", "--run", run_folder, "--out", tmp_path / "new", tmp_path / "typo.jpg")
    assert code == 2 and not (tmp_path / "new").exists()


def test_names_that_programs_stumble_over(recon: Run, run_folder: Path, tmp_path: Path) -> None:
    import os

    folder = os.fsencode(tmp_path / "in")
    os.mkdir(folder)
    for name in (b"caf\xe9.png", b"~c0.png"):
        with open(os.path.join(folder, name), "wb") as file:
            Image.fromarray(noise()).save(file, "PNG")
    out = tmp_path / "out"
    code, text, err = recon(
        "reconstruct", "--run", run_folder, "--no-detect", "--json", "--write", "maps,page", "--out", out,
        tmp_path / "in", "~nobody-of-this-name/x.png", "x" * 300,
    )  # fmt: skip
    assert code == 3 and len(json.loads(text)["reconstructed"]) == 2 and len(json.loads(text)["failed"]) == 2, err
    assert (out / "caf\ufffd" / "depth.npy").is_file()


def test_one_object_that_cannot_be_written_leaves_the_others(run_folder: Path, tmp_path: Path) -> None:
    class Lost(Model):
        """A model that has lost one object of three."""

        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network = network

        def reconstruct(self, images: Tensor) -> Reconstruction:
            found: Reconstruction = self.network.reconstruct(images)  # type: ignore[operator]
            assert found.canonical_depth is not None
            found.canonical_depth[1] = torch.nan
            return found

    trained = load_model(run=run_folder)
    trained = dataclasses.replace(trained, network=Lost(trained.network))
    for seed in range(3):
        Image.fromarray(noise(seed=seed)).save(tmp_path / f"{seed}.png")
    report = reconstruct_files(trained, [tmp_path], tmp_path / "out", finder=Finder(SIZE, None))
    assert [Path(item.image).name for item in report.reconstructed] == ["0.png", "2.png"]
    assert [Path(item.image).name for item in report.failed] == ["1.png"]
    assert (tmp_path / "out" / "index.html").is_file()


def test_a_detector_that_fails_on_a_picture_leaves_the_others(run_folder: Path, tmp_path: Path) -> None:
    def moody(image: NDArray[np.uint8], /) -> list[Detection]:
        if image.shape[0] == 41:
            raise PluginError("boom")
        return middle(image)

    for height in (40, 41, 42):
        Image.fromarray(noise(height)).save(tmp_path / f"{height}.png")
    report = reconstruct_files(
        load_model(run=run_folder), [tmp_path], tmp_path / "out", finder=Finder(SIZE, moody, 1),
        outputs=Outputs.of(["maps"]),
    )  # fmt: skip
    assert len(report.reconstructed) == 2 and [item.reason for item in report.failed] == ["boom"]


# --- pictures -------------------------------------------------------------------------------------------------------


def test_crops_are_cut_where_the_detector_saw_something() -> None:
    ramp = np.zeros((80, 80, 3), np.uint8)
    ramp[..., 0] = np.arange(80)[None]
    ramp[..., 1] = np.arange(80)[:, None]
    first, second = Finder(22, middle).crops(ramp, Source(Path("p.png"), "p"))
    # Box 20..60 in both directions; the reference's crop has 1.1 × its side and lies 0.15 of half that lower.
    assert first.name == "p-object1" and first.box == pytest.approx((18, 18 + 3.3, 44, 44))
    assert first.pixels.shape == (22, 22, 3) and first.photo.shape == (44, 44, 3)
    # Pixel i of 22 is the mean of the two columns from 18 + 2 i on, with a filter that reaches a little further.
    assert first.pixels[11, :, 0] == pytest.approx(18.5 + 2 * np.arange(22), abs=1)
    assert first.pixels[:, 11, 1] == pytest.approx(21.8 + 2 * np.arange(22), abs=1)
    assert second.box is not None and second.box[0] < 0
    assert (second.pixels[:, 0, 0] == 0).all()  # beyond the picture, its edge is repeated
    assert Finder(22, middle, limit=1).crops(ramp, Source(Path("p.png"), "p"))[0].name == "p"


def test_nothing_found_is_said_with_what_to_do() -> None:
    with pytest.raises(DataError, match="no object was found") as caught:
        Finder(22, middle).crops(np.zeros((9, 9, 3), np.uint8), Source(Path("dark.png"), "dark"))
    assert "dark.png" in str(caught.value) and "--no-detect" in str(caught.value)


@pytest.mark.parametrize("height, width", [(1, 1), (1, 70), (300, 20)])
def test_a_picture_of_any_shape_is_a_crop_without_detection(height: int, width: int) -> None:
    crop = Finder(32, None).crops(noise(height, width), Source(Path("p.png"), "p"))[0]
    assert crop.pixels.shape == (32, 32, 3) and crop.box is None


def test_pictures_in_any_form_are_the_same_picture(tmp_path: Path) -> None:
    pixels = noise()
    Image.fromarray(pixels).save(tmp_path / "p.png")
    forms: list[Any] = [
        pixels, tmp_path / "p.png", str(tmp_path / "p.png"), Image.fromarray(pixels), pixels / 255,
        torch.from_numpy(pixels).permute(2, 0, 1) / 255, np.dstack((pixels, np.full_like(pixels[..., :1], 255))),
    ]  # fmt: skip
    for form in forms:
        assert (pixels_of(form) == pixels).all()
    clear = np.dstack((pixels, np.zeros(pixels.shape[:2], np.uint8)))
    assert (pixels_of(clear) == 255).all()  # transparent parts are laid on white, as in files
    grey = pixels_of(pixels[..., 0])
    assert (grey == pixels[..., :1]).all()
    turned = Image.fromarray(pixels)
    turned.getexif()[0x0112] = 6  # to be shown turned by 90° clockwise
    assert (pixels_of(turned) == np.rot90(pixels, -1)).all()


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        (np.zeros((3, 8, 8), np.uint8), "not a picture"),
        (np.zeros((8, 8, 3), np.int64), "int64"),
        (np.full((8, 8, 3), 2.0), r"not all in \[0, 1\]"),
        (np.full((8, 8, 3), np.nan), r"not all in \[0, 1\]"),
        (torch.zeros(8, 8, 3), "not a picture"),
        (np.zeros((0, 8, 3), np.uint8), "not a picture"),
    ],
)
def test_what_is_no_picture_is_refused(form: Any, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        pixels_of(form)


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_good_are_done_and_the_bad_are_counted(recon: Run, run_folder: Path, tmp_path: Path) -> None:
    crops = tmp_path / "crops"
    (crops / "deep").mkdir(parents=True)
    for number, name in enumerate(("a.png", "a.jpg", "deep/a b.ü.png")):
        Image.fromarray(noise(seed=number)).save(crops / name)
    (crops / "broken.png").write_bytes(b"")
    out = tmp_path / "out"
    code, text, err = recon(
        "reconstruct", "--run", run_folder, "--no-detect", "--out", out, "--json", "--batch-size", "2", crops,
        tmp_path / "none.png", f"{crops}/*.jpg",  # named already: done once
    )  # fmt: skip
    found = json.loads(text)
    assert code == 3  # some, not all
    folders = {Path(item["folder"]).relative_to(out).as_posix() for item in found["reconstructed"]}
    assert folders == {"a", "a-2", "deep/a b.ü"}
    assert len(found["failed"]) == 2 and "0 bytes" in err and "none.png" in err
    for item in found["reconstructed"]:
        files = {path.name for path in Path(item["folder"]).iterdir()}
        assert {"depth.npy", "depth_16bit.png", "normals.png", "mask.png", "confidence.png", "mesh.obj"} <= files
        assert "mesh.glb" in files and "index.html" not in files
    assert Image.open(found["contact_sheet"]).height > 3 * 96
    assert Path(found["page"]) == out / "index.html" and "a b.ü" in (out / "index.html").read_text()
    assert np.load(out / "a" / "depth.npy").shape == (SIZE, SIZE)


def test_every_output_is_written_where_it_is_asked_for(recon: Run, run_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("OpenEXR")
    Image.fromarray(noise()).save(tmp_path / "p.png")
    out = tmp_path / "out"
    arguments = ["--run", run_folder, "--no-detect", "--out", out, "--size", "48", "--video", "gif"]
    arguments += ["--texture", "model"]
    kinds = ",".join(kind for kind in OUTPUTS if kind not in ("cloud", "voxels"))  # of models of points
    code, _, err = recon("reconstruct", *arguments, "--write", kinds, tmp_path / "p.png")
    assert code == 0, err
    files = {path.name for path in (out / "p").iterdir()}
    expected = {"depth.exr", "turntable.gif", "relight.gif", "index.html", "depth.npy"}
    assert expected | {f"mesh.{kind}" for kind in ("glb", "obj", "ply", "stl", "3mf")} <= files
    assert np.load(out / "p" / "depth.npy").shape == (48, 48)
    assert Image.open(out / "p" / "turntable.gif").size == (48, 48)


def test_wrong_requests_are_refused_before_any_work(recon: Run, run_folder: Path, tmp_path: Path) -> None:
    Image.fromarray(noise()).save(tmp_path / "p.png")
    (tmp_path / "bad.png").write_bytes(b"x")
    (tmp_path / "bad.safetensors").write_bytes(b"not weights")
    (tmp_path / "file").write_bytes(b"")
    model = ("--run", run_folder, "--no-detect")
    for arguments, problem in (
        ((*model, "--out", tmp_path / "o", tmp_path / "bad.png"), "nothing was reconstructed"),
        (("--run", tmp_path, tmp_path / "p.png"), "not a run folder"),
        (("--run", run_folder, "--weights", tmp_path / "x", tmp_path / "p.png"), "run and weights name a model each"),
        (("--weights", tmp_path / "bad.safetensors", tmp_path / "p.png"), "nothing in it was executed"),
        (("--weights", tmp_path, tmp_path / "p.png"), "is a folder, not a weights file"),
        (("--model", "nobody", tmp_path / "p.png"), "there is no bundled model 'nobody'"),
        ((*model, "--device", "cuda:77", tmp_path / "p.png"), "--device cuda:77"),
        ((*model, "--write", "maps,glbb", tmp_path / "p.png"), "there is no output 'glbb'"),
        ((*model, "--texture", "foto", tmp_path / "p.png"), "there is no texture 'foto'"),
        ((*model, "--video", "avi", tmp_path / "p.png"), "there is no video format 'avi'"),
        ((*model, "--size", "5", tmp_path / "p.png"), "outside 8 to 4096"),
        ((*model, "--height", "0", tmp_path / "p.png"), "outside 1 to 2000"),
        (("--run", run_folder, "--detector", "mtcn", tmp_path / "p.png"), "mtcn"),
        ((*model, "--out", tmp_path / "file" / "below", tmp_path / "p.png"), "lies below a file"),
    ):
        code, out, err = recon("reconstruct", *arguments)
        assert (code, out) == (2, ""), arguments
        assert problem in err, err


def test_a_video_is_taken_frame_by_frame(recon: Run, run_folder: Path, tmp_path: Path) -> None:
    from recon_toolkit.io.video import write_video

    write_video(tmp_path / "clip.mp4", [noise(32, 32, seed) for seed in range(9)], fps=10)
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "clip.mp4").read_bytes()[:300])
    out = tmp_path / "out"
    code, text, err = recon(
        "reconstruct", "--run", run_folder, "--no-detect", "--out", out, "--json", "--write", "maps", "--every", "4",
        tmp_path / "clip.mp4", tmp_path / "cut.mp4",
    )  # fmt: skip
    found = json.loads(text)
    assert code == 3 and "cut.mp4 was skipped" in err
    assert [item["frame"] for item in found["reconstructed"]] == [0, 4, 8]
    assert (out / "clip" / "frame-000004" / "depth.npy").is_file()


# --- models ---------------------------------------------------------------------------------------------------------


def test_one_file_holds_a_whole_model(run_folder: Path, tmp_path: Path) -> None:
    images = torch.rand(2, 3, SIZE, SIZE)
    size = share_weights(run_folder, tmp_path / "small.safetensors")
    share_weights(run_folder, tmp_path / "whole.safetensors", half=False)
    assert size < 0.6 * (tmp_path / "whole.safetensors").stat().st_size
    run, whole, small = (
        Reconstructor.load(detector=None, **source).reconstruct_batch(images).depth
        for source in (
            {"run": run_folder},
            {"weights": tmp_path / "whole.safetensors"},
            {"weights": tmp_path / "small.safetensors"},
        )
    )
    assert run is not None and whole is not None and small is not None
    assert (run == whole).all()
    # Half precision rounds weights by 2⁻¹¹ of themselves; over some ten layers that stays below 1 % of the depth range.
    assert (run - small).abs().max() < 0.002


def test_the_command_shares_a_model_and_wants_a_finished_run(recon: Run, run_folder: Path, tmp_path: Path) -> None:
    code, text, _ = recon("weights", run_folder, "--out", tmp_path / "a model.safetensors")
    assert code == 0 and text.endswith(" MB\n")
    Image.fromarray(noise()).save(tmp_path / "p.png")
    arguments = (
        "--weights",
        tmp_path / "a model.safetensors",
        "--no-detect",
        "--write",
        "maps",
        "--out",
        tmp_path / "o",
    )
    assert recon("reconstruct", *arguments, tmp_path / "p.png")[0] == 0
    for run in (tmp_path, tmp_path / "none"):
        code, _, err = recon("weights", run, "--out", tmp_path / "b.safetensors")
        assert code == 2 and "no finished model" in err


def test_bundled_models_fit_their_limit_and_have_a_card() -> None:
    models = {model.name: model for model in bundled_models(load_plugins())}
    assert {*models} == {"cats", "faces", "faces-synthetic"}
    for name, model in models.items():
        assert model.path.stat().st_size <= 16e6
        card = model.card.read_text()
        for part in ("seed", "recon run --pipeline", "cannot", "licence", "unseen"):
            assert part in card
        assert ("research only" in model.summary) == (name != "faces-synthetic")
        # What a file names is there on every machine: no folder or file of the one that it was trained on.
        with safe_open(model.path, "pt") as file:
            stored = str(file.metadata())
        assert not re.search(r"(root|weights|start_from): [^nb]", stored) and "/" not in re.sub(
            r"https?://", "", stored
        )


def test_each_label_has_its_model(tmp_path: Path) -> None:
    models = load_models(host=load_plugins())
    assert (models.of("human").source, models.of("cat").source, models.of("dog").source) == ("faces", "cats", "faces")
    again = pickle.loads(pickle.dumps(models))
    assert again.of("cat").source == "cats" and models.source == "faces, cats"
    assert load_models(model="faces-synthetic", host=load_plugins()).of("cat").source == "faces-synthetic"


def test_a_picture_of_each_goes_to_the_model_of_each(recon: Run, tmp_path: Path) -> None:
    Image.fromarray(skimage.data.astronaut()).save(tmp_path / "person.png")
    Image.fromarray(skimage.data.cat()).save(tmp_path / "cat.png")
    out = tmp_path / "out"
    code, printed, _ = recon(
        "reconstruct", tmp_path / "person.png", tmp_path / "cat.png", "--out", out, "--json", "--write", "maps"
    )
    assert code == 0
    found = {Path(item["image"]).stem: (item["label"], item["model"]) for item in json.loads(printed)["reconstructed"]}
    assert found == {"person": ("human", "faces"), "cat": ("cat", "cats")}


def test_pathways_that_name_a_missing_model_are_refused(run_folder: Path, tmp_path: Path) -> None:
    share_weights(run_folder, tmp_path / "models" / "theirs.safetensors")
    plugin = tmp_path / "theirs.py"
    plugin.write_text(
        "from pathlib import Path\nfrom recon_toolkit import hookimpl\n"
        "@hookimpl\ndef recon_models(): yield Path(__file__).parent / 'models'\n"
    )
    pathways = tmp_path / "models" / "pathways.yaml"
    pathways.write_text("labels: {human: theirs, dog: theirs}\n")
    models = load_models(host=load_plugins([plugin]))
    assert models.of("dog").source == "theirs" and models.of("human").source == "faces"
    for text, message in (("labels: {dog: dogs}", "the model 'dogs'"), ("labels: [dog]", "cannot be read")):
        pathways.write_text(text)
        with pytest.raises(PluginError, match=message):
            load_models(host=load_plugins([plugin]))


def test_plugins_do_not_take_the_place_of_what_comes_with_the_toolkit(run_folder: Path, tmp_path: Path) -> None:
    share_weights(run_folder, tmp_path / "models" / "theirs.safetensors")
    plugin = tmp_path / "theirs.py"
    plugin.write_text(
        "from pathlib import Path\nfrom recon_toolkit import detector, hookimpl\n"
        "@hookimpl\ndef recon_models(): yield Path(__file__).parent / 'models'\n"
        "@detector('nothing')\ndef nothing(image): return []\n"
    )
    both, alone = load_plugins([plugin]), load_plugins([plugin], entry_points=[])
    assert {model.name for model in bundled_models(both)} == {"cats", "faces", "faces-synthetic", "theirs"}
    assert load_model(host=both).source == "faces" and load_model(model="theirs", host=both).image_size == SIZE
    assert load_detector("auto", alone)(noise()) == []
    with pytest.raises(PluginError, match="no detector is installed"):
        load_detector("auto", load_plugins(entry_points=[]))


def test_models_that_are_not_there_are_named(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="there is no bundled model 'dogs'"):
        load_model(model="dogs")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_model(weights=tmp_path / "none.safetensors")
    with pytest.raises(ReconError, match="name a model each"):
        load_model(model="faces", run=run_folder)


# --- the library ----------------------------------------------------------------------------------------------------


def test_a_result_has_typed_maps_and_says_what_it_is(reconstructor: Reconstructor) -> None:
    result = reconstructor.reconstruct(noise(), name="someone")
    shapes = {
        "depth": (SIZE, SIZE),
        "normals": (3, SIZE, SIZE),
        "light": (5,),
        "view": (6,),
        "confidence": (1, SIZE, SIZE),
    }
    for name, shape in shapes.items():
        value = getattr(result, name)
        assert isinstance(value, Tensor) and value.shape == shape
    assert repr(result).startswith("<Result 'someone': 32×32 depth, normals, albedo, shading, light, view, confidence")
    assert "turned by" in repr(result) and "on cpu" in repr(result)
    assert isinstance(reconstructor.reconstruct_all(noise())[0], Result)


def test_tensors_of_a_result_can_be_changed_and_differentiated(reconstructor: Reconstructor) -> None:
    result = reconstructor.reconstruct(noise())
    assert result.depth is not None and result.mask is not None
    result.depth[~result.mask] = torch.nan
    weight = torch.ones(SIZE, SIZE, requires_grad=True)
    (result.depth.nan_to_num() * weight).sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None and result == result


def test_a_notebook_gets_a_picture_and_a_page_in_a_frame_of_its_own(reconstructor: Reconstructor) -> None:
    result = reconstructor.reconstruct(noise(), name='<script>alert("x")</script>')
    shown = result._repr_html_()
    assert "<script>alert" not in shown and shown.count("<iframe") == 1 and "data:image/png;base64," in shown


def test_reconstructing_alone_or_in_a_batch_is_the_same(reconstructor: Reconstructor) -> None:
    pictures = [noise(SIZE, SIZE, seed) for seed in range(3)]
    batch = torch.stack([torch.from_numpy(p).permute(2, 0, 1) / 255 for p in pictures])
    together = reconstructor.reconstruct_batch(batch)
    assert together.depth is not None
    for index, picture in enumerate(pictures):
        alone = reconstructor.reconstruct(picture).depth
        assert alone is not None
        # Convolutions of other batch sizes add in another order.
        assert torch.allclose(alone, together.depth[index], atol=1e-5)
    with pytest.raises(ValueError, match=r"expected \(B, 3, 32, 32\)"):
        reconstructor.reconstruct_batch(batch[:, :, :16])


def test_textures_are_of_three_kinds(reconstructor: Reconstructor) -> None:
    result = reconstructor.reconstruct(noise())
    assert result.texture("photo").shape == (3, 256, 256)
    assert result.texture("model").shape == result.texture("albedo").shape == (3, SIZE, SIZE)
    with pytest.raises(ValueError, match="one of photo, model, albedo"):
        result.texture("gold")


def test_saving_writes_what_was_asked_for(reconstructor: Reconstructor, tmp_path: Path) -> None:
    result = reconstructor.reconstruct(noise())
    written = result.save(tmp_path / "all")
    assert {path.name for path in written} >= {"depth.npy", "mesh.glb", "mesh.obj", "index.html"}
    assert all(path.is_file() for path in written)
    assert [path.name for path in result.save(tmp_path / "glb", ["glb"])] == ["mesh.glb"]
    with pytest.raises(DataError, match="there is no output 'gold'"):
        Outputs.of(["gold"])


# --- refinement -----------------------------------------------------------------------------------------------------


def test_refining_lowers_the_loss_and_leaves_the_model_alone(reconstructor: Reconstructor) -> None:
    from recon_toolkit.inference.refine import refined

    images = torch.nn.functional.interpolate(torch.rand(70, 3, 4, 4), (SIZE, SIZE), mode="bilinear", align_corners=True)
    before = {name: value.clone() for name, value in reconstructor.trained.network.state_dict().items()}
    first, gain = refined(reconstructor.trained, images, 12, seed=4)
    again, repeated = refined(reconstructor.trained, images, 12, seed=4)
    assert gain.kept and gain.loss_after < gain.loss_before
    assert gain == repeated and "refined" in first.source
    for name, value in reconstructor.trained.network.state_dict().items():
        assert (value == before[name]).all()
    same = zip(first.network.state_dict().values(), again.network.state_dict().values(), strict=True)
    assert all((a == b).all() for a, b in same)
    assert not first.network.training


def test_a_refinement_that_does_harm_is_not_kept(reconstructor: Reconstructor) -> None:
    from recon_toolkit.inference.refine import refined

    images = torch.rand(2, 3, SIZE, SIZE)
    # A rate a thousand times too high throws the weights far away.
    after, gain = refined(reconstructor.trained, images, 5, learning_rate=30.0)
    assert not gain.kept and gain.loss_after == gain.loss_before
    for name, value in reconstructor.trained.network.state_dict().items():
        assert (after.network.state_dict()[name] == value).all()


def test_refining_leaves_out_losses_that_need_ground_truth(run_folder: Path) -> None:
    from dataclasses import replace

    from recon_toolkit.inference.refine import refined

    trained, images = load_model(run=run_folder), torch.rand(1, 3, SIZE, SIZE)
    losses = ["losses.true.name=supervised-depth", "losses.true.weight=1"]
    supervised = replace(trained, resolved=load_pipeline(str(run_folder / "pipeline.yaml"), losses))
    assert refined(supervised, images, 2)[1] == refined(trained, images, 2)[1]
    others = [f"losses.{name}=null" for name in trained.resolved.pipeline.losses]
    alone = replace(trained, resolved=load_pipeline(str(run_folder / "pipeline.yaml"), [*losses, *others]))
    with pytest.raises(ReconError, match="ground truth"):
        refined(alone, images, 1)
    with pytest.raises(ReconError, match="1 or more steps"):
        refined(trained, torch.rand(0, 3, SIZE, SIZE), 1)


def test_the_command_refines_and_says_what_it_gained(recon: Run, run_folder: Path, tmp_path: Path) -> None:
    Image.fromarray(noise()).save(tmp_path / "p.png")
    arguments = ("--run", run_folder, "--no-detect", "--write", "maps", "--out", tmp_path / "out", "--refine", "4")
    code, text, _ = recon("reconstruct", *arguments, "--json", tmp_path / "p.png")
    gain = json.loads(text)["refinement"]
    assert code == 0 and gain["steps"] == 4 and gain["loss_after"] <= gain["loss_before"]

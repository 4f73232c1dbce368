"""Published checkpoints imported: the same factors, normals, shading and renderings as the reference formulas give.

The reference is written here, from the description of the method and of its renderer, and uses nothing of the toolkit.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from published_layout import checkpoint, networks, write_checkpoint
from recon_unsup3d.importer import SLOTS, find_network, find_settings

from recon_toolkit import Batch, CheckpointError, PluginError
from recon_toolkit.assembly import build_model
from recon_toolkit.cli.app import execute
from recon_toolkit.config.pipeline import load_pipeline
from recon_toolkit.engine.checkpoint import load_checkpoint, load_weights
from recon_toolkit.importing import import_file

SIZE = 64
FOCAL = (SIZE - 1) / 2 / math.tan(math.radians(5))
CENTRE = (SIZE - 1) / 2
FACES = {"min": 0.9, "max": 1.1, "border": 1.04, "rotation": 60, "z": 0.0, "ambient": (0, 1), "diffuse": (0, 1)}


# -- the reference formulas --------------------------------------------------------------------------------------------


def points_of(depth):
    """(H, W, 3): P = d · K⁻¹ (u, v, 1)."""
    v, u = np.mgrid[: depth.shape[0], : depth.shape[1]].astype(np.float64)
    return np.stack(((u - CENTRE) / FOCAL, (v - CENTRE) / FOCAL, np.ones_like(u)), -1) * depth[..., None]


def normals_of(depth, epsilon=1e-7):
    """(H, W, 3): n = tu × tv over its length; a border of (0, 0, 1). The original's code adds 1e-7 to the length."""
    points = points_of(depth)
    found = np.zeros_like(points)
    found[..., 2] = 1
    across = points[1:-1, 2:] - points[1:-1, :-2]
    down = points[2:, 1:-1] - points[:-2, 1:-1]
    cross = np.cross(across, down)
    found[1:-1, 1:-1] = cross / (np.linalg.norm(cross, axis=-1, keepdims=True) + epsilon)
    return found


def turn(view):
    """R = Rz · Ry · Rx."""
    (sx, sy, sz), (cx, cy, cz) = np.sin(view[:3]), np.cos(view[:3])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def drawn(points, far=10.0):
    """Neural Renderer's depth map (H, W) of the grid mesh over points (H, W, 3), face by face, sample by sample.

    With the original's K, integer u lies on a pixel's edge: x = 2 (u − S/2) / S, samples at (2i + 1 − n) / n, n = 2S,
    and a pixel is the mean of its 2 × 2 samples, the background ``far`` included.
    """
    n = 2 * SIZE
    z = points[..., 2]
    x = 2 * (points[..., 0] / z * FOCAL + CENTRE - SIZE / 2) / SIZE
    y = 2 * (points[..., 1] / z * FOCAL + CENTRE - SIZE / 2) / SIZE  # down, as the rows
    x, y, z = x.ravel(), y.ravel(), z.ravel()
    index = np.arange(SIZE * SIZE).reshape(SIZE, SIZE)
    first = np.stack((index[:-1, :-1], index[1:, :-1], index[:-1, 1:]), -1).reshape(-1, 3)
    second = np.stack((index[:-1, 1:], index[1:, :-1], index[1:, 1:]), -1).reshape(-1, 3)
    nearest = np.full((n, n), far)
    for a, b, c in np.concatenate((first, second)):
        xs, ys, zs = x[[a, b, c]], y[[a, b, c]], z[[a, b, c]]
        area = (xs[1] - xs[0]) * (ys[2] - ys[0]) - (xs[2] - xs[0]) * (ys[1] - ys[0])
        i0, i1 = math.ceil((n * xs.min() + n - 1) / 2), math.floor((n * xs.max() + n - 1) / 2)
        j0, j1 = math.ceil((n * ys.min() + n - 1) / 2), math.floor((n * ys.max() + n - 1) / 2)
        i0, i1, j0, j1 = max(i0, 0), min(i1, n - 1), max(j0, 0), min(j1, n - 1)
        if area == 0 or i0 > i1 or j0 > j1:
            continue
        px = (2 * np.arange(i0, i1 + 1) + 1 - n) / n
        py = ((2 * np.arange(j0, j1 + 1) + 1 - n) / n)[:, None]
        w = [
            ((xs[k - 2] - px) * (ys[k - 1] - py) - (xs[k - 1] - px) * (ys[k - 2] - py)) / area for k in range(3)
        ]  # of corner k: the triangle of the sample and the other two
        inside = (w[0] >= 0) & (w[1] >= 0) & (w[2] >= 0)
        depth = 1 / (w[0] / zs[0] + w[1] / zs[1] + w[2] / zs[2])
        window = nearest[j0 : j1 + 1, i0 : i1 + 1]
        window[...] = np.where(inside & (depth > 0.1) & (depth < window), depth, window)
    return nearest.reshape(SIZE, 2, SIZE, 2).mean((1, 3))


def sampled(picture, u, v):
    """Bilinear, integer u and v at pixel centres, zero outside: picture (H, W, C) at (H, W) places."""
    u0, v0 = np.floor(u).astype(int), np.floor(v).astype(int)
    found = np.zeros((*u.shape, picture.shape[-1]))
    for du in (0, 1):
        for dv in (0, 1):
            x, y = u0 + du, v0 + dv
            weight = (1 - abs(u - x)) * (1 - abs(v - y)) * ((x >= 0) & (x < SIZE) & (y >= 0) & (y < SIZE))
            found += weight[..., None] * picture[y.clip(0, SIZE - 1), x.clip(0, SIZE - 1)]
    return found


def factors(made, image, settings):
    """The canonical object in an image (3, 64, 64) in [0, 1], in float64; pictures are (H, W, C) in [−1, 1]."""
    inputs = image.double()[None] * 2 - 1
    with torch.no_grad():
        out = {name: made[name].double().network(inputs) for name in ("netD", "netA", "netL", "netV")}
        sigma = made["netC"].double()
        confidence = sigma.out_net1(sigma.network(inputs))[0, 0].numpy()
    raw = out["netD"][0, 0].numpy()
    d = np.tanh(raw - raw.mean())
    depth = (1 + d) / 2 * settings["max"] + (1 - d) / 2 * settings["min"]
    depth[:, [0, 1, -2, -1]] = settings["border"]
    x = out["netL"].flatten().numpy()
    (amin, amax), (dmin, dmax) = settings["ambient"], settings["diffuse"]
    ambient, diffuse = (1 + x[0]) / 2 * amax + (1 - x[0]) / 2 * amin, (1 + x[1]) / 2 * dmax + (1 - x[1]) / 2 * dmin
    direction = np.array([x[2], x[3], 1.0])
    direction /= np.sqrt((direction**2).sum())
    v = out["netV"].flatten().numpy()
    view = np.concatenate((v[:3] * math.pi / 180 * settings["rotation"], v[3:5] * 0.1, v[5:] * settings["z"]))
    albedo, normals = out["netA"][0].permute(1, 2, 0).numpy(), normals_of(depth)
    shading = ambient + diffuse * np.maximum((normals * direction).sum(-1), 0)
    return SimpleNamespace(
        depth=depth, albedo=albedo, light=np.array([ambient, diffuse, *direction]), view=view, normals=normals,
        shading=shading, image=(albedo / 2 + 0.5) * shading[..., None] * 2 - 1, confidence=confidence,
    )  # fmt: skip


def rendered(canonical, settings):
    """The input view of the canonical object: depth and mask (H, W), image in [−1, 1], albedo in [0, 1] (H, W, 3)."""
    centre, rotation, move = np.array([0, 0, 1.0]), turn(canonical.view), canonical.view[3:]
    margin = (settings["max"] - settings["min"]) / 2
    far = settings["max"] + margin
    points = (points_of(canonical.depth) - centre) @ rotation.T + centre + move
    depth = drawn(points).clip(settings["min"] - margin, far)
    back = (points_of(depth) - move - centre) @ rotation + centre
    u, v = (back[..., k] / back[..., 2] * FOCAL + CENTRE for k in (0, 1))
    image, albedo = sampled(canonical.image, u, v), sampled(canonical.albedo / 2 + 0.5, u, v)
    return SimpleNamespace(depth=depth, mask=depth < far, normals=normals_of(depth), image=image, albedo=albedo)


# -- imported models ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small tensors take longest where many threads wait for each other on a machine that has other work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("published")


@pytest.fixture(scope="module")
def published(folder):
    """Networks of the published width, and the file that the original would write of them."""
    torch.manual_seed(3)
    made = networks()
    write_checkpoint(folder / "checkpoint030.pth", made)
    return made, folder / "checkpoint030.pth"


@pytest.fixture(scope="module")
def small(folder):
    """A checkpoint with narrow networks, which is quick to read."""
    torch.manual_seed(4)
    write_checkpoint(folder / "small" / "checkpoint100.pth", networks(8), zipped=True)
    return folder / "small" / "checkpoint100.pth"


def loaded(path, tmp_path):
    """The model of a weights file, from nothing but the file."""
    stored = load_checkpoint(path)
    pipeline = tmp_path / "stored.yaml"
    pipeline.write_text(stored.pipeline)
    resolved = load_pipeline(pipeline)
    assert resolved.fingerprint == stored.fingerprint
    model = build_model(resolved)
    load_weights(model, stored.part("model"), str(path))
    return model.eval()


def picture():
    """A smooth image (3, 64, 64) in [0, 1]."""
    axis = torch.linspace(-1, 1, SIZE)
    x, y = axis, axis[:, None]
    return torch.stack([torch.exp(-((x - 0.3 * k) ** 2 + (y + 0.2 * k) ** 2) * (2 + k)) for k in range(3)])


def differences(found, canonical, view):
    """Largest absolute difference by name; maps of the input view where there is something to see."""

    def channels_last(tensor):
        return tensor[0].permute(1, 2, 0)

    def unit(pixels):  # from the original's [−1, 1]
        return (pixels / 2 + 0.5).clip(0, 1)

    mask = view.mask
    assert np.array_equal(found.mask[0].numpy(), mask) and 0.2 < mask.mean() < 1
    inner = mask & np.roll(mask, 1, 0) & np.roll(mask, -1, 0) & np.roll(mask, 1, 1) & np.roll(mask, -1, 1)
    pairs = {
        "depth": (found.canonical_depth[0], canonical.depth),
        "albedo": (channels_last(found.canonical_albedo), unit(canonical.albedo)),
        "light": (found.light[0], canonical.light),
        "view": (found.view[0], canonical.view),
        "normals": (channels_last(found.canonical_normals), canonical.normals),
        "shading": (found.canonical_shading[0, 0], canonical.shading),
        "canonical image": (channels_last(found.canonical_image), unit(canonical.image)),
        "confidence": (found.confidence[0, 0], canonical.confidence),
        "depth in the input view": (found.depth[0], view.depth),
        "image": (channels_last(found.reconstruction)[mask], unit(view.image)[mask]),
        "albedo in the input view": (channels_last(found.albedo)[mask], view.albedo[mask]),
        "normals in the input view": (channels_last(found.normals)[inner], view.normals[inner]),
    }
    return {name: float(np.abs(np.asarray(a, np.float64) - b).max()) for name, (a, b) in pairs.items()}


@pytest.fixture(scope="module")
def model(published, folder):
    report = import_file("unsup3d", published[1], out=folder / "faces.safetensors", options={"preset": "celeba"})
    assert report.parameters == 37119744 and report.image_size == 64  # 37.12 M, as published
    return loaded(folder / "faces.safetensors", folder)


@pytest.fixture(scope="module")
def expected(published):
    canonical = factors(published[0], picture(), FACES)
    return canonical, rendered(canonical, FACES)


def test_an_imported_model_computes_the_reference_formulas(model, expected, monkeypatch):
    """In float64 on both sides, so that what is compared are formulas and not rounding."""
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)  # the model's own cast to float32
    try:
        found = model.double().reconstruct(picture()[None].double())
    finally:
        model.to(torch.float32)
    # What the comparison sees: a relief, a turned view, light from the side.
    canonical, _ = expected
    assert np.ptp(canonical.depth) > 0.02 and np.abs(np.degrees(canonical.view[:3])).max() > 5
    assert np.abs(canonical.normals[..., :2]).max() > 0.3 and np.abs(canonical.light[2:4]).max() > 0.1
    # 8e-7 here: the model keeps the view's ranges in float32, 1e-8 of a radian, and steep places magnify that.
    assert max(differences(found, *expected).values()) < 1e-5


def test_in_single_precision_only_rounding_is_left(model, expected):
    found = differences(model.reconstruct(picture()[None]), *expected)
    smooth = ("depth", "albedo", "light", "view", "shading", "canonical image", "confidence")
    # A hundred roundings of 6e-8, in an order that the CPU's vectors decide: 1.3e-5 with AVX2, less with AVX-512.
    assert max(found.pop(name) for name in smooth) < 2e-5
    # Depth of about 1 is rounded to 6e-8, and a normal is a difference over two pixels, 0.0056: 2e-5 from rounding
    # alone; the places that colours are fetched from move by as much of a pixel, times the contrast between pixels.
    assert max(found.values()) < 2e-4


def test_what_the_original_adds_to_the_length_of_normals_shortens_them_by_a_third_of_a_percent(model, expected):
    """The original divides by |tu × tv| + 1e-7, where |tu × tv| is at least 3.1e-5 at 64 pixels; so do we."""
    canonical, _ = expected
    assert model.normal_epsilon == 1e-7
    difference = np.linalg.norm(normals_of(canonical.depth, epsilon=0.0) - canonical.normals, axis=-1)
    assert 0.0005 < difference.max() < 0.0041  # 1e-7 / (0.9 · 2 / FOCAL)², at the nearest depth


def test_an_imported_lemul_has_no_symmetry_and_both_of_its_confidences(tmp_path):
    torch.manual_seed(5)
    made = networks(8, lemul=True)
    write_checkpoint(tmp_path / "checkpoint010.pth", made)
    report = import_file("lemul", tmp_path / "checkpoint010.pth")
    assert not any("netC" in note for note in report.notes if note.startswith("left out"))
    model = loaded(tmp_path / "checkpoint010.safetensors", tmp_path)
    assert type(model).__name__ == "LeMul" and model.pairs == "flip"
    images = picture()[None]
    both = torch.cat((images.flip(-1), images), 1)  # first the image whose shape is used: its partner
    with torch.no_grad():
        sigma = made["netC2"].out_net1(made["netC2"].network(both * 2 - 1))
        swapped = model(Batch(images, torch.zeros(1))).pairs["swapped"]
    torch.testing.assert_close(swapped.spreads[0][:1], sigma)
    with torch.no_grad():
        sigma = made["netC"].out_net1(made["netC"].network(images * 2 - 1))
    torch.testing.assert_close(model.reconstruct(images).confidence, sigma)
    expected = factors(made, picture(), FACES)
    found = model.reconstruct(images)
    assert np.abs(found.canonical_depth[0].numpy() - expected.depth).max() < 1e-5
    assert np.abs(found.canonical_shading[0, 0].numpy() - expected.shading).max() < 1e-5


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format_name", "preset", "expected"),
    [
        ("unsup3d", "celeba", {"z": 0.0}),
        ("unsup3d", "synface", {"z": 0.0}),
        ("unsup3d", "cat", {"z": 0.1}),
        ("unsup3d", "car", {"z": 0.0, "border": 1.08, "diffuse": [0.5, 1]}),
        ("lemul", "synface", {"z": 0.0, "rotation": 90}),
        ("lemul", "casia", {"z": 0.1, "rotation": 90}),
    ],
)
def test_presets_are_the_published_settings(format_name, preset, expected):
    found = find_settings({}, Path("x.pth"), preset, None, lemul=format_name == "lemul", guess="celeba").model()
    assert found["translation_z_range"] == expected["z"]
    assert found["border_depth"] == pytest.approx(expected.get("border", 1.04))
    assert found["diffuse_range"] == expected.get("diffuse", [0, 1]) and found["ambient_range"] == [0, 1]
    assert found["rotation_range"] == expected.get("rotation", 60) and found["translation_range"] == 0.1
    assert (found["depth_min"], found["depth_max"]) == (0.9, 1.1)


CONFIG = """
device: cuda:0
model_name: unsup3d_mine
crop: [8, 14, 100, 100]
min_depth: 0.8
max_depth: 1.2
xyz_rotation_range: 45  # (-r,r) in degrees
z_translation_range: 0.05
rot_center_depth: 1.0
lam_perc: 1
"""


def test_a_configuration_beside_the_checkpoint_is_used(small, tmp_path):
    path = tmp_path / "checkpoint100.pth"
    path.write_bytes(small.read_bytes())
    (tmp_path / "configs.yml").write_text(CONFIG)
    report = import_file("unsup3d", path)
    model = loaded(tmp_path / "checkpoint100.safetensors", tmp_path)
    assert model.depth_range == (0.8, 1.2) and model.border_depth == pytest.approx(0.7 * 1.2 + 0.3 * 0.8)
    assert math.degrees(model.view_range[0]) == pytest.approx(45) and model.view_range[3:] == (0.1, 0.1, 0.05)
    assert "configs.yml beside the checkpoint" in " ".join(report.notes)
    # A preset that is asked for has the last word, and so has a configuration that is named.
    out = tmp_path / "other.safetensors"
    import_file("unsup3d", path, out=out, options={"preset": "cat"})
    assert loaded(out, tmp_path).depth_range == (0.9, 1.1)
    (tmp_path / "other.yml").write_text("image_size: 64\nmax_amb_light: 0.5\n")
    import_file("unsup3d", path, out=out, options={"config": str(tmp_path / "other.yml")})
    model = loaded(out, tmp_path)
    # What it does not say is as in the original's code, where objects also move along the axis.
    assert model.ambient_range == (0, 0.5) and model.view_range[5] == 0.1


def test_a_configuration_in_the_checkpoint_is_used(tmp_path):
    settings = {"xyz_rotation_range": 30, "z_translation_range": 0}
    write_checkpoint(tmp_path / "mine.pth", networks(8), zipped=True, cfgs=settings)
    report = import_file("unsup3d", tmp_path / "mine.pth", overrides=["renderer.pixel_offset=0"])
    assert report.notes[-1] == "set here: renderer.pixel_offset=0"
    model = loaded(tmp_path / "mine.safetensors", tmp_path)
    assert math.degrees(model.view_range[0]) == pytest.approx(30) and model.renderer.pixel_offset == 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("image_size: 128\n", "its networks are for pictures of 64 pixels, and the configuration"),
        ("rot_center_depth: 1.2\n", "turns about depth 1.2"),
        ("min_depth: [0.9]\n", "its 'min_depth' is no number"),
        ("min_depth: .nan\n", "its 'min_depth' is no number"),
        ("a: b: c\n", "not valid YAML"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(small, tmp_path, config, message, capsys):
    (tmp_path / "settings.yml").write_text(config)
    arguments = ["import", "unsup3d", str(small), "--out", str(tmp_path / "out.safetensors")]
    assert execute([*arguments, "--config", str(tmp_path / "settings.yml")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out.safetensors").exists()


def test_a_guess_is_doubted_where_the_training_was_longer_than_that_of_faces(tmp_path):
    for epoch, doubts in ((30, False), (200, True)):
        path, out = tmp_path / "checkpoint.pth", tmp_path / "out.safetensors"
        write_checkpoint(path, networks(8), epoch=epoch)
        said = " ".join(import_file("unsup3d", path, out=out).notes)
        assert ("--preset cat)" in said) == doubts
        said = " ".join(import_file("unsup3d", path, out=out, options={"preset": "celeba"}).notes)
        assert "cats 200" not in said


def test_cars_are_recognised_by_their_lack_of_confidence(tmp_path):
    made = networks(8)
    del made["netC"]
    write_checkpoint(tmp_path / "car.pth", made)
    report = import_file("unsup3d", tmp_path / "car.pth")
    assert any("preset car (ASSUMED" in note for note in report.notes)
    assert loaded(tmp_path / "car.safetensors", tmp_path).border_depth == pytest.approx(1.08)
    import_file("unsup3d", tmp_path / "car.pth", out=tmp_path / "cat.safetensors", options={"preset": "cat"})
    model = loaded(tmp_path / "cat.safetensors", tmp_path)
    assert "confidence" not in model.encoders and model.reconstruct(picture()[None]).confidence is None


# -- the command, and files that are something else --------------------------------------------------------------------


def test_the_command_says_what_it_took_left_out_and_assumed(small, tmp_path, capsys):
    out = tmp_path / "weights.safetensors"
    assert execute(["import", "unsup3d", str(small), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert str(out) in said and "left out: optimizerD" in said and "throwaway_meters.MetricsTrace, not loaded" in said
    assert "preset celeba (ASSUMED" in said and "width 8" in said and "groups of four channels are assumed" in said
    assert execute(["import", "unsup3d", str(small), "--out", str(out), "--json", "--preset", "cat"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report) == {"file", "format", "out", "pipeline", "image_size", "parameters", "notes"}
    assert load_checkpoint(out).extra["imported"]["format"] == "unsup3d"


def narrow(**changes):
    """A checkpoint with narrow networks as a dictionary, with changes; None takes a key out."""
    found = {**checkpoint(networks(8)), **changes}
    return {name: value for name, value in found.items() if value is not None}


def mixed():
    return {**narrow(), "netA": {"network.0.weight": torch.zeros(8, 3, 4, 4), "network.1.weight": torch.zeros(8)}}


def spoilt(network, name, value, dtype=torch.float32):
    """A narrow checkpoint with one odd number, or with whole ones where ``dtype`` says so."""
    found = narrow()
    state = found[network]
    tensor = state[name].to(dtype)
    tensor.flatten()[-1] = value
    return {**found, network: {**state, name: tensor}}


def without_values(shape):
    """A layer that can be told from others by its shape alone: going through its values takes more than there is."""
    return {**narrow(), "netA": {"network.0.weight": torch.zeros(1).expand(shape)}}


@pytest.mark.parametrize(
    ("format_name", "content", "message"),
    [
        ("unsup3d", lambda: checkpoint(networks(8, lemul=True)), "use recon import lemul"),
        ("lemul", narrow, "use recon import unsup3d"),
        ("unsup3d", lambda: narrow(netL=None, netD=None), "it lacks netD, netL; it holds epoch, netA"),
        ("unsup3d", lambda: networks(8)["netD"].state_dict(), "it holds a state dict of one network"),
        ("unsup3d", dict, "it holds nothing"),
        ("unsup3d", mixed, "the layers of netA (albedo) are not those of the published network"),
        ("unsup3d", lambda: narrow(netV=[1, 2]), "netV holds a list, not weights by name"),
        ("unsup3d", lambda: spoilt("netV", "network.0.weight", math.nan), "netV.network.0.weight has values that are"),
        ("unsup3d", lambda: spoilt("netC", "out_net2.0.weight", -math.inf), "netC.out_net2.0.weight has values that"),
        ("unsup3d", lambda: spoilt("netD", "network.1.bias", math.inf, torch.half), "netD.network.1.bias has values"),
        ("unsup3d", lambda: spoilt("netD", "network.1.bias", 1, torch.int64), "netD.network.1.bias has values that"),
        ("unsup3d", lambda: without_values((2**28,)), "(268435456,) made of 1 stored numbers, as Tensor.expand makes"),
        ("unsup3d", lambda: without_values((2**40,)), "(1099511627776,) made of 1 stored numbers, as Tensor.expand"),
        ("unsup3d", lambda: [1, 2], "holds a list, not a dictionary by names"),
    ],
)
def test_another_checkpoint_is_refused_with_a_hint(tmp_path, format_name, content, message, capsys):
    torch.save(content(), tmp_path / "other.pth")
    assert execute(["import", format_name, str(tmp_path / "other.pth")]) == 2
    error = capsys.readouterr().err
    assert message in error and "other.pth" in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["other.pth"]


@pytest.mark.parametrize("shape", [(2**40,), (8, 3, 4, 2**36), (1, 2**40), (1, 3, 4, 2**36)])
def test_shapes_are_checked_before_values(shape):
    """Nobody has the memory for these values: not for their sum in float64, nor for LeMul's confidence twice."""
    for slot, name in ((SLOTS[1], "network.0.weight"), (SLOTS[4], "out_net1.6.weight")):
        with pytest.raises(CheckpointError, match=f"the layers of {slot.key} .* are not those of the published"):
            find_network(slot, {name: torch.zeros(1).expand(shape)}, "x.pth")


def test_a_file_that_is_there_is_replaced_only_by_its_name(small, tmp_path, capsys):
    path, beside = tmp_path / "faces.pth", tmp_path / "faces.safetensors"
    path.write_bytes(small.read_bytes())
    beside.write_bytes(b"of something else")
    assert execute(["import", "unsup3d", str(path)]) == 2
    error = capsys.readouterr().err
    assert f"{beside}: there is such a file already (name it with --out to replace it)" in error
    assert beside.read_bytes() == b"of something else" and len(list(tmp_path.iterdir())) == 2
    assert execute(["import", "unsup3d", str(path), "--out", str(beside)]) == 0
    assert load_checkpoint(beside).extra["imported"]["file"] == "faces.pth"


def test_wrong_arguments_are_errors(small, tmp_path):
    with pytest.raises(PluginError, match="there is no importer 'unsup4d'"):
        import_file("unsup4d", small)
    with pytest.raises(CheckpointError, match="give one of them"):
        import_file("unsup3d", small, options={"preset": "cat", "config": "x.yml"})
    assert execute(["import", "unsup3d", str(small), "--preset", "dog"]) == 2
    assert execute(["import", "unsup3d", str(small), "--set", "model.rotaton_range=1"]) == 2
    assert execute(["import", "unsup3d", str(small), "--out", str(small)]) == 2 and small.stat().st_size > 1e6
    assert not list(small.parent.glob("*.safetensors"))


def test_other_image_sizes_are_told_from_the_layers(tmp_path):
    """Our own networks at 128 pixels have the published layout with a stage more."""
    from recon_unsup3d.networks import ConvAutoencoder, ConvRegressor

    made = {
        "netD": ConvAutoencoder(3, 1, 128, width=8, latent=12),
        "netA": ConvAutoencoder(3, 3, 128, width=8, latent=20),
        "netL": ConvRegressor(3, 4, 128, width=4),
        "netV": ConvRegressor(3, 6, 128, width=8),
    }
    torch.save({name: network.state_dict() for name, network in made.items()}, tmp_path / "large.pth")
    assert import_file("unsup3d", tmp_path / "large.pth").image_size == 128
    model = loaded(tmp_path / "large.safetensors", tmp_path)
    assert model.reconstruct(torch.rand(1, 3, 128, 128)).depth.shape == (1, 128, 128)
    made["netV"] = ConvRegressor(3, 6, 64, width=8)
    torch.save({name: network.state_dict() for name, network in made.items()}, tmp_path / "mixed.pth")
    with pytest.raises(CheckpointError, match="netD for 128, netA for 128, netL for 128, netV for 64"):
        import_file("unsup3d", tmp_path / "mixed.pth")

"""The page to look at faces, read as text: what it holds, how exact it is, and that names stay names."""

from __future__ import annotations

import base64
import io
import re
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from PIL import Image
from viewer_scenes import CAMERA, HOSTILE, LIGHT, SIZE, VIEW, Reader, hill, scene, spotted

from recon_toolkit.errors import DataError
from recon_toolkit.geometry import Camera
from recon_toolkit.io.maps import to_bytes
from recon_toolkit.result import Result
from recon_toolkit.structures import Reconstruction
from recon_toolkit.viewer import ViewerScene, scene_of, viewer_document, viewer_part
from recon_toolkit.viewer.page import _asset, script
from recon_toolkit.viewer.payload import LARGEST, STEPS, depth_grid, image_uri
from recon_toolkit.viewer.scene import facts_of

ALL = torch.ones(SIZE, SIZE, dtype=torch.bool)


def content_of(address: str | None) -> bytes:
    """What a data URI holds, by the standard library's reader."""
    assert address is not None and address.startswith("data:")
    with urlopen(address) as answer:
        return bytes(answer.read())


def test_a_page_is_one_well_formed_file() -> None:
    page = viewer_document("Faces", [scene("one"), scene("two")], intro="Two hills.")
    reader = Reader(page)
    assert reader.faults == []
    assert [attributes["data-name"] for attributes in reader.all("article")] == ["one", "two"]
    assert "Two hills." in reader.text and "20° left" in reader.text
    # Nothing is asked of the network, and the page's own policy would not let it.
    for _, attributes in reader.elements:
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert not re.search(r"https?://|@import|url\(", page)
    policy = next(m["content"] for m in reader.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and "default-src 'none'" in policy and "connect-src" not in policy
    labels = len(reader.all("label"))
    assert labels == len(reader.all("input"))  # every control stands in its label
    assert all(image.get("alt") for image in reader.all("img"))


def test_a_part_stands_in_other_pages() -> None:
    reader = Reader("<!doctype html><title>Run</title><h1>Run</h1>" + viewer_part([scene()]) + viewer_part([scene()]))
    assert reader.faults == []
    assert [a.get("class") for a in reader.all("section")] == ["rv", "rv"]
    ids = [a["id"] for _, a in reader.elements if "id" in a]
    assert len(ids) == len(set(ids))
    with pytest.raises(ValueError, match="at least one object"):
        viewer_part([])


def test_names_stay_names() -> None:
    hostile = scene(HOSTILE, maps={HOSTILE: hill()[None]}, facts=[(HOSTILE, HOSTILE)], downloads={HOSTILE: b"x"})
    reader = Reader(viewer_document(HOSTILE, [hostile], intro=HOSTILE))
    calm = Reader(viewer_document("x", [scene()], intro="x"))
    assert [tag for tag, _ in reader.elements] == [tag for tag, _ in calm.elements]  # no element came of a name
    assert not any(name.startswith("on") for _, attributes in reader.elements for name in attributes)
    assert reader.scenes()[0]["name"] == HOSTILE
    assert reader.all("article")[0]["data-name"] == HOSTILE
    assert reader.text.count(HOSTILE) == 8  # title, heading, intro, caption, name, fact, its value and the link
    assert "</script" not in script() and "<!--" not in script()


def test_pages_are_small() -> None:
    random = torch.Generator().manual_seed(0)
    noise = torch.rand(3, 256, 256, generator=random)  # the worst that a picture can be
    smooth = torch.nn.functional.interpolate(noise[None, :, ::8, ::8], 256, mode="bicubic", align_corners=True)[0]
    typical = scene(input=smooth, pictures={"photo": smooth, "albedo": noise[:, :SIZE, :SIZE]})
    assert len(viewer_document("t", [typical])) < 400_000
    large = hill(1024)
    worst = scene(
        depth=large,
        mask=large < 1.03,
        input=noise,
        pictures={"photo": noise, "albedo": noise},
        reconstruction=noise,
        maps={"Normals": noise, "Depth": noise},
        downloads={"mesh.glb": bytes(800_000)},
    )
    assert len(viewer_document("t", [worst])) < 3_000_000


@pytest.mark.parametrize("size", [SIZE, 128])
def test_depth_arrives_within_half_a_step(size: int) -> None:
    depth = hill(size)
    mask = torch.ones_like(depth, dtype=torch.bool)
    data = Reader(viewer_document("t", [scene(depth=depth, mask=mask)])).scenes()[0]
    near, far = data["depth"]["near"], data["depth"]["far"]
    steps = np.frombuffer(base64.b64decode(data["depth"]["data"]), "<u2").reshape(data["height"], data["width"])
    found = near + (far - near) * steps / 65535
    assert (data["step"], data["width"]) == ((2, 2 * size - 1) if size == SIZE else (1, size))
    step = data["step"]
    error = np.abs(found[::step, ::step] - depth.double().numpy()).max()
    assert error <= (far - near) / 65535 / 2 + 1e-12  # half a step, and float64
    assert far - near <= float(depth.max() - depth.min()) * 1.01  # the range is the depth's own
    assert data["levels"] is None and data["fov"] == CAMERA.fov
    assert data["light"] == pytest.approx(LIGHT.tolist()) and data["view"] == pytest.approx(VIEW.tolist())


def test_what_lies_between_the_pixels_is_the_surface() -> None:
    grid = depth_grid(hill(), ALL)
    truth = hill(2 * SIZE - 1).double().numpy()
    # A cubic through samples of a Gaussian, σ = 11 pixels: its error is about its fourth difference, 3 h⁴/σ⁴/128.
    assert np.abs(grid.depths() - truth).max() < 0.09 * 3 / 11**4 / 16 + 0.09 / STEPS
    # A tilted plane stays one: 1/z is linear in the pixels.
    plane = 1 / (1 + torch.linspace(-0.05, 0.05, SIZE, dtype=torch.float64)).expand(SIZE, SIZE)
    flat = 1 / depth_grid(plane, ALL).depths()
    assert np.abs(np.diff(flat, 2, axis=1)).max() < 4 * 0.1 / STEPS  # second differences: four half steps, doubled


def test_a_mask_ends_the_surface() -> None:
    mask = ALL.clone()
    mask[:, :5] = False
    jumping = hill().where(mask, 9.0)  # what lies beside must not bend the edge
    grid = depth_grid(jumping, mask)
    assert grid.drawn[:, 10:].all() and not grid.drawn[:, :9].any()
    inner = hill().double().numpy()[:, 5:]
    assert np.abs(grid.depths()[::2, 10::2] - inner).max() < 1e-5
    assert grid.far < 1.1
    # Not finite, or not before the camera: not drawn, whatever the mask says.
    holed = hill()
    holed[19:22, 19:22], holed[39:42, 39:42] = torch.nan, -1.0
    drawn = depth_grid(holed, ALL).drawn
    assert not drawn[40, 40] and not drawn[80, 80] and drawn[60, 60]
    # A soft outline lies between the pixels: at x = 0.5 here, between the pixels 46 and 47.
    soft = (1.5 - torch.linspace(0, 2, SIZE)).clamp(0, 1).expand(SIZE, SIZE)
    half = depth_grid(hill(), soft)
    assert half.drawn[:, :63].all() and not half.drawn[:, 64:].any()
    with pytest.raises(DataError, match="nothing"):
        depth_grid(hill(), ALL & False)
    with pytest.raises(ValueError, match="shape"):
        depth_grid(hill()[None], ALL[None])


def test_large_and_narrow_depth_maps() -> None:
    large = depth_grid(hill(800), torch.ones(800, 800, dtype=torch.bool))
    assert large.steps.shape == (LARGEST, LARGEST) and large.step == 1
    narrow = depth_grid(hill()[:, 16:48], ALL[:, 16:48])
    assert narrow.steps.shape == (127, 63)


def test_pictures_take_the_smaller_form() -> None:
    flat = torch.zeros(3, 32, 32)
    flat[:, 8:] = 1
    png = image_uri(flat)
    assert png.startswith("data:image/png")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content_of(png)))), to_bytes(flat))
    waves = torch.sin(torch.linspace(0, 20, 256)[:, None] * torch.linspace(0, 1, 256)).expand(3, -1, -1) / 2 + 0.5
    jpeg = image_uri(waves)
    assert jpeg.startswith("data:image/jpeg")
    error = np.asarray(Image.open(io.BytesIO(content_of(jpeg)))).astype(float) - to_bytes(waves)
    assert 10 * np.log10(255**2 / (error**2).mean()) > 38  # dB; 40 is what the eye cannot tell from the original
    assert Image.open(io.BytesIO(content_of(image_uri(flat[:1])))).mode == "L"


def test_downloads_hold_their_bytes_or_lead_beside_the_page() -> None:
    data = bytes(range(256)) * 3
    links = {"mesh.glb": data, "beside.png": "out put/α?.png", "odd": "javascript:alert(1)"}
    found = {a["download"]: a["href"] for a in Reader(viewer_document("t", [scene(downloads=links)])).all("a")}
    assert content_of(found["mesh.glb"]) == data
    assert str(found["mesh.glb"]).startswith("data:model/gltf-binary;")
    assert found["beside.png"] == "out%20put/%CE%B1%3F.png"
    assert found["odd"] == "javascript%3Aalert%281%29"  # the name of a file, no scheme


def test_a_result_becomes_a_scene() -> None:
    picture = spotted(64)[None]
    canonical = Reconstruction(
        image=picture,
        depth=hill()[None] + 0.01,
        mask=ALL[None],
        canonical_depth=hill()[None],
        canonical_albedo=picture * 0.5,
        light=LIGHT[None],
        view=VIEW[None],
        reconstruction=picture,
    )
    found = scene_of(Result(canonical, CAMERA, spotted(128), "a"), spotted(200), downloads={"x": b"y"})
    assert isinstance(found, ViewerScene) and set(found.pictures) == {"photo", "albedo"}
    assert found.view is not None and torch.equal(found.view, VIEW)
    assert torch.equal(found.input, spotted(128)) and found.downloads == {"x": b"y"}
    drawn = depth_grid(found.depth, found.mask).drawn
    assert drawn[56, 79] and not drawn[:, 0].any() and not drawn[0, 0]  # the hill stays, its background goes
    whole = scene_of(Result(canonical, CAMERA, spotted(128), "a"), trim=False)
    assert "photo" not in whole.pictures and depth_grid(whole.depth, whole.mask).drawn[60, 6:120].all()

    seen = scene_of(Result(Reconstruction(image=picture, depth=hill()[None]), CAMERA, spotted(128), "b"))
    assert seen.view is None and torch.equal(seen.pictures["photo"], spotted(128))
    with pytest.raises(DataError, match="depth"):
        scene_of(Result(Reconstruction(image=picture), CAMERA, spotted(128), "c"))
    for wrong in ({"pictures": {"sketch": spotted()}}, {"light": torch.zeros(4)}, {"view": VIEW[None]}):
        with pytest.raises(ValueError):
            scene(**wrong)


def test_facts_say_angles_as_a_viewer_sees_them() -> None:
    facts = dict(facts_of(torch.tensor([0.5, 0.6, 0.6, 0.0, 0.8]), VIEW))
    assert facts["Turned"] == "20° left"  # a positive yaw looks to the left: docs/conventions.md
    assert facts["Nodding"] == "10° down" and facts["Leaning"] == "5° right"
    assert facts["Light from"] == "37° left, 0°"  # it travels to the right: atan(0.6 / 0.8)
    assert facts_of(None, None) == []


def test_colours_can_be_read() -> None:
    """WCAG 2 AA: 4.5 for text, 3 for the edges of controls and the mark of the focus."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    themes = [dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in _asset("viewer.css").split("@media")]
    light, dark = (theme for theme in themes if "ink" in theme)
    for theme in (light, dark):
        for back in ("paper", "card", "wash"):
            assert contrast(theme["ink"], theme[back]) >= 4.5 and contrast(theme["soft"], theme[back]) >= 4.5
        assert contrast(theme["on-accent"], theme["accent"]) >= 4.5
        assert contrast(theme["accent"], theme["paper"]) >= 3 and contrast(theme["edge"], theme["paper"]) >= 3


def test_another_field_of_view_travels_with_the_scene() -> None:
    assert Reader(viewer_part([scene(camera=Camera(49.0))])).scenes()[0]["fov"] == 49.0

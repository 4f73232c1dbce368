"""Detections, the crops around them, and the default detector, judged on faces at places that are known."""

from __future__ import annotations

import json
import math
import shutil
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from recon_synthetic_faces.dataset import SyntheticFaces
from typer.testing import CliRunner

from recon_toolkit import Detection, PluginError
from recon_toolkit.cli.app import app
from recon_toolkit.config.pipeline import resolve_component
from recon_toolkit.data.decode import Box, read_image
from recon_toolkit.detection import Detector, build_detector, crop_box, distinct
from recon_toolkit.errors import ConfigError, DataError
from recon_toolkit.plugins import load_plugins

CROPS = Path(__file__).parents[2] / "shared" / "data" / "crops"
Square = tuple[float, float, float]  # centre x, centre y, side


def box(x: float, y: float, width: float, height: float, score: float = 1.0, label: str = "human") -> Detection:
    return Detection(x, y, width, height, score, label)


def test_the_crop_is_the_references() -> None:
    # Mean side 100, so a square of 110; its centre (150, 220) moved down by 0.15 · 55 = 8.25.
    found = crop_box(box(110, 160, 80, 120))
    assert (found.x, found.y) == pytest.approx((150 - 55, 220 + 8.25 - 55))
    assert (found.width, found.height) == pytest.approx((110, 110))


def test_margin_and_offset_of_the_crop_can_be_set() -> None:
    assert crop_box(box(10, 20, 30, 30), margin=1, down=0) == Box(10, 20, 30, 30)
    assert crop_box(box(10, 20, 30, 30), margin=2, down=0.5) == Box(-5, 5 + 15, 60, 60)


def test_a_crop_beyond_the_edge_repeats_the_edge(tmp_path: Path) -> None:
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[:, :1] = (200, 100, 50)
    Image.fromarray(picture).save(tmp_path / "edge.png")
    found = read_image(tmp_path / "edge.png", crop=crop_box(box(-10, 10, 20, 20), down=0))
    assert found.shape == (22, 22, 3)
    assert (found[:, :11] == (200, 100, 50)).all()  # half of the crop lies beyond the picture


def test_of_boxes_that_cover_one_another_the_best_stays() -> None:
    strong, weak = box(0, 0, 10, 10, 5.0, "cat"), box(1, 1, 10, 10, 2.0)
    beside, inside = box(11, 0, 10, 10, 1.0), box(3, 3, 2, 2, 4.0)
    assert distinct([beside, weak, inside, strong]) == [strong, beside]  # 81 and 100 % are shared, and nothing


@pytest.mark.parametrize(("shift", "kept"), [(5.9, 1), (6.1, 2)])
def test_the_overlap_is_a_share_of_the_smaller_box(shift: float, kept: int) -> None:
    small, large = box(0, 0, 10, 10, 2.0), box(shift, -50, 100, 100, 1.0)  # they share (10 − shift) / 10
    assert len(distinct([small, large], overlap=0.4)) == kept


def test_small_boxes_can_be_left_out() -> None:
    boxes = [box(0, 0, 8, 10, 1.0), box(50, 0, 8, 14, 2.0)]  # mean sides of 9 and 11
    assert distinct(boxes, smallest=10) == [boxes[1]]


def test_the_order_of_equal_scores_is_that_of_their_places() -> None:
    boxes = [box(x, 0, 10, 10) for x in (60, 20, 40)]
    assert [item.x for item in distinct(boxes)] == [20, 40, 60] == [item.x for item in distinct(reversed(boxes))]


def detector(name: str = "haar-faces", *options: str, files: tuple[Path, ...] = ()) -> Detector:
    return build_detector(resolve_component("detector", name, options, load_plugins(files)))


PLUGIN = '''
"""Detectors for tests."""
from recon_toolkit import Detection, detector

@detector("everything")
class Everything:
    """The whole picture."""
    def __init__(self, *, label: str = "thing"):
        self.label = label
    def __call__(self, image):
        return [Detection(0, 0, image.shape[1], image.shape[0], 1.0, self.label)]

@detector("corner")
def corner(image, *, size: float = 4.0):
    """The upper left corner, and a better one beside it."""
    return [Detection(0, 0, size, size, 1.0, "corner"), Detection(size, 0, size, size, 2.0, "corner")]

@detector("broken")
def broken(image):
    raise KeyError("lens")

@detector("wrong")
def wrong(image, *, flat: bool = False):
    return [Detection(0, 0, 0, 5, 1.0, "flat")] if flat else [(0, 0, 5, 5)]
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "finders.py"
    path.write_text(PLUGIN)
    return path


def test_a_plugin_brings_detectors(plugin: Path) -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    assert detector("everything", "label=all", files=(plugin,))(image) == [box(0, 0, 30, 20, 1.0, "all")]
    assert [item.x for item in detector("corner", "size=5", files=(plugin,))(image)] == [5, 0]  # best first
    listed = CliRunner().invoke(app, ["plugins", "--plugin", str(plugin), "--json", "--check"])
    data = json.loads(listed.stdout)
    kinds = {part["name"]: part["kind"] for item in data["plugins"] for part in item["components"]}
    assert kinds["corner"] == kinds["haar-faces"] == "detector"
    assert not [failure for failure in data["failures"] if failure["name"] in ("finders.py", "opencv")]


def test_a_faulty_detector_is_named(plugin: Path) -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    for name, option, cause in (
        ("broken", (), "'lens'"),
        ("wrong", (), "a list of Detection"),
        ("wrong", ("flat=true",), "have a width"),
    ):
        with pytest.raises(PluginError, match=cause) as caught:
            detector(name, *option, files=(plugin,))(image)
        assert f"detector '{name}'" in str(caught.value)
    with pytest.raises(ConfigError, match=r"'smallest' should be"):
        detector("haar-faces", "smallest=small")


@pytest.fixture(scope="module")
def faces() -> NDArray[np.uint8]:
    """Four synthetic faces (4, 96, 96, 3), each framed as a crop."""
    pictures = SyntheticFaces().generate(list(range(4)), "train", 96)
    return np.asarray(pictures.image).transpose(0, 2, 3, 1)


def pasted(
    faces: Sequence[NDArray[np.uint8]], side: int, *, columns: int = 2, gap: int = 60, seed: int = 0
) -> tuple[NDArray[np.uint8], list[Square]]:
    """Faces as squares of ``side`` pixels, in rows on a smooth ground of random colours, and where each is."""
    step = side + gap
    rows = math.ceil(len(faces) / columns)
    ground = np.random.default_rng(seed).integers(40, 215, (3, 4, 3)).astype(np.uint8)
    size = (columns * step + gap, rows * step + gap)
    picture = np.array(Image.fromarray(ground).resize(size, Image.Resampling.BICUBIC))
    places = []
    for number, face in enumerate(faces):
        y, x = gap + number // columns * step, gap + number % columns * step
        scaled = Image.fromarray(face).resize((side, side), Image.Resampling.BICUBIC)
        picture[y : y + side, x : x + side] = np.array(scaled)
        places.append((x + side / 2, y + side / 2, float(side)))
    return picture, places


def assert_found(found: Sequence[Detection], places: Sequence[Square], label: str = "human") -> None:
    """One detection a place and no other, its crop within 0.15 sides and a quarter of the size.

    A detector's own scatter between people is 0.04 sides in place and 0.04 in size (MTCNN's on these crops is like
    it); synthetic faces fill their frame by up to 0.17 more than people do. The limits are three to four times the
    scatter and far below a neighbour's distance.
    """
    assert [item.label for item in found] == [label] * len(places)
    for x, y, side in places:
        offs = []
        for item in found:
            crop = crop_box(item)
            away = max(abs(crop.x + crop.width / 2 - x), abs(crop.y + crop.height / 2 - y)) / side
            offs.append((away, abs(math.log(crop.width / side))))
        assert min(offs) < (0.15, 9.0) and min(offs)[1] < 0.25, (x, y, side, found)
    assert all(a.score >= b.score >= 1 for a, b in pairwise(found))


@pytest.mark.parametrize("side", [64, 180])
def test_faces_are_found_where_they_are(faces: NDArray[np.uint8], side: int) -> None:
    picture, places = pasted(faces, side)
    assert_found(detector()(picture), places)


def test_faces_are_found_in_grey_dark_and_tilted_pictures(faces: NDArray[np.uint8]) -> None:
    find = detector("haar-faces", "kinds=human")
    picture, places = pasted(faces[1:2], 120, columns=1, gap=100)
    grey = picture.mean(axis=2, keepdims=True).astype(np.uint8).repeat(3, axis=2)
    assert_found(find(grey), places)
    assert_found(find(picture // 4), places)
    for angle in (-10, 10):  # about the picture's centre, which is the face's
        assert_found(find(np.array(Image.fromarray(picture).rotate(angle, Image.Resampling.BICUBIC))), places)


def test_a_face_at_the_edge_and_one_that_fills_the_picture_are_found(faces: NDArray[np.uint8]) -> None:
    find = detector("haar-faces", "kinds=human")
    picture, ((x, y, side),) = pasted(faces[1:2], 160, columns=1, gap=100)
    left = int(x - side / 2 + 0.15 * side)
    assert_found(find(picture[:, left:]), [(x - left, y, side)])  # 15 % of the crop are cut off
    assert_found(find(faces[1]), [(48, 48, 96)])


def test_a_large_picture_is_scaled_down_and_its_boxes_are_in_its_own_pixels(faces: NDArray[np.uint8]) -> None:
    picture, ((_, _, side),) = pasted(faces[1:2], 120, columns=1, gap=100)
    large = picture.repeat(8, axis=0).repeat(8, axis=1)  # 6.5 megapixels
    options = ("kinds=human", "largest_side=320")
    (small,), (found,) = detector("haar-faces", *options)(picture), detector("haar-faces", *options)(large)
    # Both are searched at the same 320 pixels; interpolation differs by less than a window's step of 6 %.
    for a, b in ((small.x, found.x), (small.y, found.y)):
        assert b == pytest.approx(8 * a, abs=8 * 0.06 * side)
    assert found.width == pytest.approx(8 * small.width, rel=0.06)


def test_the_answer_is_the_same_each_time(faces: NDArray[np.uint8]) -> None:
    picture, _ = pasted(faces[:2], 80)
    assert detector()(picture) == detector()(picture)


def test_several_threads_share_a_detector_and_find_what_one_would(faces: NDArray[np.uint8]) -> None:
    find = detector()
    pictures = [pasted(faces[1 : 2 + number], 40 + 8 * number, gap=20)[0] for number in range(3)]
    alone = [find(picture) for picture in pictures]
    assert all(alone)
    together = threading.Barrier(3, timeout=60)

    def search(first: int) -> list[list[Detection]]:
        """All pictures, from another one on in each thread, so that no two search the same at a time."""
        together.wait()
        found = {(first + step) % 3: find(pictures[(first + step) % 3]) for step in range(3)}
        return [found[number] for number in range(3)]

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(search, range(3))) == [alone] * 3


@pytest.mark.parametrize("shape", [(1, 1, 3), (10, 10, 3), (1, 400, 3), (0, 5, 3), (37, 300, 3)])
def test_no_face_is_found_where_there_is_none(shape: tuple[int, int, int]) -> None:
    random = np.random.default_rng(0)
    find = detector()
    assert find(random.integers(0, 256, shape).astype(np.uint8)) == []
    assert find(np.full(shape, 128, np.uint8)) == []


def test_no_face_is_found_in_shapes_and_noise() -> None:
    v, u = np.mgrid[0:300, 0:400]
    patterns = [
        127 + 100 * np.sin(u / 9) * np.sin(v / 13),
        255.0 * ((u // 20 + v // 20) % 2),
        255.0 * (np.hypot(u - 200, v - 150) < 100),
        np.random.default_rng(0).normal(128, 60, (10, 13)).clip(0, 255).repeat(30, 0).repeat(31, 1)[:300, :400],
    ]
    find = detector()
    for pattern in patterns:
        assert find(pattern.astype(np.uint8)[..., None].repeat(3, axis=2)) == []


def test_an_array_that_is_no_image_is_refused() -> None:
    with pytest.raises(PluginError, match=r"\(H, W, 3\) uint8"):
        detector()(np.zeros((20, 20), np.uint8))


def test_a_cascade_of_ones_own(faces: NDArray[np.uint8], tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    own = tmp_path / "my cascade.xml"
    shutil.copy(Path(cv2.data.haarcascades, "haarcascade_frontalface_alt.xml"), own)
    picture, places = pasted(faces[1:2], 120, columns=1, gap=100)
    assert_found(detector("haar-faces", f"weights={own}")(picture), places, "object")
    assert_found(detector("haar-faces", f"weights={own}", "kinds=human")(picture), places)


@pytest.mark.parametrize("content", [None, "", "<opencv_storage><cascade>1</cascade></opencv_storage>", "\0\1\2"])
def test_a_file_that_is_no_cascade_is_named(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "own.xml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match="XML file") as caught:
        detector("haar-faces", f"weights={path}")
    assert str(path) in str(caught.value)


def test_a_missing_opencv_or_cascade_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cv2 = pytest.importorskip("cv2")
    monkeypatch.setattr(cv2.data, "haarcascades", str(tmp_path))  # as in OpenCV 5
    with pytest.raises(PluginError, match=r"lacks the cascade .*opencv-python-headless>=4.8,<5"):
        detector()
    monkeypatch.setitem(sys.modules, "cv2", None)  # as where it is not installed
    with pytest.raises(PluginError, match=r"cannot be imported.*opencv-python-headless"):
        detector()


@pytest.mark.skipif(not CROPS.is_dir(), reason="the real crops are not part of the repository")
def test_real_people_and_cats_are_found_and_told_apart() -> None:
    find = detector()
    for kind in ("human", "cat"):
        crops = [np.array(Image.open(path).convert("RGB")) for path in sorted((CROPS / kind).glob("*.png"))]
        picture, places = pasted(crops[::2], 120, gap=30)
        assert_found(find(picture), places, kind)

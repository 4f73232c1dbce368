"""The detector ``faces`` on photographs that scikit-image brings along, and what ``yunet`` says without its network."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from recon_face_model.detector import FacesAndCats

from recon_toolkit import Detection
from recon_toolkit.detection import crop_box
from recon_toolkit.errors import DataError
from recon_toolkit.plugins import load_plugins
from recon_toolkit.reconstructor import load_detector

Pixels = NDArray[np.uint8]
#: Where the middle of the crop lies in the portrait: measured by hand, from the eyes, the mouth and the chin.
FACE = (225.0, 122.0)


@pytest.fixture(scope="module")
def find() -> FacesAndCats:
    return FacesAndCats()


@pytest.fixture(scope="module")
def portrait() -> Pixels:
    return np.asarray(skimage.data.astronaut())


def _centre(found: Detection) -> NDArray[np.float64]:
    box = crop_box(found)
    return np.array([box.x + box.width / 2, box.y + box.height / 2])


def _turned(image: Pixels, degrees: float) -> tuple[Pixels, NDArray[np.float64]]:
    """The picture turned clockwise about its face, and the matrix that did it."""
    matrix = cv2.getRotationMatrix2D(FACE, -degrees, 1)
    return cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE), matrix


def test_a_face_is_found_where_it_is(find: FacesAndCats, portrait: Pixels) -> None:
    found = find(portrait)
    assert [item.label for item in found] == ["human"]
    # A tenth of the crop's side of about 120 pixels: what detectors differ by among themselves.
    assert np.abs(_centre(found[0]) - FACE).max() < 12
    assert 100 < crop_box(found[0]).width < 140
    assert abs(found[0].roll or 0) < 10 and abs(found[0].yaw or 0) < 30


@pytest.mark.parametrize("degrees", [-30, 30])
def test_a_tilted_face_is_found_and_its_roll_told(find: FacesAndCats, portrait: Pixels, degrees: float) -> None:
    turned, _ = _turned(portrait, degrees)
    upright, found = find(portrait)[0], find(turned)
    assert [item.label for item in found] == ["human"]
    assert found[0].roll is not None and upright.roll is not None
    assert found[0].roll - upright.roll == pytest.approx(degrees, abs=8)


def test_the_mirror_image_is_the_mirror_image(find: FacesAndCats, portrait: Pixels) -> None:
    plain, mirrored = find(portrait)[0], find(np.ascontiguousarray(portrait[:, ::-1]))[0]
    assert plain.yaw is not None and mirrored.yaw is not None
    assert mirrored.yaw == pytest.approx(-plain.yaw, abs=6)
    assert portrait.shape[1] - _centre(mirrored)[0] == pytest.approx(_centre(plain)[0], abs=6)


def test_a_cat_is_a_cat(find: FacesAndCats) -> None:
    found = find(np.asarray(skimage.data.cat()))
    assert found[0].label == "cat" and found[0].yaw is None
    assert FacesAndCats(kinds="human")(np.asarray(skimage.data.cat())) == []


@pytest.mark.parametrize("name", ["coffee", "brick", "grass", "gravel", "rocket", "motorcycle", "chessboard"])
def test_nothing_is_found_where_nothing_is(find: FacesAndCats, name: str) -> None:
    image = {
        "motorcycle": lambda: cv2.imread(str(Path(skimage.data.__file__).parent / "motorcycle_left.png")),
        "chessboard": lambda: np.kron(np.indices((8, 8)).sum(0) % 2, np.ones((40, 40))) * 255,
    }.get(name, lambda: getattr(skimage.data, name)())()
    image = np.asarray(image, np.uint8)
    image = np.repeat(image[..., None], 3, 2) if image.ndim == 2 else np.ascontiguousarray(image[..., :3])
    assert find(image) == []


@pytest.mark.parametrize("shape", [(1, 1), (3, 400), (64, 64), (0, 5)])
def test_small_and_flat_pictures_hold_nothing(find: FacesAndCats, shape: tuple[int, int]) -> None:
    assert find(np.full((*shape, 3), 130, np.uint8)) == []


def test_threads_and_copies_find_the_same(find: FacesAndCats, portrait: Pixels) -> None:
    expected = find(portrait)
    with ThreadPoolExecutor(4) as pool:
        assert all(found == expected for found in pool.map(find, [portrait] * 4))
    assert pickle.loads(pickle.dumps(find))(portrait) == expected
    with pytest.raises(ValueError, match="uint8"):
        find(portrait.astype(np.float32))  # type: ignore[arg-type]


def test_yunet_says_which_file_it_needs(tmp_path: Path) -> None:
    host = load_plugins()
    with pytest.raises(DataError, match=r"no such file.*face_detection_yunet"):
        load_detector("yunet", host, [f"model={tmp_path / 'none.onnx'}"])
    (tmp_path / "text.onnx").write_text("nothing")
    with pytest.raises(DataError, match=r"OpenCV cannot run it as YuNet"):
        load_detector("yunet", host, [f"model={tmp_path / 'text.onnx'}"])

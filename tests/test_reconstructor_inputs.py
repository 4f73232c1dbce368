"""What the library's front door takes as pictures, and what it refuses."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from recon_toolkit import DataError, Reconstructor


@pytest.fixture(scope="module")
def model() -> Reconstructor:
    return Reconstructor.load(detector=None)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    path = tmp_path / "face.png"
    Image.fromarray(generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    return path


def test_a_picture_may_come_in_any_form(model: Reconstructor, picture: Path) -> None:
    expected = model.reconstruct(picture).depth
    array = np.asarray(Image.open(picture))
    with picture.open("rb") as file:
        forms: list[Any] = [
            str(picture), picture.read_bytes(), bytearray(picture.read_bytes()), io.BytesIO(picture.read_bytes()), file,
            Image.open(picture), array, torch.as_tensor(array.transpose(2, 0, 1).copy()),
        ]  # fmt: skip
        for form in forms:
            assert torch.equal(model.reconstruct(form).depth, expected), type(form)


@pytest.mark.parametrize("bad", [b"", b"no picture", io.BytesIO(b"?" * 100), io.StringIO("text")])
def test_what_is_no_picture_is_refused_in_words(model: Reconstructor, bad: Any) -> None:
    with pytest.raises(DataError, match=r"empty|not an image|open for text"):
        model.reconstruct(bad)


def test_a_batch_of_any_number_type_is_the_same(model: Reconstructor) -> None:
    pixels = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    expected = model.reconstruct_batch(pixels.float() / 255).depth
    assert torch.equal(model.reconstruct_batch(pixels).depth, expected)
    assert torch.equal(model.reconstruct_batch(pixels.numpy()).depth, expected)
    assert torch.allclose(model.reconstruct_batch(pixels.double() / 255).depth, expected, atol=1e-6)  # float32's digits
    assert torch.allclose(model.reconstruct_batch((pixels / 255).half()).depth, expected, atol=2e-3)  # and float16's


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (torch.rand(1, 3, 64, 64) * 2 - 1, "halve and add 0.5"),
        (torch.rand(1, 3, 64, 64) * 255, "divide by 255"),
        (torch.full((1, 3, 64, 64), torch.nan), "NaN"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.int64), "torch.int64"),
        (np.zeros((1, 64, 64, 3), np.float32), r"\(1, 64, 64, 3\)"),
    ],
)
def test_a_batch_of_another_range_type_or_shape_is_refused(model: Reconstructor, batch: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        model.reconstruct_batch(batch)

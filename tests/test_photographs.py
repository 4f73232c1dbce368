"""What training on photographs needs: features of ImageNet networks, decoders without checkerboards, mixed data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from recon_image_datasets.mixture import Mixture
from recon_losses.factors import supervised_depth
from recon_unsup3d.losses import BACKBONES, Perceptual
from recon_unsup3d.networks import ConvAutoencoder
from torch.nn import functional as F
from torchvision.models import squeezenet1_0, vgg16

from recon_toolkit import ModelOutput, ReconError
from recon_toolkit.data.packing import DataContext
from recon_toolkit.errors import DataError

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def squeezenet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    file = tmp_path_factory.mktemp("weights") / "squeezenet1_0-b66bff10.pth"
    torch.save(squeezenet1_0(weights=None).state_dict(), file)
    return file


def test_squeezenets_features_are_torchvisions(squeezenet_file: Path) -> None:
    one, other = torch.rand(2, 2, 3, 64, 64)
    network = squeezenet1_0(weights=None)
    network.load_state_dict(torch.load(squeezenet_file, weights_only=True))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

    def features(image: torch.Tensor, modules: int) -> torch.Tensor:
        values = F.pad((image - mean[:, None, None]) / std[:, None, None], (3,) * 4, mode="replicate")
        maps = network.features[:modules](values)
        return maps / (maps.square().mean(1, keepdim=True) + 1e-4).sqrt()

    # By torchvision's layout: convolution, ReLU, pooling, then fire2, fire3 and fire4.
    for layer, modules, side in (("relu1", 2, 32), ("fire4", 6, 16), ("fire8", 11, 8)):
        expected = (features(one, modules) - features(other, modules)).square().mean(1, keepdim=True)
        found = Perceptual(backbone="squeezenet", layers=[layer], weights=squeezenet_file)(one, other)
        assert found.shape == (2, 1, side, side)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)  # another order of the same sums
        assert float(found.min()) >= 0 and float(found.max()) <= 2


@pytest.mark.parametrize(("name", "whole"), [("vgg16", vgg16), ("squeezenet", squeezenet1_0)])
def test_named_layers_end_in_a_rectifier(name: str, whole: object) -> None:
    features = whole(weights=None).features  # type: ignore[operator]
    for layer, end in BACKBONES[name].layers.items():  # type: ignore[index]
        last = features[end - 1]
        kind = type(last).__name__
        assert kind == ("Fire" if layer.startswith("fire") else "ReLU"), (layer, kind)


def test_a_layer_of_the_other_backbone_is_named(squeezenet_file: Path) -> None:
    with pytest.raises(ReconError, match=r"SqueezeNet 1\.0 has no layer relu3_3.*fire4"):
        Perceptual(backbone="squeezenet", layers=["relu3_3"], weights=squeezenet_file)
    with pytest.raises(ReconError, match="does not hold VGG16's weights"):
        Perceptual(weights=squeezenet_file)


def test_doubling_leaves_no_checkerboard() -> None:
    """Where all pixels of a decoder's maps are alike, nearest doubling keeps them so; transposed kernels need not."""

    def unevenness(upsampling: str) -> float:
        torch.manual_seed(0)
        network = ConvAutoencoder(3, 3, 64, width=8, upsampling=upsampling)  # type: ignore[arg-type]
        stages = [m for m in network.network if isinstance(m, torch.nn.ConvTranspose2d) or type(m).__name__[0] == "_"]
        stage = stages[-2]  # the last but one doubling, whose kernel the option chooses
        flat = torch.ones(1, stage.in_channels, 8, 8)
        with torch.no_grad():
            inside = stage(flat)[:, :, 4:-4, 4:-4]
        return float(inside.std((2, 3)).max())

    assert unevenness("nearest") < 1e-6 < 1e-3 < unevenness("transposed")


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(10):
        Image.fromarray(np.full((40, 40, 3), 20 * number, np.uint8)).save(folder / f"{number}.png")
    return folder


def _mixture(**options: object) -> Mixture:
    parts = {
        "photographs": {"name": "image-folder", "val_fraction": 0.2, "test_fraction": 0.2},
        "synthetic": {"name": "synthetic-faces", "count": 5, "validation": 2, "test": 3},
    }
    return Mixture(parts=parts, **options)  # type: ignore[arg-type]


def test_a_mixture_keeps_the_truth_that_there_is(tmp_path: Path, photographs: Path) -> None:
    context = DataContext(tmp_path / "cache", photographs)
    mixed = _mixture(scored="synthetic")
    train = mixed.open("train", 32, context)
    own = [name for name in train.names if name.startswith("photographs/")]
    made = [name for name in train.names if name.startswith("synthetic/")]
    assert len(made) == 5 and len(own) + 5 == len(train) and train.names == own + made
    batch = train.batch(np.arange(len(train)))
    assert batch.mask is not None and batch.depth is not None
    assert not batch.mask[: len(own)].any() and batch.mask[len(own) :].flatten(1).any(1).all()
    from recon_synthetic_faces.dataset import SyntheticFaces

    alone = SyntheticFaces(count=5, validation=2, test=3).open("train", 32, DataContext(tmp_path / "cache"))
    assert torch.equal(batch.image[len(own) :], alone.batch(np.arange(5)).image)
    assert torch.equal(batch.depth[len(own) :], alone.batch(np.arange(5)).depth)  # type: ignore[arg-type]
    assert len(mixed.open("test", 32, context)) == 3 and "normals" in mixed.open("test", 32, context).fields
    # A loss on the truth counts only the images that have some.
    depth = batch.depth + 0.01
    output = ModelOutput(pairs={}, factors={"depth": depth, "depth_range": torch.tensor([0.9, 1.1])}, diagnostics={})
    expected = 0.01 / 0.2 * 5 / len(train)
    assert float(supervised_depth(output, batch)) == pytest.approx(expected, rel=1e-3)  # depth has 16 bits
    assert mixed.open("train", 32, context).fingerprint == train.fingerprint


def test_a_mixture_says_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one part"):
        Mixture(parts={})
    with pytest.raises(DataError, match="needs the name of a data set"):
        Mixture(parts={"a": {"root": "x"}})
    with pytest.raises(DataError, match="there is no part 'b'"):
        Mixture(parts={"a": {"name": "synthetic-faces"}}, scored="b")
    with pytest.raises(ReconError, match="no option 'cuont'"):
        Mixture(parts={"a": {"name": "synthetic-faces", "cuont": 5}}).open("train", 32, DataContext(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(("pipeline", "side"), [("unsup3d-celeba", 60), ("unsup3d-cat", 180)])
def test_published_pipelines_start_with_torchvisions_cache(
    pipeline: str, side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recon: Run
) -> None:
    """With VGG16 where torchvision keeps it and a folder of crops they run; here with stand-ins for both."""
    torch.manual_seed(1)
    cache = tmp_path / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    layers = {f"features.{key}": value for key, value in vgg16(weights=None).features.state_dict().items()}
    torch.save(layers, cache / "vgg16-397923af.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    generator = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        (tmp_path / "data" / split).mkdir(parents=True)
        for number in range(2):
            pixels = generator.integers(0, 255, (side, side, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / split / f"{number}.png")
    settings = ["training.epochs=null", "training.steps=1", "training.batch_size=2", "image_size=32"]
    settings += [f"encoders.{name}.width=8" for name in ("depth", "albedo", "light", "view", "confidence")]
    arguments = [part for setting in settings for part in ("--set", setting)]
    code, _, err = recon(
        "run",
        "--pipeline",
        pipeline,
        "--data",
        tmp_path / "data",
        "--out",
        tmp_path / "run",
        "--device",
        "cpu",
        *arguments,
    )
    assert code == 0, err
    assert (tmp_path / "run" / "model.safetensors").is_file()

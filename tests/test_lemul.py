"""LeMul: its four reconstructions against a slow form of them, its partners, and runs that stop and go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_methods import interrupted_after, weights_of

from recon_toolkit import Batch, ConfigError, ReconError, load_pipeline
from recon_toolkit.assembly import build_losses, build_model
from recon_toolkit.data.sampling import Grouped
from recon_toolkit.engine.run import run_pipeline
from recon_toolkit.threads import Interrupted

SMALL = [
    *(f"encoders.{role}.width=8" for role in ("depth", "albedo", "light", "view", "confidence", "pair_confidence")),
    *("model.convex_start_steps=0", "image_size=32"),
    *("dataset.count=24", "dataset.validation=8", "dataset.test=8", "dataset.images_per_identity=3"),
    *("training.steps=4", "training.batch_size=4", "training.precision=fp32", "training.workers=1"),
    *("training.validate_every=2", "training.checkpoint_every=2", "training.log_every=1"),
]
CONFIDENCE = ["encoders.confidence=null", "encoders.pair_confidence=null"]


def resolve(*settings: str) -> Any:
    return load_pipeline("lemul-quick", [*SMALL, *settings])


def batch_of(count: int, index: list[int] | None = None) -> Batch:
    image = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return Batch(image=image, index=torch.tensor(index or list(range(count))))


@pytest.mark.parametrize("pairs", ["group", "flip"])
def test_an_image_is_drawn_from_its_partners_shape_under_its_own_light_and_view(pairs: str) -> None:
    model: Any = build_model(resolve(f"model.pairs={pairs}")).eval()
    batch = batch_of(4)
    with torch.no_grad():
        output = model(batch)
        images = batch.image if pairs == "group" else torch.cat((batch.image, batch.image.flip(-1)))
        partners = [1, 0, 3, 2] if pairs == "group" else [4, 5, 6, 7, 0, 1, 2, 3]
        plain, swapped = output.pairs["plain"], output.pairs["swapped"]
        assert torch.equal(plain.target, images) and torch.equal(swapped.target, images)
        each = [model.canonical(image[None]) for image in images]  # one at a time
        for row, partner in enumerate(partners):
            own, other = each[row], each[partner]
            for found, shape, name in ((plain, own, ""), (swapped, other, "swapped_")):
                lit = model.lit(shape.depth, shape.albedo, own.light).image
                drawn = model.render(shape.depth, lit, shape.albedo, own.light, own.view)
                # One image or several: other sums in the convolutions, and edges of the mesh move by as much.
                torch.testing.assert_close(found.prediction[row], drawn.image[0], rtol=0, atol=2e-3)
                assert (found.mask[row] - drawn.mask[0].float()).abs().mean() < 0.01  # its own mask, no product
                torch.testing.assert_close(output.factors[f"{name}canonical_depth"][row], shape.depth[0])
            seen = torch.cat((images[partner], images[row]))[None] * 2 - 1
            sigma = torch.nn.functional.softplus(model.encoders["pair_confidence"](seen)[0])
            torch.testing.assert_close(swapped.spreads[0][row], sigma[0], rtol=1e-4, atol=1e-5)


def test_the_swap_teaches_the_partner_and_never_its_light() -> None:
    model: Any = build_model(resolve(*CONFIDENCE, "losses.photometric.likelihood=none"))
    batch = batch_of(2)
    depth, light = [], []
    factors = model.canonical

    def kept(images: torch.Tensor) -> Any:
        found = factors(images)
        depth.append(found.depth)
        light.append(found.light)
        for value in (found.depth, found.light):
            value.retain_grad()
        return found

    model.canonical = kept
    output = model(batch)
    (output.pairs["swapped"].prediction[0] - batch.image[0]).abs().mean().backward()
    assert depth[0].grad[1].abs().sum() > 0 and depth[0].grad[0].abs().sum() == 0
    assert light[0].grad[0].abs().sum() > 0 and light[0].grad[1].abs().sum() == 0


def test_an_image_that_is_its_own_partner_meets_its_mirror_image() -> None:
    model: Any = build_model(resolve()).eval()
    batch = batch_of(4, [5, 5, 6, 7])
    batch.image[1] = batch.image[0]
    target = model(batch).pairs["plain"].target
    assert torch.equal(target[1], batch.image[1].flip(-1))
    assert torch.equal(target[[0, 2, 3]], batch.image[[0, 2, 3]])


def test_a_share_of_the_pairs_is_an_image_and_its_mirror_image() -> None:
    model: Any = build_model(resolve("model.mirrored=0.25")).eval()
    count, draw = 400, torch.randint(2**62, (400,), generator=torch.Generator().manual_seed(3))
    images = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    batch = Batch(image=images, index=torch.arange(count), draw=draw)
    found, partner = model._with_partners(batch)
    assert torch.equal(partner.view(-1, 2), torch.arange(count).view(-1, 2).flip(1))
    mirrored = (found[1::2] == images[::2].flip(-1)).flatten(1).all(1)
    assert torch.equal(found[::2], images[::2]) and torch.equal(found[1::2][~mirrored], images[1::2][~mirrored])
    assert 0.12 < mirrored.float().mean() < 0.38  # of 200 draws: more than four standard deviations
    assert torch.equal(model._with_partners(batch)[0], found)  # the same step sees the same
    assert torch.equal(model._with_partners(Batch(images, torch.arange(count)))[0], images)  # outside of training


def test_smoothness_is_of_the_albedo_that_was_used() -> None:
    resolved = resolve()
    model, terms = build_model(resolved), {term.name: term for term in build_losses(resolved)}
    batch = batch_of(4)
    output = model(batch)
    factors = dict(output.factors)
    plain = terms["smoothness"].component(output, batch)
    swapped = terms["swapped-smoothness"].component(output, batch)
    assert not torch.equal(plain, swapped)
    moved = {f"swapped_{name}": factors[name] for name in ("canonical_albedo", "depth", "view", "mask", "image")}
    same = terms["swapped-smoothness"].component(type(output)(output.pairs, factors | moved), batch)
    assert torch.equal(plain, same)


class Labels:
    def __init__(self, labels: list[int]) -> None:
        self._labels = np.array(labels)

    def labels(self, by: str) -> Any:
        return self._labels


@pytest.mark.parametrize("singles", ["wait", "repeat"])
def test_images_that_fit_into_no_pair(singles: Any) -> None:
    data: Any = Labels([0, 1, 1, 2, 2, 2])
    sampler = Grouped(data, 2, 2, 0, singles=singles)
    for epoch in range(5):
        sets = sampler.sets_of(epoch)
        assert all(data._labels[a] == data._labels[b] for a, b in sets)
        if singles == "wait":
            assert len(sets) == sampler.sets == 2 and len(set(sets.flatten())) == 4
        else:
            assert len(sets) == sampler.sets == 4 and set(sets.flatten()) == set(range(6))
            assert sum(a == b for a, b in sets) == 2  # the only one of 0, and one of 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_goes_on_to_equal_tensors(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    resolved = resolve(f"training.workers={workers}")
    whole = run_pipeline(resolved, out=tmp_path / "whole", device="cpu")
    assert whole.steps == 4 and whole.mad is not None
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        interrupted_after(patch, 3)
        run_pipeline(resolved, out=tmp_path / "parts", device="cpu")
    run_pipeline(resolved, out=tmp_path / "parts", device="cpu", resume=True)
    first, second = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    # The second step of the method: shape and views stay, textures learn.
    texture = resolve(
        *("model.pairs=none", 'model.trains=["albedo","confidence","light"]', "losses.swapped=null"),
        *("losses.swapped-perceptual=null", "losses.swapped-smoothness=null"),
        f"training.start_from={tmp_path / 'whole'}",
    )
    run_pipeline(texture, out=tmp_path / "texture", device="cpu")
    third = weights_of(tmp_path / "texture")
    moved = {key.split(".")[1] for key in first if not torch.equal(first[key], third[key])}
    assert moved == {"albedo", "confidence", "light"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["dataset.images_per_identity=1"], "group"),
        (["training.batch_size=3"], "cannot be divided into groups of 2"),
        (["model.pairs=none"], "swapped"),
        (['model.trains=["shape"]'], "trains names 'shape'"),
        (["model.pairs=mirror"], "model.pairs"),
        (["model.mirrored=2"], "mirrored 2"),
        (["sampler={name: shuffled}"], "pairs of images of different groups"),
    ],
)
def test_what_cannot_be_is_named(settings: list[str], message: str, tmp_path: Path, cache: Path) -> None:
    with pytest.raises((ReconError, ConfigError), match=message):
        run_pipeline(resolve(*settings), out=tmp_path / "run", device="cpu")

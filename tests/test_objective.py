"""The likelihood split, masks, weights and the sampler, against hand-computed values."""

import math

import pytest
import torch

from recon_toolkit.assembly import LossTerm
from recon_toolkit.data.fields import mirror
from recon_toolkit.data.sampling import endless, mirrored, share_of
from recon_toolkit.errors import ConfigError, ReconError
from recon_toolkit.losses import Objective, masked_mean, negative_log_likelihood, sigma_for
from recon_toolkit.models import Step
from recon_toolkit.structures import Batch, ImagePair, ModelOutput


def absolute(prediction, target):
    return (prediction - target).abs()


def term(component=absolute, **changes):
    values = {
        "name": "colour", "component": component, "takes": "pair", "weight": 1.0, "likelihood": "none",
        "of": "plain", "mask": True, "start_weight": None, "start_epochs": 0.0,
    }  # fmt: skip
    return LossTerm(**{**values, **changes})


def output(mask=None, spreads=(), prediction=0.75):
    target = torch.zeros(2, 3, 8, 8)
    pair = ImagePair(torch.full_like(target, prediction).requires_grad_(), target, mask, spreads)
    return ModelOutput(pairs={"plain": pair}, factors={"depth": torch.full((2, 8, 8), 3.0)})


def test_likelihoods_have_their_closed_forms():
    residual, spread = torch.tensor([[[[0.5]]]]), torch.tensor([[[[0.2]]]])
    assert negative_log_likelihood(residual, None, "none").item() == 0.5
    laplace = math.sqrt(2) * 0.5 / 0.2 + math.log(0.2)
    assert negative_log_likelihood(residual, spread, "laplace").item() == pytest.approx(laplace, rel=1e-5)  # ε, float32
    gaussian = 0.5 / (2 * 0.04) + math.log(0.2)
    assert negative_log_likelihood(residual, spread, "gaussian").item() == pytest.approx(gaussian, rel=1e-5)


def test_the_best_laplace_spread_is_root_two_times_the_residual():
    spread = torch.linspace(0.01, 2, 2000)
    value = negative_log_likelihood(torch.tensor(0.4), spread, "laplace")
    assert spread[value.argmin()].item() == pytest.approx(math.sqrt(2) * 0.4, abs=1e-3)  # the grid's step


def test_masked_mean_counts_only_the_mask_and_every_channel():
    values = torch.zeros(1, 3, 4, 4)
    values[:, :, 0] = 2
    mask = torch.zeros(1, 4, 4)
    mask[:, :2] = 1
    assert masked_mean(values, mask).item() == 1
    assert masked_mean(values, None).item() == 0.5
    assert masked_mean(values, torch.zeros(1, 4, 4)).item() == 0


def test_a_mask_is_pooled_to_a_coarser_residual():
    values = torch.tensor([[[[1.0, 5.0], [1.0, 5.0]]]])
    mask = torch.zeros(1, 4, 4)
    mask[:, :, :3] = 1  # the left coarse pixels whole, the right ones half
    assert masked_mean(values, mask).item() == pytest.approx((2 * 1 + 2 * 0.5 * 5) / 3)


def test_a_residual_takes_the_confidence_of_its_own_size():
    fine, coarse = torch.full((2, 1, 8, 8), 0.3), torch.full((2, 1, 2, 2), 0.7)
    pair = output(spreads=(fine, coarse)).pairs["plain"]
    assert sigma_for(pair, 2, 2) is coarse and sigma_for(pair, 8, 8) is fine
    other = sigma_for(pair, 4, 4)
    assert other.shape == (2, 1, 4, 4) and other.mean().item() == pytest.approx(0.3)


def test_weights_and_the_start_weight():
    objective = Objective([term(weight=0.5, start_weight=2.0, start_epochs=3.0)])
    assert objective(output(), epoch=0).total.item() == pytest.approx(2 * 0.75)
    assert objective(output(), epoch=3.0).total.item() == pytest.approx(0.5 * 0.75)
    assert objective(output()).terms["colour"].item() == pytest.approx(0.75)


def test_a_term_of_weight_zero_is_logged_and_has_no_gradient():
    found = output()
    losses = Objective([term(), term(name="off", weight=0.0)])(found)
    assert losses.terms["off"].item() == pytest.approx(0.75)
    losses.total.backward()
    expected = 1 / found.pairs["plain"].prediction.numel()
    torch.testing.assert_close(
        found.pairs["plain"].prediction.grad, torch.full((2, 3, 8, 8), expected), atol=1e-9, rtol=1e-5
    )


def test_a_term_on_the_output_sees_the_factors():
    losses = Objective([term(component=lambda output: output.factors["depth"], takes="output", weight=2.0)])(output())
    assert losses.total.item() == 6


def test_terms_that_do_not_fit_are_all_named():
    objective = Objective([term(name="a", of="mirrored"), term(name="b", likelihood="laplace")])
    with pytest.raises(ConfigError) as caught:
        objective.check(output())
    assert "losses.a" in str(caught.value) and "plain" in str(caught.value)
    assert "losses.b" in str(caught.value) and "likelihood: none" in str(caught.value)


def test_a_loss_that_returns_no_map_is_named():
    with pytest.raises(ReconError, match=r"losses\.colour.*residual map"):
        Objective([term(component=lambda prediction, target: prediction.mean())])(output())


# -- the sampler -----------------------------------------------------------------------------------------------------


def test_every_epoch_sees_every_image_once():
    seen = [i for step in range(5) for i in endless(4 * step, 4, 10, (3,))]  # 20 images: two epochs
    assert sorted(seen[:10]) == list(range(10)) and sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:] and seen[:4] != endless(0, 4, 10, (4,)).tolist()


def test_processes_share_a_batch_without_overlap():
    whole = endless(32, 8, 100, (1,))
    parts = [share_of(whole, rank, 2) for rank in range(2)]
    assert sorted(whole) == sorted([*parts[0], *parts[1]]) and len(parts[0]) == 4
    pairs = share_of(whole, 1, 2, group_size=2).reshape(-1, 2).tolist()
    assert pairs == [whole[2:4].tolist(), whole[6:8].tolist()]  # groups stay whole
    flags = mirrored(0, 3, 12, group_size=3).reshape(4, 3)
    assert (flags == flags[:, :1]).all()


def test_mirroring_twice_gives_the_batch_back_and_turns_vectors():
    batch = Batch(
        image=torch.rand(2, 3, 4, 4),
        index=torch.arange(2),
        depth=torch.rand(2, 4, 4),
        normals=torch.randn(2, 3, 4, 4),
        light=torch.tensor([[0.3, 0.6, 0.6, 0.0, 0.8]] * 2),
        view=torch.tensor([[0.1, 0.2, 0.3, 0.01, 0.02, 0.03]] * 2),
    )
    chosen = torch.tensor([True, False])
    once = mirror(batch, chosen)
    assert torch.equal(once.image[0], batch.image[0].flip(-1)) and torch.equal(once.image[1], batch.image[1])
    assert torch.equal(once.normals[0, 0], -batch.normals[0, 0].flip(-1))
    assert once.light[0].tolist() == pytest.approx([0.3, 0.6, -0.6, 0.0, 0.8])
    assert once.view[0].tolist() == pytest.approx([0.1, -0.2, -0.3, -0.01, 0.02, 0.03])
    twice = mirror(once, chosen)
    assert torch.equal(twice.depth, batch.depth) and torch.equal(twice.view, batch.view)


# -- shards ----------------------------------------------------------------------------------------------------------


def one_loss(gradienter, losses_of, batch, parameters):
    """The losses of a step that has one."""

    def begin(shard):
        return iter([("main", losses_of(shard))]), Step(0, 0.0, None)

    (found,) = gradienter(begin, batch, {"main": parameters})
    return found.losses


def test_gradients_of_shards_are_their_weighted_mean():
    from torch import nn

    from recon_toolkit.engine.step import Gradienter, split

    generator = torch.Generator().manual_seed(0)
    batch = Batch(image=torch.rand(5, 3, 8, 8, generator=generator), index=torch.arange(5))
    assert [len(shard) for shard in split(batch, 2)] == [2, 3] and [len(s) for s in split(batch, 9)] == [1] * 5
    network = nn.Conv2d(3, 3, 3, padding=1)
    unused = nn.Parameter(torch.zeros(2))
    parameters = [*network.parameters(), unused]
    objective = Objective([term()])

    def losses_of(shard):
        pair = ImagePair(network(shard.image), shard.image)
        return objective(ModelOutput(pairs={"plain": pair}, factors={}))

    losses = one_loss(Gradienter(2), losses_of, batch, parameters)
    got = [p.grad for p in parameters]
    # No mask: the weighted mean over shards is the mean over the batch.
    network.zero_grad()
    whole = losses_of(batch)
    whole.total.backward()
    torch.testing.assert_close(losses.total, whole.total.detach())
    torch.testing.assert_close(losses.terms["colour"], whole.terms["colour"])
    for gradient, parameter in zip(got[:2], network.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)
    assert got[2] is None


def test_a_step_of_shards_is_the_step_of_the_batch_whatever_the_layout():
    """A fused optimiser reads parameter and gradient as they lie in memory; convolutions may give channels last."""
    import copy

    from torch import nn

    from recon_toolkit.engine.step import Gradienter
    from recon_toolkit.structures import Losses

    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ConvTranspose2d(5, 3, 3))
    alone = copy.deepcopy(network)
    batch = Batch(image=torch.rand(4, 3, 6, 6), index=torch.arange(4))

    def forward_of(model):
        def forward(shard):
            image = shard.image.contiguous(memory_format=torch.channels_last)
            loss = (model(image) - shard.image).square().mean()
            return Losses(loss)

        return forward

    steps = [torch.optim.Adam(model.parameters(), lr=0.1, fused=True) for model in (network, alone)]
    shards = Gradienter(2)
    one_loss(shards, forward_of(network), batch, list(network.parameters()))
    shards.close()
    forward_of(alone)(batch).total.backward()
    for step in steps:
        step.step()
    for ours, theirs in zip(network.parameters(), alone.parameters(), strict=True):
        assert ours.grad.stride() == ours.stride()
        assert torch.allclose(ours, theirs, atol=1e-4)  # Adam's first step divides by the gradient, near 0 too


def test_batch_normalisation_is_not_shared_among_threads():
    from torch import nn

    from recon_toolkit.engine.step import check_shardable

    with pytest.raises(ReconError, match=r"batch normalisation \(1\).*set it to 1"):
        check_shardable(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))

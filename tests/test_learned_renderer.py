"""The learned renderer: factors by index, what its options and weights mean, and that it learns from the exact one."""

import json
import math

import pytest
import torch
from recon_learned_renderer.model import LearnedRendererModel, Ranges, canonical_object, draw, factor_supervision
from recon_learned_renderer.renderer import LearnedRenderer
from safetensors.torch import save_file

from recon_toolkit import Batch, ImagePair, ModelOutput, Rendering
from recon_toolkit.cli.app import execute
from recon_toolkit.config.pipeline import load_pipeline
from recon_toolkit.engine.checkpoint import load_run
from recon_toolkit.engine.run import run_pipeline
from recon_toolkit.engine.step import split
from recon_toolkit.errors import CheckpointError, PluginError, ReconError
from recon_toolkit.geometry import Camera, normals_from_depth, shade
from recon_toolkit.plugins import load_plugins
from recon_toolkit.rendering import DepthMeshRenderer, render_object
from recon_toolkit.structures import Reconstruction

RANGE = (0.9, 1.1)
RANGES = Ranges((20, 45, 10), (0.02, 0.01, 0.005), (0.2, 0.6), (0.1, 0.9), 1.0)
TOY = [
    "image_size=32", "model.width=8", "training.steps=6", "training.validate_every=3", "training.log_every=2",
    "training.workers=1", "training.precision=fp32",
    "dataset={name: synthetic-faces, count: 48, validation: 8, test: 8}",
]  # fmt: skip


def renderer(**options):
    return LearnedRenderer(camera=Camera(), depth_range=RANGE, **{"width": 8, **options})


def teacher():
    return DepthMeshRenderer(camera=Camera(), depth_range=RANGE)


def model(size=32, **options):
    torch.manual_seed(0)
    return LearnedRendererModel(teacher(), Camera(), size, **{"width": 8, "layers": 1, **options})


def batch(count=4, size=32):
    generator = torch.Generator().manual_seed(1)
    axis = torch.linspace(-1, 1, size)
    inside = 1 - (axis / 0.8) ** 2 - (axis[:, None] / 0.95) ** 2
    image, albedo = torch.rand(2, count, 3, size, size, generator=generator).unbind(0)
    depth = (1.06 - 0.11 * inside.clamp(min=0).sqrt()).expand(count, size, size).clone()
    mask = (inside > 0).expand(count, size, size).clone()
    return Batch(image=image, index=torch.arange(10, 10 + count), depth=depth, mask=mask, albedo=albedo)


def factors(count=2, size=32):
    light, view = draw(torch.arange(count), RANGES, 0, 0)
    found = batch(count, size)
    return found.depth, found.albedo, light, view


@pytest.fixture(scope="session")
def run(cache, tmp_path_factory):
    """A finished run of the pipeline, made by the command line."""
    out = tmp_path_factory.mktemp("learned") / "run"
    settings = [argument for setting in TOY for argument in ("--set", setting)]
    assert execute(["run", "-p", "learned-renderer", "--out", str(out), "--device", "cpu", "--quiet", *settings]) == 0
    return out


# -- synthetic factors -----------------------------------------------------------------------------------------------


def test_factors_depend_on_the_index_alone():
    indices = torch.tensor([7, 3, 4999, 0])
    light, view = draw(indices, RANGES, 0, 0)
    for row, index in enumerate(indices):
        alone = draw(index[None], RANGES, 0, 0)
        assert torch.equal(alone[0][0], light[row]) and torch.equal(alone[1][0], view[row])
    for other in (draw(indices, RANGES, 1, 0), draw(indices, RANGES, 0, 1)):
        assert not torch.isclose(other[1], view).any()
    state = torch.get_rng_state()
    draw(indices, RANGES, 0, 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_factors_fill_their_ranges():
    light, view = draw(torch.arange(2000), RANGES, 0, 0)
    limits = torch.tensor([math.radians(20), math.radians(45), math.radians(10), 0.02, 0.01, 0.005])
    assert (view.abs() <= limits).all()
    # 2000 even draws: the mean's spread is 0.013 of the limit, and the extreme misses it by 0.0005 on average.
    assert (view.mean(0).abs() < 0.06 * limits).all() and (view.abs().amax(0) > 0.98 * limits).all()
    assert ((light[:, :2] >= torch.tensor([0.2, 0.1])) & (light[:, :2] <= torch.tensor([0.6, 0.9]))).all()
    torch.testing.assert_close(light[:, 2:].norm(dim=1), torch.ones(2000))
    assert (light[:, 2:4].abs() / light[:, 4:]).max() <= 1 + 1e-6  # rounding of the division


def test_an_output_does_not_depend_on_how_the_batch_is_divided():
    net, whole = model(), batch()
    found = net(whole)
    parts = [net(part) for part in split(whole, 2)]
    for name in ("view", "light", "target_depth"):
        assert torch.equal(torch.cat([part.factors[name] for part in parts]), found.factors[name]), name
    joined = torch.cat([part.pairs["plain"].prediction for part in parts])
    # Convolutions of another batch size may sum in another order: float32.
    torch.testing.assert_close(joined, found.pairs["plain"].prediction, rtol=0, atol=1e-5)


def test_scoring_has_views_of_its_own():
    net, data = model(), batch()
    training = net(data).factors["view"]
    net.eval()
    assert not torch.isclose(net(data).factors["view"], training)[:, :5].any()  # there is no shift along z
    assert torch.equal(net.scored_pair(data).target, net(data).pairs["plain"].target)


def test_the_object_is_the_true_one_before_a_plane_of_the_pictures_own_colours():
    data = batch()
    data.depth[:, 0, 0] = math.nan
    depth, albedo = canonical_object(data, RANGE, 1.04)
    outside = ~data.mask
    assert (depth[outside] == 1.04).all() and torch.equal(depth[data.mask], data.depth[data.mask].clamp(*RANGE))
    assert torch.equal(albedo.permute(1, 0, 2, 3)[:, outside], data.image.permute(1, 0, 2, 3)[:, outside])
    with pytest.raises(ReconError, match="needs true depth"):
        canonical_object(Batch(image=data.image, index=data.index), RANGE, 1.04)


def test_the_target_is_the_exact_renderers_picture():
    net, data = model(), batch()
    found = net(data)
    values = found.factors
    lit, _ = shade(values["canonical_albedo"], normals_from_depth(values["canonical_depth"], Camera()), values["light"])
    expected = teacher()(values["canonical_depth"], lit, values["view"])
    assert torch.equal(found.pairs["plain"].target, expected.image.clamp(0, 1))
    assert torch.equal(found.pairs["plain"].mask, expected.mask.float())
    assert torch.equal(values["target_depth"], expected.depth)


# -- the renderer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 64, 128])
@torch.no_grad()
def test_shapes_and_ranges(size):
    found = renderer().render_factors(*factors(2, size))
    assert found.image.shape == (2, 3, size, size) and found.depth.shape == found.mask.shape == (2, size, size)
    assert ((found.image >= 0) & (found.image <= 1)).all() and found.mask.dtype == torch.bool
    assert ((found.depth[~found.mask] - 1.2).abs() < 1e-6).all()  # float32
    assert ((found.depth > 0.8 - 1e-6) & (found.depth < 1.2 + 1e-6)).all()


def test_gradients_reach_every_factor_and_every_weight():
    net = renderer()
    # Films start at zero, and let no gradient through to the description of view and light.
    for name, parameter in net.named_parameters():
        if ".film." in name:
            torch.nn.init.normal_(parameter, std=0.02)
    inputs = [value.clone().requires_grad_() for value in factors()]
    found = net.predict(*inputs)
    (found.image.square().sum() + found.depth.square().sum() + found.coverage.square().sum()).backward()
    for value in (*inputs, *net.parameters()):
        assert value.grad is not None and value.grad.isfinite().all() and value.grad.abs().max() > 0


def test_an_image_alone_is_an_albedo_in_full_ambient_light():
    net = renderer()
    depth, image, _, view = factors()
    light = torch.tensor([[1.0, 0, 0, 0, 1]]).expand(2, 5)
    assert torch.equal(net(depth, image, view).image, net.render_factors(depth, image, light, view).image)


def test_the_object_is_rendered_by_the_method_that_the_renderer_has():
    depth, image, light, view = factors()
    albedo = image / 2

    class Shades:
        def __call__(self, depth, image, view):
            return Rendering(image, depth, depth > 0)

        def render_factors(self, depth, albedo, light, view):
            return Rendering(albedo * light[:, :1, None, None], depth, depth > 0)

    own = render_object(Shades(), depth, image, albedo, light, view)
    assert torch.equal(own.image, albedo * light[:, :1, None, None])
    assert torch.equal(render_object(Shades(), depth, image, albedo, None, view).image, image)
    exact = teacher()
    assert torch.equal(render_object(exact, depth, image, albedo, light, view).image, exact(depth, image, view).image)


def test_options_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="not trained render nothing"):
        renderer(trainable=False)
    with pytest.raises(ValueError, match="multiple of 8"):
        renderer(width=12)
    with pytest.raises(ValueError, match="layers is 1 or more"):
        renderer(layers=0)
    with pytest.raises(ValueError, match="multiples of 4"):
        renderer().predict(torch.ones(1, 30, 30), torch.ones(1, 3, 30, 30), torch.ones(1, 5), torch.ones(1, 6))
    with pytest.raises(ReconError, match="there is none"):
        LearnedRendererModel(None, Camera(), 32)


# -- training --------------------------------------------------------------------------------------------------------


def test_factor_supervision_by_hand():
    depth = torch.tensor([[[1.0, 1.1], [0.9, 1.0]]])
    values = {
        "depth": depth,
        "target_depth": torch.full((1, 2, 2), 1.0),
        "target_mask": torch.tensor([[[1.0, 1.0], [1.0, 0.0]]]),
        "coverage_logits": torch.zeros(1, 2, 2),
        "depth_range": torch.tensor(RANGE),
    }
    found = factor_supervision(ModelOutput({}, values), depth_share=1, coverage_share=0.5)
    # (0 + 0.1 + 0.1) / 3 over a range of 0.2, and ln 2 for undecided logits.
    assert float(found) == pytest.approx(1 / 3 + 0.5 * math.log(2), rel=1e-5)  # float32


def test_two_dozen_steps_lower_the_loss():
    net, data = model(), batch(8)

    def loss():
        output = net(data)
        pair: ImagePair = output.pairs["plain"]
        error = ((pair.prediction - pair.target).abs() * pair.mask[:, None]).sum() / (3 * pair.mask.sum())
        return error + 0.25 * factor_supervision(output)

    optimizer = torch.optim.Adam(net.student.parameters(), lr=3e-3)
    first = loss().item()
    for _ in range(24):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    # The colours are noise, which nothing learns in so few steps; depth and coverage are not. Measured: 0.58.
    assert loss().item() < 0.75 * first


def test_a_run_is_scored_by_its_pictures(run):
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 6 and summary["images"] == 8 and summary["side"] is None and summary["mad"] is None
    assert 5 < summary["psnr"] < 30 and -1 < summary["ssim"] < 1 and summary["findings"] == []
    if summary["lpips"] is None:
        assert "alexnet" in summary["notes"][0]
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [e["step"] for e in entries if e["kind"] == "validation" and e["psnr"] > 0] == [3, 6]
    page = (run / "index.html").read_text()
    assert f"{summary['psnr']:.2f}" in page and "no true depth" not in page
    assert all((run / name).stat().st_size for name in ("contact_sheet.png", "curves.png"))


def test_weights_go_from_a_run_to_the_renderer(run):
    trained, _ = load_run(run, load_plugins())
    inputs = factors()
    with torch.no_grad():
        expected = trained.student.render_factors(*inputs)
        for weights in (run, run / "model.safetensors"):
            found = renderer(width=None, weights=weights).render_factors(*inputs)
            assert torch.equal(found.image, expected.image) and torch.equal(found.depth, expected.depth)
    frozen = renderer(weights=run, trainable=False)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    with pytest.warns(UserWarning, match="trained at 32 pixels and is used at 64"):
        frozen.render_factors(*factors(1, 64))


def test_weights_that_do_not_fit_are_explained(run, tmp_path):
    with pytest.raises(CheckpointError, match=r"no weights of a learned renderer.*recon run --pipeline learned-rend"):
        renderer(weights=tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="no weights here yet"):
        renderer(weights=tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="not of the form"):
        renderer(weights=tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="width is 16, but the weights were trained with 8"):
        renderer(weights=run, width=16)
    with pytest.raises(ValueError, match=r"trained for depths 0\.9 to 1\.1 and a field of view of 10°"):
        LearnedRenderer(camera=Camera(20), depth_range=RANGE, weights=run)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """The face pipeline with a learned renderer, small."""
    path = tmp_path_factory.mktemp("pipeline") / "faces.yaml"
    small = "\n".join(f"  {role}: {{width: 8}}" for role in ("depth", "albedo", "light", "view", "confidence"))
    path.write_text(
        "extends: unsup3d-learned-renderer\nmodel: {convex_start_steps: 2}\n"
        f"encoders:\n{small}\n"
        "dataset: {name: synthetic-faces, count: 48, validation: 8, test: 8}\nimage_size: 32\n"
        "training: {steps: 4, batch_size: 8, log_every: 2, precision: fp32, workers: 1}\n"
    )
    return path


@pytest.mark.parametrize("trainable", [True, False])
def test_the_face_pipeline_tunes_the_renderer_or_leaves_it(run, faces, tmp_path, trainable):
    settings = [f"renderer.weights={run}", f"renderer.trainable={str(trainable).lower()}"]
    resolved = load_pipeline(faces, settings, load_plugins())
    summary = run_pipeline(resolved, out=tmp_path / "faces", device="cpu")
    assert summary.steps == 4 and summary.mad is not None and summary.psnr is None
    before = renderer(weights=run).state_dict()
    after, _ = load_run(tmp_path / "faces", load_plugins())
    same = [torch.equal(value, before[name]) for name, value in after.renderer.state_dict().items()]
    assert all(same) is not trainable
    assert isinstance(after.reconstruct(torch.rand(1, 3, 32, 32)), Reconstruction)
    if trainable:  # tuned weights can be used in their turn
        again = renderer(weights=tmp_path / "faces").state_dict()
        assert all(torch.equal(value, again[name]) for name, value in after.renderer.state_dict().items())


def test_a_pipeline_names_missing_weights(faces, tmp_path):
    resolved = load_pipeline(faces, [f"renderer.weights={tmp_path / 'nowhere'}"], load_plugins())
    with pytest.raises(CheckpointError, match="no weights of a learned renderer"):
        run_pipeline(resolved, out=tmp_path / "faces", device="cpu")
    with pytest.raises(PluginError, match="not trained render nothing"):
        run_pipeline(load_pipeline(faces, [], load_plugins()), out=tmp_path / "faces", device="cpu")

"""The losses of the shipped plugins as terms of a pipeline: what they take, and which options are refused."""

from pathlib import Path

import pytest

from recon_toolkit import ReconError, build_losses, load_pipeline, load_plugins

PLUGIN = Path(__file__).parent.parent / "plugins" / "recon_losses"


@pytest.fixture(scope="module")
def host():
    host = load_plugins()
    return host if "ssim" in host.registry.names("loss") else load_plugins([PLUGIN])


@pytest.mark.parametrize(
    ("term", "takes", "fields"),
    [
        ("{name: ssim, window: 7}", "pair", set()),
        ("{name: edges, likelihood: laplace}", "pair", set()),
        ("{name: laplacian-pyramid, levels: 2, level_weights: [1, 0.5]}", "pair", set()),
        ("{name: filter-bank, wavelengths: [3, 6.5], scale_weights: [1, 2], compare: amplitude}", "pair", set()),
        ("{name: albedo-smoothness, weight: 0.5}", "output and batch", set()),
        ("{name: normal-consistency, fov: 10}", "output", set()),
        ("{name: symmetry, albedo_share: 0}", "output", set()),
        ("{name: supervised-depth, scale_invariant: true}", "output and batch", {"depth", "mask"}),
        ("{name: silhouette, measure: iou}", "output and batch", {"mask"}),
        ("{name: perceptual, layers: [relu1_2, relu3_3], weights: random}", "pair", set()),
    ],
)
def test_every_loss_is_built_from_yaml(host, term, takes, fields):
    (built,) = [
        term for term in build_losses(load_pipeline("unsup3d-quick", [f"losses.x={term}"], host)) if term.name == "x"
    ]
    assert (built.takes, built.batch_fields) == (takes, fields)


def test_weights_are_random_only_by_that_word(host, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("perceptual", "lpips"):

        def options(weights, name=name):
            resolved = load_pipeline("unsup3d-quick", [f"losses.x={{name: {name}{weights}}}"], host)
            return resolved, resolved.components["losses", "x"].options["weights"]

        assert options(", weights: random")[1] == "random"
        assert options(f", weights: {tmp_path}/w.pth")[1] == tmp_path / "w.pth"
        resolved, weights = options("")
        assert weights is None
        with pytest.raises(ReconError, match="there is no file"):
            build_losses(resolved)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ("{name: perceptual, layers: [relu3_4]}", "relu3_4"),
        ("{name: perceptual, layers: []}", "layers"),
        ("{name: lpips, net: squeeze}", "'alex' or 'vgg'"),
        ("{name: filter-bank, wavelengths: [1]}", "greater than or equal to 2"),
        ("{name: filter-bank, wavelengths: []}", "wavelengths.*at least 1 item"),
        ("{name: silhouette, measure: dice}", "'cross-entropy' or 'iou'"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_built(host, term, message):
    with pytest.raises(ReconError, match=message):
        load_pipeline("unsup3d-quick", [f"losses.x={term}"], host)

"""The conformance suite is truthful: right renderers pass, and each classic fault gets its own verdict and cause."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from recon_conformance import ConformanceReport, check_renderer
from recon_conformance.gradients import EVENNESS
from recon_conformance.subject import Ellipsoid, Plane, Subject, canonical_depth, pixel_grid, register, sight, view_of

from recon_toolkit.cli.app import execute
from recon_toolkit.geometry import backproject, transform
from recon_toolkit.plugins import load_plugins
from recon_toolkit.rendering import DepthMeshRenderer

FAULTY = Path(__file__).parent / "faulty_renderers.py"
HOST = load_plugins([FAULTY])

#: The checks that tell the classic faults apart; cheap enough to run for each of them.
TELLING = ["planes", "ellipsoid", "colours", "pixel-offset", "edges", "background", "evenness"]

#: Renderer, the checks to run, and the one check that fails with a part of its cause.
FAULTS = [
    ("strict-edges", TELLING, "edges", "the inside test is strict"),
    ("single-sample", TELLING, "evenness", "one sample a pixel"),
    ("background-minus-one", TELLING, "background", "is clamped to the nearest depth"),
    ("half-pixel", TELLING, "pixel-offset", "half a pixel off (du +0.50, dv +0.50)"),
    ("plus-x-left", TELLING, "pixel-offset", "mirrored left-right: its x axis points left"),
    ("turns-back", TELLING, "pixel-offset", "turns the wrong way about y"),
    ("pixel-edges", ["planes", "ellipsoid", "pixel-offset"], "pixel-offset", "the field of view spans pixel edges"),
    ("old-grid-sample", ["planes", "ellipsoid", "colours", "pixel-offset"], "colours", "align_corners=False"),
    ("nan-at-silhouettes", ["background"], "background", "the background's depth is not finite"),
    ("noisy", ["planes", "determinism"], "determinism", "not deterministic"),
    ("shares-its-batch", ["batch", "determinism"], "batch", "depends on the others of its batch"),
    ("detached", ["planes", "gradients"], "gradient-depth", "no gradient arrives"),
    ("sum-backward", ["planes", "gradients"], "gradient-depth", "4 times what it should be"),
    ("fixed-size", ["planes", "sizes"], "sizes", "pictures of 33 pixels fail"),
    ("writes-to-its-input", ["inputs"], "inputs", "writes to its input: canonical depth"),
]


def checked(name: str, **arguments: Any) -> ConformanceReport:
    arguments.setdefault("large", 100)
    return check_renderer(HOST.registry.get("renderer", name).load(), name=name, **arguments)


@pytest.mark.parametrize(("name", "only", "check", "cause"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_each_fault_gets_its_verdict_and_its_cause(name: str, only: list[str], check: str, cause: str) -> None:
    report = checked(name, only=only)
    assert cause in report.check(check).cause
    assert report.check(check).remedy
    assert report.verdict == "fail"
    failed = {found.name for found in report.checks if found.verdict == "fail"}
    # Where no gradient arrives, none arrives at the view either.
    assert failed - ({"gradient-view"} if name == "detached" else set()) == {check}


def test_a_right_renderer_of_another_make_passes() -> None:
    only = ["ellipsoid", "pixel-offset", "edges", "background", "evenness"]
    report = checked("marched", only=only)
    assert {found.name: found.verdict for found in report.checks} == dict.fromkeys(only, "pass")


def test_the_exact_mesh_passes() -> None:
    report = check_renderer(DepthMeshRenderer, name="depth-mesh", large=100)
    assert [(found.name, found.cause) for found in report.checks if found.verdict not in ("pass", "skipped")] == []
    assert report.verdict == "pass"
    assert report.trainable


def test_three_by_three_samples_pass() -> None:
    report = check_renderer(partial(DepthMeshRenderer, supersampling=3), only=TELLING)
    assert report.verdict == "pass"


def test_half_a_pixel_can_be_trained_through_and_one_sample_cannot() -> None:
    """The published renderer is half a pixel off, and trains."""
    assert checked("half-pixel", only=["pixel-offset"]).trainable
    assert not checked("single-sample", only=["evenness"]).trainable


def test_what_is_no_rendering_fails_and_the_other_checks_go_on() -> None:
    report = checked("no-rendering", only=["planes", "edges"])
    assert [found.verdict for found in report.checks] == ["fail", "fail"]
    assert all("returned a Tensor whose 'image' is no tensor" in found.cause for found in report.checks)


def test_a_renderer_that_cannot_be_built_fails_with_the_exception() -> None:
    def factory(**_: Any) -> None:
        raise RuntimeError("no such device")

    report = check_renderer(factory, only=["planes", "determinism"])
    assert [found.cause for found in report.checks] == ["it raises RuntimeError: no such device"] * 2


def test_an_unknown_check_is_named() -> None:
    with pytest.raises(ValueError, match="there is no check"):
        check_renderer(DepthMeshRenderer, only=["edgs"])


@pytest.mark.parametrize("surface", [Plane(0.3, -0.2), Ellipsoid()], ids=["plane", "ellipsoid"])
def test_the_closed_form_undoes_itself(surface: Plane | Ellipsoid) -> None:
    """Canonical points, moved by the view and projected, are seen where they land and at their own depth."""
    view, depth = view_of(4, 20, -8, move=(0.01, 0.0, 0.02)), canonical_depth(surface)[None]
    from recon_conformance.subject import CAMERA

    moved = transform(backproject(depth, CAMERA).flatten(2), view[None])
    u, v, z = CAMERA.project(moved, 64, 64)[0]
    found = sight(surface, view, torch.stack((u, v)))
    seen = found.inside > 0.5  # its own place, away from the border
    assert seen.double().mean() > 0.9
    # float64 rounding through a square root.
    torch.testing.assert_close(found.depth[seen], z[seen], rtol=0, atol=1e-10)
    torch.testing.assert_close(found.place[:, seen], pixel_grid(64)[:, seen], rtol=0, atol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 0.13, 0.5, -0.3])
def test_the_offset_is_measured_to_a_hundredth_of_a_pixel(offset: float) -> None:
    found = register(Subject(partial(DepthMeshRenderer, pixel_offset=offset)))
    assert not found.mirror
    assert not found.turn
    assert found.shift == pytest.approx((offset, offset), abs=0.01)  # measured: within 0.001


@pytest.mark.parametrize("column", [0, 1])
def test_the_table_of_evenness_is_true(column: int) -> None:
    subject = Subject(partial(DepthMeshRenderer, supersampling=column + 1))
    depth = canonical_depth(Ellipsoid())[None].float()
    for angles, row in EVENNESS.items():
        found = subject.gradients(
            depth, torch.zeros(1, 3, 64, 64), view_of(*angles)[None].float(), lambda f: f.depth.sum()
        )
        inner = found.depth[0, 8:-8, 8:-8]
        assert float(inner.std() / inner.mean()) == pytest.approx(row[column], abs=0.02)  # printed to 0.01


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_says_what_is_wrong_and_exits_with_3(capsys: Any) -> None:
    arguments = ["check-renderer", "half-pixel", "--plugin", str(FAULTY), "--no-training"]
    assert execute([*arguments, "--only", "pixel-offset", "--only", "edges"]) == 3
    text = capsys.readouterr().out
    assert "cause: half a pixel off" in text
    assert "does not conform: half a pixel off" in text.splitlines()[-1]


def test_the_report_as_json_and_in_a_file(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "report.json"
    arguments = ["check-renderer", "depth-mesh", "--set", "supersampling=1", "--no-training", "--json"]
    assert execute([*arguments, "--only", "evenness", "--out", str(out)]) == 3
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(out.read_text())
    assert printed["options"]["supersampling"] == 1
    assert not ConformanceReport.model_validate(printed).trainable


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["depth-mash"], "there is no renderer 'depth-mash' (nearest is 'depth-mesh'"),
        (["depth-mesh", "--set", "samples=2"], "error: --set samples: renderer 'depth-mesh' has no option 'samples'"),
        (["depth-mesh", "--set", "supersampling=two"], "error: --set supersampling"),
        (["depth-mesh", "--no-training", "--only", "edgs"], "there is no check"),
        (["x", "--plugin", "none.py"], "error: --plugin none.py: the plugin"),
    ],
)
def test_wrong_words_are_code_2(arguments: list[str], message: str, capsys: Any) -> None:
    assert execute(["check-renderer", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", [fault[0] for fault in FAULTS])
def test_every_check_comes_to_an_end_for_every_fault(name: str) -> None:
    report = checked(name)
    assert report.verdict == "fail"


@pytest.mark.slow
def test_a_short_training_run_is_reported(tiny: Path, capsys: Any) -> None:
    arguments = ["check-renderer", "depth-mesh", "--only", "training", "--minutes", "0.05", "--pipeline", str(tiny)]
    assert execute([*arguments, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["checks"]
    assert found["name"] == "training"
    assert found["measured"]["steps"] >= 16
    assert found["verdict"] == "skipped" and "too few" in found["cause"]  # three seconds' worth

"""How trees are laid over each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from recon_toolkit.config.document import Entry, Place, merge, parse

BASE = """\
model: {name: m, depth: 1}
encoders:
  depth: {name: conv, width: 64}
losses:
  colour: {name: photometric, weight: 1, scale: 2}
  features: {name: perceptual}
training: {epochs: 30, betas: [0.9, 0.999], clip_gradient: 1}
"""


def tree(text: str, file: str) -> Entry:
    return parse(text, Place(Path(file)))[0]


def merged(over: str) -> tuple[Entry, list[str]]:
    joined, problems = merge(tree(BASE, "base.yaml"), tree(over, "over.yaml"))
    return joined, [str(problem) for problem in problems]


@pytest.mark.parametrize(
    ("over", "section", "expected"),
    [
        ("encoders: {depth: {width: 8}}", "encoders", {"depth": {"name": "conv", "width": 8}}),
        ("encoders: {depth: {name: conv, width: 8}}", "encoders", {"depth": {"name": "conv", "width": 8}}),
        ("encoders: {depth: {name: vit}}", "encoders", {"depth": {"name": "vit"}}),  # no width leaks
        ("losses: {features: null}", "losses", {"colour": {"name": "photometric", "weight": 1, "scale": 2}}),
        ("model: null", "model", None),
        ("model: {depth: null}", "model", {"name": "m", "depth": None}),  # an option's null is a value
        ("training: {betas: [0.5, 0.9]}", "training", {"epochs": 30, "betas": [0.5, 0.9], "clip_gradient": 1}),
        ("training: {steps: 5}", "training", {"steps": 5, "betas": [0.9, 0.999], "clip_gradient": 1}),
        (
            "training: {steps: null}",
            "training",
            {"epochs": 30, "betas": [0.9, 0.999], "clip_gradient": 1, "steps": None},
        ),
        ("training: {clip_gradient: null}", "training", {"epochs": 30, "betas": [0.9, 0.999], "clip_gradient": None}),
        ("training: 3", "training", 3),
    ],
)
def test_rules(over: str, section: str, expected: object) -> None:
    joined, problems = merged(over)
    assert joined.plain().get(section) == expected
    assert problems == []
    untouched = {key: value for key, value in tree(BASE, "base.yaml").plain().items() if key != section}
    assert {key: value for key, value in joined.plain().items() if key != section} == untouched


def test_each_key_keeps_the_place_it_was_written_at() -> None:
    joined, _ = merged("\n\nlosses:\n  colour:\n    weight: 3")
    assert str(joined.place_of(("losses", "colour", "weight"))) == "over.yaml:5"
    assert str(joined.place_of(("losses", "colour", "scale"))) == "base.yaml:5"


def test_a_null_that_takes_nothing_away_is_reported() -> None:
    _, problems = merged("losses:\n  featurs: null\nencoders:\n  light: ~")
    assert problems == [
        "over.yaml:2: there is no 'losses.featurs' to take away (nearest is 'features')",
        "over.yaml:4: there is no 'encoders.light' to take away (known: depth)",
    ]
    joined, found = merge(tree("{}", "none.yaml"), tree("camera: null\nlosses: {a: null, b: {name: x}}", "root.yaml"))
    assert joined.plain() == {"camera": None, "losses": {"b": {"name": "x"}}}
    assert [problem.message for problem in found] == ["there is no 'losses.a' to take away"]

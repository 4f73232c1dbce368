"""Options from a component's own signature: which values each type takes, and what a wrong one is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recon_toolkit import Component, PluginError
from recon_toolkit.components import Kind, Registered
from recon_toolkit.config.document import Place, parse
from recon_toolkit.config.signatures import plain_value, signature_of, validate_options
from recon_toolkit.plugins import load_plugins

TOY = Path(__file__).parent / "toy_plugin.py"


@pytest.fixture(scope="module")
def registry() -> Any:
    host = load_plugins([TOY], entry_points=[])
    assert host.failures == ()
    return host.registry


def check(entry: Registered, text: str) -> tuple[dict[str, Any], list[str]]:
    tree, _ = parse(f"part: {text}", Place(Path("folder/x.yaml").absolute()))
    options, problems = validate_options(entry, signature_of(entry), tree, ("part",))
    return options, [str(problem).partition("x.yaml:1: ")[2] for problem in problems]


@pytest.mark.parametrize(
    ("kind", "name", "options", "supplied"),
    [
        ("encoder", "toy-encoder", ("width", "norm"), {"in_channels", "out_channels", "image_size"}),
        ("renderer", "toy-renderer", ("supersampling",), {"camera", "depth_range"}),
        ("loss", "toy-colour", ("scale",), set()),
        ("loss", "toy-features", ("layers", "weights"), set()),
        ("loss", "toy-smooth", ("order",), {"output"}),
        ("dataset", "needs-root", ("root",), set()),
    ],
)
def test_options_are_what_the_core_does_not_supply(
    registry: Any, kind: Kind, name: str, options: tuple[str, ...], supplied: set[str]
) -> None:
    signature = signature_of(registry.get(kind, name))
    assert signature.names == options
    assert signature.supplied == supplied


@pytest.mark.parametrize(
    ("text", "option", "value"),
    [
        ("{crop: 3}", "crop", 3),
        ("{crop: [3, 4]}", "crop", (3, 4)),
        ("{mode: exact}", "mode", "exact"),
        ("{names: [a, b]}", "names", ["a", "b"]),
        ("{names: null}", "names", None),
        ("{share: 1}", "share", 1.0),
        ("{options: {a: 1, b: 1e-3}}", "options", {"a": 1.0, "b": 1e-3}),
        ("{untyped: 2}", "untyped", 2.0),
        ("{json: x}", "json", "x"),
        ("{root: data/faces}", "root", Path("folder/data/faces").absolute()),
        ("{folders: [a, ../b]}", "folders", [Path("folder/a").absolute(), Path("b").absolute()]),
        ("{root: /data}", "root", Path("/data")),
        ("{root: ~/x}", "root", Path.home() / "x"),
        ("{}", "share", 0.5),
    ],
)
def test_values_become_what_the_signature_says(registry: Any, text: str, option: str, value: object) -> None:
    options, problems = check(registry.get("dataset", "toy-data"), text)
    assert problems == []
    assert options[option] == value
    assert type(options[option]) is type(value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{share: abc}", "'part.share' should be a number, not \"abc\""),
        ("{share: '0.5'}", "'part.share' should be a number, not \"0.5\""),
        ("{share: true}", "'part.share' should be a number, not true"),
        ("{share: 2}", "'part.share' should be less than or equal to 1, not 2"),
        ("{share: null}", "'part.share' should be a number, not null"),
        ("{mode: exat}", "'part.mode' should be 'fast' or 'exact', not \"exat\""),
        ("{crop: 1.5}", "'part.crop' should be a whole number or a list, not 1.5"),
        ("{crop: [1, x]}", "'part.crop.1' should be a whole number, not \"x\""),
        ("{names: [1]}", "'part.names.0' should be a word, not 1"),
        ("{root: 3}", "'part.root' should be a word, not 3"),
        ("{options: {a: b}}", "'part.options.a' should be a number, not \"b\""),
        ("{shar: 1}", "dataset 'toy-data' has no option 'shar' (nearest is 'share')"),
    ],
)
def test_wrong_values_are_told_what_was_expected(registry: Any, text: str, problem: str) -> None:
    assert check(registry.get("dataset", "toy-data"), text) == ({}, [problem])


def test_all_wrong_options_are_told_at_once(registry: Any) -> None:
    _, problems = check(registry.get("dataset", "toy-data"), "{name: toy-data, rot: 1, mod: 2, share: x}")
    assert problems == [
        "'part.share' should be a number, not \"x\"",
        "dataset 'toy-data' has no option 'rot' (nearest is 'root')",
        "dataset 'toy-data' has no option 'mod' (nearest is 'mode')",
    ]


def test_a_required_option_is_asked_for(registry: Any) -> None:
    assert check(registry.get("dataset", "needs-root"), "{}")[1] == ["dataset 'needs-root' needs the option 'root'"]


def test_a_signature_with_keywords_takes_any_option(registry: Any) -> None:
    options, problems = check(registry.get("loss", "anything"), "{name: anything, colour: 3, weight: 2}")
    assert (options, problems) == ({"colour": 3}, [])  # ``weight`` is the term's


def test_an_option_may_not_have_the_name_of_a_pipelines_key(registry: Any) -> None:
    with pytest.raises(PluginError, match=r"option 'weight' of loss 'weighty' of plugin 'toy_plugin.py' has the name"):
        signature_of(registry.get("loss", "weighty"))


def test_a_type_that_is_not_known_names_the_option() -> None:
    def broken(prediction: object, target: object, *, size: Nowhere = 1) -> None:  # type: ignore[name-defined]  # noqa: F821
        """Its type is nowhere."""

    entry = Registered(Component("loss", "broken", broken), "p")
    with pytest.raises(PluginError, match=r"type 'Nowhere' of the option 'size' of loss 'broken' of plugin 'p'"):
        signature_of(entry)


def test_validated_options_can_be_written_or_say_that_they_cannot() -> None:
    assert plain_value({"a": (1, Path("b/c")), "d": {2, 1}}) == {"a": [1, "b/c"], "d": [1, 2]}
    assert json.dumps(plain_value([None, True, 1.5])) == "[null, true, 1.5]"
    with pytest.raises(TypeError, match="object cannot be written"):
        plain_value(object())

"""Components by name: conflicts, unknown names, targets that cannot be imported."""

from __future__ import annotations

import pytest

from recon_toolkit import Component, PluginError
from recon_toolkit.components import Kind, PluginFailure, Registered, Registry


def entry(kind: Kind, name: str, provider: str, target: str = "math:sqrt") -> Registered:
    return Registered(Component(kind, name, target), provider)


def test_components_are_found_by_kind_and_name() -> None:
    registry = Registry([entry("loss", "edges", "b"), entry("model", "edges", "a"), entry("loss", "colour", "a")])
    assert registry.get("loss", "edges").provider == "b"
    assert registry.get("model", "a:edges").provider == "a"
    assert registry.names("loss") == ["colour", "edges"]
    assert [(each.kind, each.name) for each in registry.all()] == [
        ("loss", "colour"),
        ("loss", "edges"),
        ("model", "edges"),
    ]
    assert registry.conflicts == []


def test_a_conflict_is_reported_with_all_providers_and_a_remedy_that_works() -> None:
    registry = Registry([entry("loss", "edges", provider) for provider in ("c", "a", "b")])
    (conflict,) = registry.conflicts
    assert conflict.providers == ("a", "b", "c")
    with pytest.raises(PluginError) as caught:
        registry.get("loss", "edges", where="x.yaml:3")
    assert str(caught.value).startswith("x.yaml:3: loss 'edges' is provided by the plugins a, b, c")
    assert "--disable-plugin" in str(caught.value)
    assert "'b:edges'" in str(caught.value)
    assert registry.get("loss", "b:edges").provider == "b"


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("photometrc", "nearest is 'photometric'"),
        ("Photometric", "nearest is 'photometric'"),
        ("photo", "nearest is 'photometric'"),
        ("zzz", "known: edges, photometric"),
        ("a:edgs", "nearest is 'a:edges'"),
        ("mesh", "'mesh' is a renderer"),
    ],
)
def test_an_unknown_name_gets_the_nearest_known_one(name: str, remedy: str) -> None:
    known = [entry("loss", "photometric", "a"), entry("loss", "edges", "a"), entry("renderer", "mesh", "a")]
    with pytest.raises(PluginError) as caught:
        Registry(known).get("loss", name)
    assert caught.value.message == f"there is no loss '{name}'"
    assert remedy in (caught.value.remedy or "")


def test_a_broken_plugin_is_mentioned_where_something_is_missing() -> None:
    registry = Registry([], [PluginFailure("edges", "edges 1.0", "ImportError: no cv2")])
    with pytest.raises(PluginError, match=r"none is known; .*not working: 'edges' \(ImportError: no cv2\)"):
        registry.get("loss", "my-edges")


@pytest.mark.parametrize("target", ["nowhere_at_all:f", "math:nothing", "math:pi"])
def test_a_target_that_cannot_be_imported_names_plugin_and_cause(target: str) -> None:
    with pytest.raises(PluginError, match=r"loss 'edges' of plugin 'p' cannot be loaded: [A-Za-z]+Error: .+") as caught:
        entry("loss", "edges", "p", target).load()
    assert caught.value.__cause__ is not None

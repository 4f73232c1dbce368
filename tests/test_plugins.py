"""Loading plugins: real files and real distributions, among them every way in which one can be broken."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

import pytest

from recon_toolkit import PluginError
from recon_toolkit.plugins import load_plugins

GOOD = """\
'''Edges, compared.

More words.
'''
from recon_toolkit import Component, hookimpl, loss

@loss("my-edges")
def edges(prediction, target, *, scale: float = 1.0):
    '''Difference of edges.'''

@hookimpl
def recon_components():
    yield Component("loss", "lazy", "nowhere_at_all:lazy", "never imported here")
"""

#: What a broken plugin says, and a part of the cause that must be shown for it.
BROKEN = {
    "raises_at_import": ("1 / 0", "ZeroDivisionError"),
    "exits_at_import": ("raise SystemExit('bye')", "SystemExit: bye"),
    "no_such_import": ("import nowhere_at_all", "No module named 'nowhere_at_all'"),
    "syntax": ("def f(:", "SyntaxError"),
    "misspelt_hook": (
        "from recon_toolkit import hookimpl\n@hookimpl\ndef recon_component(): yield",
        "there is no hook 'recon_component' (nearest is 'recon_components')",
    ),
    "wrong_argument": (
        "from recon_toolkit import hookimpl\n@hookimpl\ndef recon_components(registry): yield",
        "recon_components",
    ),
    "forgotten_decorator": ("def recon_components(): yield", "lacks the decorator @hookimpl"),
    "raises_in_hook": (
        "from recon_toolkit import Component, hookimpl\n@hookimpl\ndef recon_components():\n"
        "    yield Component('loss', 'half', 'm:x')\n    raise OSError('disk on fire')",
        "OSError: disk on fire",
    ),
    "returns_a_component": (
        "from recon_toolkit import Component, hookimpl\n@hookimpl\ndef recon_components():\n"
        "    return Component('loss', 'one', 'm:x')",
        "not an iterable",
    ),
    "yields_a_string": (
        "from recon_toolkit import hookimpl\n@hookimpl\ndef recon_components(): yield 'loss'",
        "'loss', which is no Component",
    ),
    "unknown_kind": (
        "from recon_toolkit import Component, hookimpl\n@hookimpl\ndef recon_components():\n"
        "    yield Component('los', 'x', 'm:x')",
        "of kind 'los' (nearest is 'loss')",
    ),
    "name_with_colon": ("from recon_toolkit import loss\n@loss('a:b')\ndef f(p, t): ...", "no name for a component"),
    "the_same_twice": (
        "from recon_toolkit import loss\n@loss('a')\ndef f(p, t): ...\n@loss('a')\ndef g(p, t): ...",
        "'a' twice",
    ),
    "nothing_in_it": ("x = 1", "contributes nothing"),
}


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def install(folder: Path, project: str, points: dict[str, str], modules: dict[str, str]) -> list[EntryPoint]:
    """A distribution as an installer leaves it, and its entry points as Python finds them."""
    site = folder / project
    info = site / f"{project}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.2\n")
    lines = "\n".join(f"{name} = {module}" for name, module in points.items())
    (info / "entry_points.txt").write_text(f"[recon_toolkit]\n{lines}\n")
    for name, text in modules.items():
        (site / f"{name}.py").write_text(text)
    sys.path.insert(0, str(site))
    return [point for dist in distributions(path=[str(site)]) for point in dist.entry_points]


@pytest.fixture(autouse=True)
def _clean_imports(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if not name.startswith("recon_toolkit"):
            del sys.modules[name]


def test_a_file_contributes_marked_and_yielded_components(tmp_path: Path) -> None:
    path = write(tmp_path, "my_edges.py", GOOD)
    host = load_plugins([path], entry_points=[])
    (plugin,) = host.plugins
    assert (plugin.name, plugin.version, plugin.source, plugin.summary) == (
        "my_edges.py",
        None,
        str(path),
        "Edges, compared.",
    )
    assert {(part.kind, part.name, part.summary) for part in plugin.components} == {
        ("loss", "my-edges", "Difference of edges."),
        ("loss", "lazy", "never imported here"),
    }
    assert host.failures == ()


def test_a_package_folder_is_a_plugin_too(tmp_path: Path) -> None:
    package = tmp_path / "pack"
    package.mkdir()
    write(package, "__init__.py", "from .parts import f")
    write(package, "parts.py", "from recon_toolkit import loss\n@loss('inner')\ndef f(prediction, target): ...")
    host = load_plugins([package], entry_points=[])
    assert host.registry.names("loss") == ["inner"]


def test_an_installed_module_contributes_marked_components(tmp_path: Path) -> None:
    points = install(tmp_path, "edges-dist", {"edges": "edges_module"}, {"edges_module": GOOD})
    (plugin,) = load_plugins(entry_points=points).plugins
    assert (plugin.name, plugin.version, plugin.source) == ("edges", "1.2", "edges-dist 1.2")
    assert [part.name for part in plugin.components] == ["lazy", "my-edges"]


def test_components_that_a_plugin_only_imports_are_not_its_own(tmp_path: Path) -> None:
    points = install(tmp_path, "owner", {"owner": "owner_module"}, {"owner_module": GOOD})
    user = write(tmp_path, "user.py", "from owner_module import edges\n" + GOOD.replace("my-edges", "other-edges"))
    host = load_plugins([user], entry_points=points)
    assert host.registry.get("loss", "my-edges").provider == "owner"


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_named_with_its_cause_and_stops_no_other(tmp_path: Path, name: str) -> None:
    text, cause = BROKEN[name]
    broken, good = write(tmp_path, f"{name}.py", text), write(tmp_path, "zz_good.py", GOOD)
    points = install(tmp_path, "installed", {"aa-broken": f"{name}_module"}, {f"{name}_module": text})
    host = load_plugins([broken, good], entry_points=points)
    assert [plugin.name for plugin in host.plugins] == ["zz_good.py"]
    assert [(failure.name, failure.requested) for failure in host.failures] == [
        ("aa-broken", False),
        (f"{name}.py", True),
    ]
    for failure in host.failures:
        assert cause in failure.cause
        assert "\n" not in failure.cause
        assert "Traceback" in failure.traceback or name == "unknown_kind"  # no code of the plugin ran
    assert "half" not in host.registry.names("loss")


def test_a_missing_file_is_a_failure(tmp_path: Path) -> None:
    (failure,) = load_plugins([tmp_path / "none.py"], entry_points=[]).failures
    assert failure.cause == "there is no such file"


def test_two_distributions_with_one_name_are_both_reported(tmp_path: Path) -> None:
    points = install(tmp_path, "first", {"edges": "first_module"}, {"first_module": GOOD})
    points += install(tmp_path, "second", {"edges": "second_module"}, {"second_module": GOOD})
    host = load_plugins(entry_points=points)
    assert host.plugins == ()
    (failure,) = host.failures
    assert "first 1.2 and second 1.2" in failure.cause


def test_the_order_of_entry_points_does_not_matter(tmp_path: Path) -> None:
    points = install(tmp_path, "one", {"a": "one_a", "b": "one_b"}, {"one_a": GOOD, "one_b": GOOD})
    there, back = load_plugins(entry_points=points), load_plugins(entry_points=reversed(points))
    assert [plugin.name for plugin in there.plugins] == [plugin.name for plugin in back.plugins] == ["a", "b"]
    assert there.registry.conflicts == back.registry.conflicts


def test_a_disabled_plugin_is_not_even_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = install(tmp_path, "noisy", {"noisy": "noisy_module"}, {"noisy_module": "1 / 0"})
    assert load_plugins(disabled=["noisy"], entry_points=points).failures == ()
    monkeypatch.setenv("RECON_DISABLE_PLUGINS", "other, noisy")
    assert load_plugins(entry_points=points).failures == ()
    assert "noisy_module" not in sys.modules


def test_disabling_an_unknown_plugin_names_the_nearest(tmp_path: Path) -> None:
    points = install(tmp_path, "noisy", {"noisy": "noisy_module"}, {"noisy_module": GOOD})
    with pytest.raises(PluginError, match=r"no plugin 'nosy' to leave out .*nearest is 'noisy'"):
        load_plugins(disabled=["nosy"], entry_points=points)


def test_hosts_share_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, "edges.py", GOOD)
    bare = load_plugins(entry_points=[])
    more = bare.with_files([path])
    assert (len(bare.plugins), len(more.plugins)) == (0, 1)
    assert more.with_files([path]) is more
    path.write_text(GOOD.replace("my-edges", "renamed"))
    assert load_plugins([path], entry_points=[]).registry.names("loss") == ["lazy", "renamed"]
    assert more.registry.names("loss") == ["lazy", "my-edges"]


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        paths.append(write(tmp_path / folder, "edges.py", GOOD))
    host = load_plugins([*paths, paths[0]], entry_points=[])
    assert [plugin.name for plugin in host.plugins] == ["edges.py", str(paths[1])]


def test_pipeline_folders_are_collected(tmp_path: Path) -> None:
    text = (
        "from pathlib import Path\nfrom recon_toolkit import hookimpl\n"
        "@hookimpl\ndef recon_pipelines(): yield Path(__file__).parent / 'pipelines'"
    )
    host = load_plugins([write(tmp_path, "p.py", text)], entry_points=[])
    assert host.pipeline_folders() == [("p.py", tmp_path / "pipelines")] and host.model_folders() == []


def test_model_folders_are_collected(tmp_path: Path) -> None:
    text = (
        "from pathlib import Path\nfrom recon_toolkit import hookimpl\n"
        "@hookimpl\ndef recon_models(): yield Path(__file__).parent / 'models'"
    )
    host = load_plugins([write(tmp_path, "p.py", text)], entry_points=[])
    assert host.model_folders() == [("p.py", tmp_path / "models")] and host.pipeline_folders() == []


def test_every_hook_is_specified_with_an_example_that_runs() -> None:
    import doctest

    from recon_toolkit import plugins as hookspecs

    hooks = [name for name in vars(hookspecs) if name.startswith("recon_")]
    assert hooks == ["recon_components", "recon_kinds", "recon_pipelines", "recon_models"]  # each has tests above
    assert all(">>>" in (getattr(hookspecs, name).__doc__ or "") for name in hooks)
    assert doctest.testmod(hookspecs).failed == 0


KIND = """
from recon_toolkit import Component, NewKind, hookimpl

@hookimpl
def recon_kinds():
    yield NewKind("baker", frozenset({"mesh"}), "makes a texture of a mesh")

@hookimpl
def recon_components():
    yield Component("baker", "plain", lambda mesh, *, size: (mesh, size), "one colour")
"""
FILLS = """
from recon_toolkit import Component, hookimpl

def striped(mesh, *, size: int = 4, stripes: float = 2.0):
    return mesh, size, stripes

@hookimpl
def recon_components():
    yield Component("KIND", "striped", striped)
"""


def test_a_plugin_declares_a_kind_that_others_fill(tmp_path: Path) -> None:
    from recon_toolkit import ConfigError
    from recon_toolkit.config.pipeline import resolve_component

    (tmp_path / "a_fills.py").write_text(FILLS.replace("KIND", "baker"))  # loaded before the kind is known
    (tmp_path / "kind.py").write_text(KIND)
    host = load_plugins([tmp_path / "a_fills.py", tmp_path / "kind.py"])
    assert not host.failures and host.registry.names("baker") == ["plain", "striped"]
    assert resolve_component("baker", "striped", ["size=8"], host).build(mesh="m") == ("m", 8, 2.0)
    with pytest.raises(ConfigError, match=r"sise.*size"):
        resolve_component("baker", "striped", ["sise=8"], host)
    (tmp_path / "b.py").write_text(FILLS.replace("KIND", "bakre"))
    host = load_plugins([tmp_path / "b.py", tmp_path / "kind.py"])
    (failure,) = host.failures
    assert failure.requested and "of kind 'bakre' (nearest is 'baker')" in failure.cause
    assert host.registry.names("baker") == ["plain"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("from recon_toolkit.evaluation.depth import depth_metrics", "it is recon_toolkit.metrics now"),
        ("import recon_toolkit.training", "it is recon_toolkit.engine now"),
        ("from recon_toolkit.data.regions import decode", "docs/architecture.md says where things are now"),
    ],
)
def test_a_plugin_file_of_the_former_layout_is_told_what_to_change(line: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text(line)
    (failure,) = load_plugins([tmp_path / "old.py"]).failures
    assert told in failure.cause

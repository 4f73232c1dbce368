"""The shape of the code: imports run one way, plugins use public names only, and files stay readable."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE, PLUGINS = ROOT / "recon_toolkit", ROOT / "plugins"
PLUGIN_NAMES = {path.name for path in PLUGINS.iterdir() if (path / "__init__.py").exists()}

#: A module imports from its own layer and from those above it in this list, never from those below.
LAYERS = (
    ("errors",),
    ("files", "pages", "progress", "components", "structures", "threads"),
    ("kernels", "plugins", "geometry"),
    ("rendering", "config"),
    ("models", "data", "shapes"),
    ("detection", "assembly", "io"),
    ("losses", "metrics", "viewer"),
    ("result", "engine", "inference", "reconstructor", "importing"),
    ("preparation",),
    ("cli",),
)
LAYER_OF = {name: rank for rank, names in enumerate(LAYERS) for name in names}

#: Files that may have more than 700 lines, each with the reason.
LONG_FILES: dict[str, str] = {}


def sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def imports(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, module, name) of every absolute import, those for type checking aside; name is empty for ``import x``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write imports absolutely"
            yield from ((node.lineno, node.module or "", alias.name) for alias in node.names)


def layer(module: str, name: str) -> str:
    """The part of the core that an import reaches: ``config`` for ``from recon_toolkit.config.schema import X``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else name


def test_every_part_of_the_core_has_a_layer() -> None:
    parts = {path.stem for path in CORE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts - {"__init__", "__main__"} <= set(LAYER_OF)


@pytest.mark.parametrize("path", sources(CORE), ids=lambda path: str(path.relative_to(CORE)))
def test_the_core_imports_one_way_and_no_plugin(path: Path) -> None:
    own = path.relative_to(CORE).parts[0].removesuffix(".py")
    for line, module, name in imports(path):
        where = f"{path.relative_to(ROOT)}:{line}"
        assert module.split(".")[0] not in PLUGIN_NAMES, f"{where}: the core knows no plugin"
        if module.split(".")[0] != "recon_toolkit" or own in ("__init__", "__main__"):
            continue
        reached = layer(module, name)
        if reached in LAYER_OF:  # names of the package itself, such as __version__, are nobody's
            assert LAYER_OF[reached] <= LAYER_OF[own], f"{where}: {own} imports {reached}, which stands above it"
        if own in ("geometry", "rendering"):
            assert reached in {"geometry", "rendering", "structures", "errors", "kernels"}, (
                f"{where}: {own} imports {reached}"
            )


def test_no_imports_of_the_core_go_round_in_a_circle() -> None:
    """Those inside functions count; those for type checking alone do not."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in sources(CORE)
    }
    reached = {
        module: {
            f"{name}.{part}" if f"{name}.{part}" in modules else name
            for _, name, part in imports(path)
            if name in modules or f"{name}.{part}" in modules
        } - {module, "recon_toolkit"}
        for module, path in modules.items()
        if module != "recon_toolkit"  # the front door opens lazily on everything
    }  # fmt: skip
    left = dict(reached)
    while free := [module for module, others in left.items() if not others & left.keys()]:
        for module in free:
            del left[module]
    assert not left, f"these import one another, or what does: {', '.join(sorted(left))}"


@pytest.mark.parametrize("path", sources(PLUGINS), ids=lambda path: str(path.relative_to(PLUGINS)))
def test_plugins_import_public_names_of_the_core_and_no_other_plugin(path: Path) -> None:
    own = path.relative_to(PLUGINS).parts[0]
    for line, module, name in imports(path):
        where = f"{path.relative_to(ROOT)}:{line}"
        top = module.split(".")[0]
        assert top not in PLUGIN_NAMES - {own}, f"{where}: a plugin stands alone"
        if top == "recon_toolkit":
            private = [part for part in (*module.split("."), name) if part.startswith("_")]
            assert not private, f"{where}: {private[0]} is private to the core"
            shared = ("recon_toolkit.cli.common", "recon_toolkit.cli.app")
            assert module.split(".")[1:2] != ["cli"] or module in shared, (
                f"{where}: a plugin uses the library, and of the command line what commands share"
            )


@pytest.mark.parametrize("path", [*sources(CORE), *sources(PLUGINS)], ids=lambda path: str(path.relative_to(ROOT)))
def test_files_can_be_read_in_one_sitting(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 700 or LONG_FILES.get(name), f"{name} has {lines} lines: divide it, or list it with a reason"
    assert path.name not in ("utils.py", "helpers.py", "misc.py"), f"{name}: name the file by its subject"


def test_the_list_of_long_files_is_true() -> None:
    long = {name for name in LONG_FILES if len((ROOT / name).read_text(encoding="utf-8").splitlines()) > 700}
    assert long == set(LONG_FILES)

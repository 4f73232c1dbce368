"""The documentation is true: every command runs, every example works, every name and link exists.

Each page is walked from top to bottom in a folder of its own that holds a small real data set. ``recon run`` gets
further settings that make it tiny; nothing else is changed.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer.main
from PIL import Image
from published_layout import networks, write_checkpoint
from recon_synthetic_faces.dataset import SyntheticFaces

from recon_toolkit import plugins as hookspecs
from recon_toolkit.cli.app import app, execute
from recon_toolkit.components import KINDS
from recon_toolkit.config.pipeline import load_pipeline
from recon_toolkit.config.schema import EvaluationConfig, LossTermConfig, Pipeline, TrainingConfig
from recon_toolkit.config.signatures import signature_of
from recon_toolkit.config.sources import list_pipelines
from recon_toolkit.engine.checkpoint import WEIGHTS, Checkpoint, save_checkpoint
from recon_toolkit.engine.page import RunSummary
from recon_toolkit.errors import ReconError
from recon_toolkit.inference.models import load_model
from recon_toolkit.metrics.report import ScoreReport
from recon_toolkit.plugins import load_plugins

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = {page: page.read_text(encoding="utf-8") for page in PAGES}
EVERYTHING = "\n".join(TEXT.values())
FENCE = re.compile(r"^```(\S*)[ ]?(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# ([\w./-]+\.(?:py|yaml|toml))\n")
KINDS_OF_BLOCK = {"python", "yaml", "toml", "console", "sh", "json", "text"}
#: Commands that change the reader's shell or home folder, or are not ours: looked at, not run.
SHELL = {"python3 -m venv .venv", ". .venv/bin/activate", "recon --install-completion"}
#: What makes every row of a table small.
SMALL = "image_size=32 dataset.count=8 dataset.validation=4 dataset.test=4 training.steps=2 training.precision=fp32"
TINY_TABLE = ["--seed", "0", "--in-process", *(word for each in SMALL.split() for word in ("--set", each))]
COMMANDS = [
    "pip install . && recon run --pipeline unsup3d-quick --out runs/faces",
    "pip install -e '.[test]' && python -m pytest",
]


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the rest of the fence's line, its text, and where it stands."""

    language: str
    label: str
    text: str
    place: str

    @property
    def file(self) -> str | None:
        """The file that the block's first line names."""
        found = FILE_NAME.match(self.text)
        return found[1] if found else None


def blocks(page: Path) -> list[Block]:
    text = TEXT[page]
    found = [
        Block(m[1], m[2], m[3], f"{page.name}:{text.count(chr(10), 0, m.start()) + 1}") for m in FENCE.finditer(text)
    ]
    assert text.count("```") == 2 * len(found), f"{page.name}: a fence is not closed, or stands within a line"
    return found


def commands(page: Path) -> list[str]:
    return [
        line.removeprefix("$ ")
        for block in blocks(page)
        if block.language == "console"
        for line in block.text.splitlines()
        if line.startswith("$ ")
    ]


# -- a small data set of every layout that the pages name --------------------------------------------------------------


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders as users have them, filled with nine synthetic faces of 176 pixels, and weights of VGG16's shape."""
    folder = tmp_path_factory.mktemp("material")
    made = SyntheticFaces(supersampling=1).generate(np.arange(9), "test", 176)
    faces = np.ascontiguousarray(made.image.transpose(0, 2, 3, 1))
    small = faces[:, ::4, ::4]
    save(folder / "photo.png", faces[0])
    save(folder / "photo.jpg", faces[0])
    save(folder / "depth.png", np.where(made.mask[0], made.depth[0] * 1000, 0).round().astype(np.uint16))  # in mm
    np.save(folder / "depth.npy", made.depth[0])
    portrait = np.full((320, 400, 3), 150, np.uint8)
    portrait[70:246, 110:286] = faces[4]
    save(folder / "portrait.jpg", portrait)
    for n in range(40):  # so many that a hash of their names gives some to every split
        save(folder / "photos" / f"{n:02d}.png", small[n % 9])
    save(folder / "more" / "a.png", faces[1])
    lines = [f"{n}.jpg {n // 3} 20 20 140 140" for n in range(9)]
    (folder / "celeba").mkdir()
    (folder / "celeba" / "celeba_crop_bbox.txt").write_text("\n".join(lines))
    for n, split in enumerate(np.repeat(["train", "val", "test"], 3)):
        save(folder / "celeba" / "img_celeba" / f"{n}.jpg", faces[n])
        save(folder / "cats" / split / f"{n}.png", faces[n])
        save(folder / "cars" / split / f"{n}.png", faces[n])
        save(folder / "synface" / split / "image" / f"image_{n}.png", faces[n])
        png = np.where(made.mask[n], (1.1 - made.depth[n]) / 0.2 * 65535, 0).round().astype(np.uint16)
        save(folder / "synface" / split / "depth" / f"depth_{n}.png", png)
    for name, change in (("truth", 1.0), ("predictions", 1.01)):
        (folder / name).mkdir()
        for n in range(2):
            relief = np.where(made.mask[n], made.depth[n], 1.1) ** change
            np.save(folder / name / f"face_{n}.npy", relief)
    for number in range(3):
        write_chair(folder / "chairs" / f"chair{number}.obj", number)
    save(folder / "chair.png", chair_picture())
    write_theirs(folder)
    torch.manual_seed(0)
    write_checkpoint(folder / "checkpoint030.pth", networks(8))
    write_checkpoint(folder / "checkpoint010.pth", networks(8, lemul=True))
    write_vgg16(folder / "vgg16.pth")
    write_vgg16(folder / "torch" / "hub" / "checkpoints" / "vgg16-397923af.pth")
    return folder


def write_theirs(folder: Path) -> None:
    """A run of somebody else whose pipeline names a plugin, and its weights alone."""
    plugin = folder / "their_plugin.py"
    plugin.write_text("from recon_toolkit import loss\n\n@loss('theirs')\ndef theirs(output):\n    return 0\n")
    trained = load_model()
    pipeline = trained.resolved.to_yaml().replace("plugins: []", f"plugins: ['{plugin}']")
    tensors = {f"model.{name}": value for name, value in trained.network.state_dict().items()}
    found = Checkpoint(0, pipeline, trained.resolved.fingerprint, tensors, {})
    (folder / "theirs").mkdir()
    for path in (folder / "theirs.safetensors", folder / "theirs" / WEIGHTS):
        save_checkpoint(path, found)
    (folder / "theirs" / "pipeline.yaml").write_text(pipeline)


def write_chair(path: Path, number: int) -> None:
    """A procedural chair as an OBJ file, y up as that format has it."""
    from recon_object_views.parametric import instance

    mesh = instance("chair", "test", number)
    path.parent.mkdir(exist_ok=True)
    lines = [f"v {x} {z} {-y}" for x, y, z in mesh.vertices] + [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in mesh.faces]
    path.write_text("\n".join(lines))


def chair_picture() -> np.ndarray:
    """A picture (200, 240, 3) of a chair on a white background."""
    from recon_object_views.procedural import ProceduralObjects

    made = ProceduralObjects(images=1, depth_size=8, novel_views=1, points=1).generate(0, "test", 128)
    picture = np.full((200, 240, 3), 255, np.uint8)
    picture[30:158, 60:188] = made["image"][0].transpose(1, 2, 0)
    return picture


def write_vgg16(path: Path) -> None:
    """A state dict of VGG16's shape up to relu3_3: what the values are plays no part here."""
    from torchvision.models.vgg import cfgs, make_layers

    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({f"features.{k}": v for k, v in make_layers(cfgs["D"])[:16].state_dict().items()}, path)


# -- walking a page ----------------------------------------------------------------------------------------------------


@dataclass
class Walk:
    """A reader who does what a page says, in a folder of their own."""

    patch: pytest.MonkeyPatch
    capture: pytest.CaptureFixture[str]
    outputs: dict[str, str] = field(default_factory=dict)  # standard output by command and sub-command

    def follow(self, block: Block) -> None:
        assert block.language in KINDS_OF_BLOCK, f"{block.place}: blocks of '{block.language}' are not checked"
        if block.file is not None:
            Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            Path(block.file).write_text(block.text, encoding="utf-8")
        if block.language == "python" and block.file is None:
            exec(compile(block.text, block.place, "exec"), {"__name__": block.place})
        elif block.language == "toml":
            self.install(block)
        elif block.language == "sh":
            for command in block.text.strip().split(" && "):
                self.command(command, [], block.place)
        elif block.language == "console":
            self.console(block)
        elif block.language in ("python", "yaml"):
            assert block.file is None or Path(block.file).stat().st_size, block.place
            assert block.language == "python" or block.file, f"{block.place}: say which file it is"

    def install(self, block: Block) -> None:
        """What ``pip install`` leaves of a package: its folder on the path, and a record of its entry points."""
        assert block.file is not None, f"{block.place}: say which file it is"
        project = tomllib.loads(block.text)["project"]
        folder = Path(block.file).parent.resolve()
        record = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        record.mkdir()
        (record / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        )
        points = [
            f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in entries.items())
            for group, entries in project["entry-points"].items()
        ]
        (record / "entry_points.txt").write_text("\n".join(points))
        self.patch.syspath_prepend(str(folder))

    def console(self, block: Block) -> None:
        lines = block.text.splitlines()
        assert lines and lines[0].startswith("$ "), f"{block.place}: a console block starts with a command"
        starts = [n for n, line in enumerate(lines) if line.startswith("$ ")]
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            self.command(lines[start].removeprefix("$ "), lines[start + 1 : end], block.place)

    def command(self, command: str, shown: list[str], place: str) -> None:
        words = shlex.split(command)
        if command in SHELL:
            return
        if re.fullmatch(r"[A-Z_]+=\w+", words[0]):  # for this command alone, as in a shell
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(*words[0].split("="))
                return self.command(shlex.join(words[1:]), shown, place)
        if words[:2] == ["pip", "install"]:
            check_pip(words[2:], place)
        elif words[:3] == ["python", "-m", "pytest"]:
            assert (ROOT / "tests").is_dir()
        elif words[:2] in (["recon", "view"], ["recon", "demo"]):  # they serve until they are stopped
            assert words[1] == "demo" or Path(words[2]).exists(), f"{place}: {command}"
        elif words[0] == "python" and words[1].startswith("benchmarks/"):
            script = (ROOT / words[1]).read_text(encoding="utf-8")
            assert all(f'"{word}"' in script for word in words[2:] if word.startswith("--")), f"{place}: {command}"
        else:
            assert words[0] == "recon", f"{place}: '{command}' is not checked"
            self.recon(words[1:], shown, f"{place}: {command}")

    def recon(self, arguments: list[str], shown: list[str], place: str) -> None:
        self.capture.readouterr()
        code = execute(tiny(arguments))
        out, err = self.capture.readouterr()
        assert "Traceback" not in err, f"{place}\n{err}"
        assert code == (2 if shown else 0), f"{place}\n{err}"
        for line in shown:
            assert line in err.splitlines(), f"{place}\nshown: {line}\nfound: {err}"
        if "--json" in arguments:
            assert json.loads(out), place
            self.outputs[arguments[0]] = out


def check_pip(words: list[str], place: str) -> None:
    """That what pip is to install is there: this project, with extras that it has."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (target,) = (word for word in words if not word.startswith("-"))
    found = re.fullmatch(r"\.(?:\[(\w+)\])?", target)
    assert found and (found[1] is None or found[1] in extras), f"{place}: pip install {target}"


def tiny(arguments: list[str]) -> list[str]:
    """A command with settings that make its work small; those of the reader still hold, but for the length."""
    if arguments[0] == "bench" and len(arguments) > 1:
        return [*arguments, *TINY_TABLE] if "--report" not in arguments else arguments
    if arguments[:2] == ["data", "render-views"]:
        return [*arguments, "--depth-size", "32", "--views", "4", "--points", "2000"]
    if arguments[0] not in ("run", "data") or "--dataset" in arguments or "--pipeline" not in arguments:
        return arguments
    given = dict(pairwise(arguments))
    plugins = [Path(value) for key, value in pairwise(arguments) if key == "--plugin"]
    try:
        pipeline = load_pipeline(given["--pipeline"], [], load_plugins(plugins)).pipeline
    except ReconError:  # the command is to fail
        return arguments
    before = ["image_size=32"]
    if pipeline.dataset.name == "procedural-objects":
        before += ["dataset.count=4", "dataset.validation=1", "dataset.test=1", "dataset.images=2"]
    if pipeline.dataset.name == "synthetic-faces":
        before += ["dataset.count=12", "dataset.validation=4", "dataset.test=4"]
    after: list[str] = []
    if arguments[0] == "run":
        before += [
            f"encoders.{role}.width=4" for role, part in pipeline.encoders.items() if part.name != "structure-generator"
        ]
        for role, part in pipeline.encoders.items():
            if part.name == "structure-generator":
                narrow = "hidden=[16]", "latent=8", "decoder_hidden=[16]", "decoder_start=8", "decoder_channels=[8]"
                before += [f"encoders.{role}.{option}" for option in (*narrow, "encoder_channels=[8,8,8,8]")]
                before += [f"encoders.{role}.output_size=32"] if pipeline.dataset.name == "shapenet-renders" else []
        before += ["model.convex_start_steps=1"] if pipeline.model.options.get("convex_start_steps") else []
        after = ["steps=2", "batch_size=2", "log_every=1", "validate_every=null", "precision=fp32", "accelerator=cpu"]
    position = 2 if arguments[0] == "data" else 1
    settings = [word for setting in before for word in ("--set", setting)]
    settings += arguments[position:]
    settings += [word for setting in after for word in ("--set", f"training.{setting}")]
    return [*arguments[:position], *settings]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_reader_can_follow_the_page(
    page: Path,
    material: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for item in material.iterdir():
        os.symlink(item, tmp_path / item.name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(material / "torch"))
    walk, before = Walk(monkeypatch, capsys), set(sys.modules)
    try:
        for block in blocks(page):
            walk.follow(block)
        for block in blocks(page):
            if block.language == "json":
                if block.label == "run":
                    walk.outputs["run"] = (tmp_path / "runs" / "faces" / "summary.json").read_text(encoding="utf-8")
                assert keys(json.loads(block.text)) == keys(json.loads(walk.outputs[block.label])), block.place
    finally:
        for name in set(sys.modules) - before:
            if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


def keys(value: object, prefix: str = "") -> set[str]:
    """The keys of nested JSON objects, as ``a.b``."""
    if not isinstance(value, dict):
        return set()
    return {name for k, v in value.items() for name in (f"{prefix}{k}", *keys(v, f"{prefix}{k}."))}


# -- what the pages say ------------------------------------------------------------------------------------------------


def test_the_readme_has_exactly_the_two_commands() -> None:
    assert [block.text.strip() for block in blocks(ROOT / "README.md") if block.language == "sh"] == COMMANDS
    assert not [block.place for page in PAGES[1:] for block in blocks(page) if block.language == "sh"]


def test_plugins_are_as_short_as_promised() -> None:
    for page in PAGES:
        for block in blocks(page):
            if block.file == "my_edges.py":
                code = [line for line in block.text.splitlines()[1:] if line.strip()]
                assert len(code) <= 8, block.place
            if block.file == "my_renderer.py":
                (found,) = (node for node in ast.parse(block.text).body if isinstance(node, ast.ClassDef))
                first = min(node.lineno for node in found.decorator_list)
                assert (found.end_lineno or 0) - first + 1 <= 25, block.place
    named = [block.file for page in PAGES for block in blocks(page)]
    assert "my_edges.py" in named and "my_renderer.py" in named


def options_of(command: Any, name: str = "recon", parent: Any = None) -> Iterator[tuple[str, set[str]]]:
    """(command, its options) for a command and those below it."""
    context = typer.Context(command, info_name=name.rpartition(" ")[2], parent=parent)
    parameters = command.get_params(context)  # of a plugin's command too, which is imported for it
    yield name, {option for known in parameters for option in (*known.opts, *known.secondary_opts)} | {"--help", "-h"}
    if hasattr(command, "list_commands"):
        for child in command.list_commands(context):
            yield from options_of(command.get_command(context, child), f"{name} {child}", context)


def test_every_option_that_is_named_exists() -> None:
    known = dict(options_of(typer.main.get_command(app)))
    everywhere = set().union(*known.values())
    for page, text in TEXT.items():
        prose = FENCE.sub("", text)
        for code in re.findall(r"`([^`]+)`", prose):
            words = code.split()
            if words[0] in ("pip", "python", "python3", "docker"):
                continue
            command = "recon " + " ".join(words[1:3]) if words[1:2] == ["data"] else " ".join(words[:2])
            options = known.get(command, everywhere) | known["recon"] if words[0] == "recon" else everywhere
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", code):
                assert option in options, f"{page.name}: there is no {option} in `{code}`"
            if words[0] == "recon" and len(words) > 1 and words[1].isalpha() and words[1].islower():
                assert command in known, f"{page.name}: there is no command `{code}`"
    # Nothing that a command can do is left unsaid, --help aside.
    said = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", EVERYTHING))
    unsaid = {option for option in everywhere if option.startswith("--")} - said - {"--help"}
    assert not unsaid - {"--show-completion"}, unsaid


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", TEXT[page])):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(TEXT[file]), f"{page.name}: {target}"
    if page.parent.name == "docs" and page.name != "README.md":
        assert f"({page.name})" in TEXT[ROOT / "docs" / "README.md"], f"{page.name} is not in the index"


def test_everything_that_is_registered_is_named() -> None:
    host = load_plugins()
    own = [plugin.name for plugin in host.plugins if plugin.source.startswith("recon-toolkit ")]
    names = {entry.name for entry in host.registry.all() if entry.provider in own}
    names |= {source.name for source in list_pipelines(host) if source.provider == "recon-toolkit"}
    names |= {name for name in vars(hookspecs) if name.startswith("recon_")}
    names |= set(KINDS)
    assert len(names) > 15
    missing = {name for name in names if f"`{name}`" not in EVERYTHING and f"### {name}\n" not in EVERYTHING}
    assert not missing


def test_every_loss_is_on_the_page_of_losses() -> None:
    host = load_plugins()
    own = [plugin.name for plugin in host.plugins if plugin.source.startswith("recon-toolkit ")]
    names = {entry.name for entry in host.registry.all() if entry.kind == "loss" and entry.provider in own}
    assert len(names) > 15
    assert not {name for name in names if f"`{name}`" not in TEXT[ROOT / "docs" / "losses.md"]}


def test_every_key_and_option_is_in_the_reference() -> None:
    reference = TEXT[ROOT / "docs" / "pipelines.md"]
    host = load_plugins()
    own = [plugin.name for plugin in host.plugins if plugin.source.startswith("recon-toolkit ")]
    wanted = {f"evaluation.{name}" for name in EvaluationConfig.model_fields}
    wanted |= {*LossTermConfig.model_fields, *TrainingConfig.model_fields}
    wanted |= {*Pipeline.model_fields} - {"camera", "training", "evaluation"} | {"extends", "camera.fov"}
    # Detectors, importers and commands are no part of a pipeline; their options are on pages of their own.
    parts = [entry for entry in host.registry.all() if entry.kind not in ("detector", "importer", "command")]
    wanted |= {option for entry in parts if entry.provider in own for option in signature_of(entry).names}
    assert not {name for name in wanted if f"`{name}`" not in reference}


def test_defaults_in_the_reference_are_true() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", TEXT[ROOT / "docs" / "pipelines.md"], re.MULTILINE))
    for section in (TrainingConfig, LossTermConfig):
        for name, described in section.model_fields.items():
            default = described.default
            if name not in rows or name == "name" or default is None:
                continue
            said = rows[name].strip()
            expected = str(list(default)) if isinstance(default, tuple) else str(default).lower()
            same = float(said) == default if type(default) in (int, float) else said == expected
            assert same, f"{name}: the page says {said}, the default is {default}"


def test_the_json_objects_are_described() -> None:
    page = ROOT / "docs" / "get-started.md"
    described = {block.label: json.loads(block.text) for block in blocks(page) if block.language == "json"}
    assert set(described["run"]) == set(RunSummary.model_fields)
    assert set(described["score"]) == set(ScoreReport.model_fields)


def test_health_findings_are_described() -> None:
    source = (ROOT / "recon_toolkit" / "models" / "health.py").read_text(encoding="utf-8")
    names = set(re.findall(r'_finding\(\s*f?"([a-z-]+)"', source)) | {"confidence-plain", "confidence-flipped"}
    assert len(names) > 8
    assert not {name for name in names if f"`{name}`" not in TEXT[ROOT / "docs" / "get-started.md"]}

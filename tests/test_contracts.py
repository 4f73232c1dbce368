"""Plugins held against what their kind asks for, by a check and in use; parts of wrong shapes, named."""

import pytest

from recon_toolkit import load_pipeline
from recon_toolkit.components import KINDS
from recon_toolkit.engine.run import run_pipeline
from recon_toolkit.errors import ReconError
from recon_toolkit.plugins import load_plugins

HEAD = (
    "from torch import nn\nimport torch\nfrom recon_toolkit import *\nfrom recon_toolkit.components import importer\n"
)
HEAD += "from recon_toolkit.components import *\nfrom recon_toolkit.structures import Rendering\n"
NO_MODULE = "class X:\n    def __init__(self, in_channels): pass\n    def forward(self, image): pass"
MODEL = "class X(Model):\n    def __init__(self, encoders, renderer, camera, image_size):\n        super().__init__()\n"
USES = MODEL + "        self.encoders = nn.ModuleDict(encoders)\n    def forward(self, batch): pass"

#: Kind, code, and what is said to be wrong; nothing where all is well.
CONTRACTS = [
    ("dataset", "class X:\n    def open(self, split, size, context): pass", "lacks the attribute 'splits'"),
    ("dataset", "class X:\n    splits = ('train',)", "lacks the method open(split, size, context)"),
    ("dataset", "class X:\n    splits = ('train',)\n    def open(self, split): pass", "open cannot be called with"),
    ("dataset", "class X:\n    splits = 'train'\n    def open(self, a, b, c): pass", "'splits' is one word"),
    ("dataset", "class X:\n    def __init__(self): self.splits = ()\n    def open(self, a, b, c): pass", None),
    ("encoder", NO_MODULE, "no torch.nn.Module"),
    ("encoder", "class X(nn.Module):\n    def __init__(self, in_channels): pass", "lacks the method 'forward'"),
    ("encoder", "def X(*, width: int = 3): pass", "none of in_channels, out_channels and image_size"),
    ("encoder", "class X(nn.Module):\n    def forward(self, image): pass", None),
    ("renderer", "class X:\n    pass", "lacks __call__(self, canonical_depth, canonical_image, view)"),
    ("renderer", "class X:\n    def __call__(self, depth): pass", "cannot be called with"),
    ("renderer", "class X:\n    def __call__(self, a, b, c): pass", None),
    ("loss", "def X(prediction): pass", "takes (prediction)"),
    ("loss", "class X:\n    pass", "neither forward nor __call__"),
    ("loss", "def X(output, batch): pass", None),
    ("metric", "class X:\n    pass", "no function that the decorator"),
    ("metric", "def X(prediction, truth): pass", "a metric of depth takes (prediction, truth, mask)"),
    ("metric", "def X(prediction, truth, mask, *, least: float = 1.0): pass", None),
    ("model", "class X:\n    def forward(self, batch): pass", "no recon_toolkit.Model"),
    ("model", "class X(nn.Module):\n    def forward(self, batch): pass", "no recon_toolkit.Model"),
    ("model", "class X(Model):\n    pass", "lacks the method 'forward'"),
    ("model", USES, "lacks the class method 'encoder_channels'"),
    ("model", USES + "\n    def encoder_channels(self): pass", "'encoder_channels' is no class method"),
    ("model", MODEL + "    def forward(self, batch): pass", None),
    ("model", MODEL + "    def training_step(self, batch, step): pass", None),
    ("sampler", "class X:\n    def indices(self, step): pass", "lacks the method epoch(step)"),
    ("sampler", "class X:\n    def indices(self, step): pass\n    def epoch(self, step): pass", None),
    ("optimizer", "def X(learning_rate: float): pass", "does not take the argument 'parameters'"),
    ("optimizer", "def X(parameters, *, momentum: float = 0.9): pass", None),
    ("detector", "class X:\n    pass", "lacks __call__(self, image)"),
    ("detector", "def X(): pass", "does not take an image"),
    ("detector", "def X(image, *, share: float): pass", None),
    ("exporter", "def X(result): pass", "no function of (result, folder)"),
    ("exporter", "def X(result, folder, *, digits: int = 3): pass", None),
    ("callback", "class X: pass", "it is no recon_toolkit.Callback"),
    ("callback", "class X(Callback):\n    def log(self, step): pass", "its log cannot be called with"),
    ("callback", "class X(Callback):\n    def end(self, run, summary): pass", None),
    ("importer", "def X(state: int): pass", "neither tensors nor path"),
    ("importer", "def X(tensors): pass", None),
    ("command", "class X:\n    pass", "a command is a function"),
    ("command", "def X(folder: str): pass", None),
]


def plugin(path, kind, code):
    path.write_text(f"{HEAD}from recon_toolkit import *\n@{kind}('mine')\n{code}\n")
    return path


def test_every_kind_has_a_contract_that_something_keeps_and_something_does_not():
    for wrong in (True, False):
        assert {kind for kind, _, fault in CONTRACTS if (fault is not None) == wrong} == set(KINDS)


@pytest.mark.parametrize(("kind", "code", "fault"), CONTRACTS)
def test_a_check_names_plugin_and_what_is_missing(tmp_path, recon, kind, code, fault):
    code, out, _ = recon("plugins", "--check", "--plugin", plugin(tmp_path / "mine.py", kind, code))
    assert code == (2 if fault else 0), out
    if fault:
        assert f"not working: mine.py ({tmp_path / 'mine.py'}): {kind} 'mine' of plugin 'mine.py'" in out
        assert fault in out


@pytest.mark.parametrize("text", ["1 / 0", "from recon_toolkit import loss\n@loss('edges')\ndef f(a, b): ..."])
def test_a_check_fails_where_a_plugin_cannot_be_loaded_or_clashes(tmp_path, recon, text):
    (tmp_path / "mine.py").write_text(text)
    assert recon("plugins", "--plugin", tmp_path / "mine.py")[0] == 0
    code, out, _ = recon("plugins", "--check", "--plugin", tmp_path / "mine.py")
    assert code == 2 and "mine.py" in out


def test_ones_own_plugins_are_listed_first(tmp_path, recon):
    path = plugin(tmp_path / "zz.py", "loss", "def X(a, b): pass")
    assert recon("plugins", "--plugin", path)[1].startswith("zz.py")


@pytest.mark.parametrize(
    ("kind", "setting", "code"),
    [
        ("dataset", "dataset={name: mine}", "class X:\n    def open(self, split, size, context): pass"),
        ("dataset", "dataset={name: mine}", "class X:\n    splits = ('train', 'test')"),
        ("encoder", "encoders.depth={name: mine}", NO_MODULE),
        ("renderer", "renderer={name: mine}", "class X:\n    pass"),
        ("loss", "losses.photometric={name: mine}", "class X:\n    pass"),
    ],
)
def test_in_use_the_plugin_is_blamed(tmp_path, tiny, recon, kind, setting, code):
    path = plugin(tmp_path / "mine.py", kind, code)
    arguments = ("--pipeline", tiny, "--plugin", path, "--set", setting, "--out", tmp_path / "run")
    code, _, err = recon("run", *arguments)
    assert code == 2 and f"{kind} 'mine' of plugin 'mine.py'" in err, err


NETWORK = (
    "class X(nn.Module):\n"
    "    def __init__(self, in_channels, out_channels):\n        super().__init__()\n"
    "        self.layer = nn.Conv2d(in_channels, out_channels, 3, padding=1)\n"
    "    def forward(self, image):\n        found = self.layer(image)\n        return "
)
RENDERER = "class X:\n    def __call__(self, depth, image, view):\n        return "
WRONG = [
    ("encoder", "encoders.depth", NETWORK + "found[:, :, ::2, ::2]", "returned (2, 1, 16, 16); (2, 1, 32, 32)"),
    ("encoder", "encoders.view", NETWORK + "found[:, :2].mean((2, 3))", "returned (2, 2); (2, 6, 32, 32), or (2, 6)"),
    ("encoder", "encoders.depth", NETWORK + "None", "returned NoneType; (2, 1, 32, 32)"),
    ("encoder", "encoders.light", NETWORK + "found.reshape(7)", "raised RuntimeError"),
    ("encoder", "encoders.depth", NETWORK + "found.mean((2, 3))", "encoders.depth (2, 1)"),
    ("renderer", "renderer", RENDERER + "image", "returned (4, 3, 32, 32); a Rendering was expected"),
    (
        "renderer",
        "renderer",
        RENDERER + "Rendering(image[..., ::2, ::2], depth, depth > 0)",
        "returned the image (4, 3, 16, 16); (4, 3, 32, 32) was expected",
    ),
    ("renderer", "renderer", RENDERER + "image.nothing", "raised AttributeError"),
    ("loss", "losses.photometric", "def X(output):\n    return 3", "returned int; a tensor"),
    ("loss", "losses.photometric", "def X(a, b):\n    return (a - b).mean()", "returned (); a residual map"),
]


@pytest.mark.parametrize(("kind", "key", "code", "message"), WRONG)
def test_a_part_of_a_wrong_shape_is_named_with_both_shapes(tmp_path, tiny, kind, key, code, message):
    host = load_plugins([plugin(tmp_path / "mine.py", kind, code)])
    with pytest.raises(ReconError) as caught:
        run_pipeline(load_pipeline(tiny, [f"{key}={{name: mine}}"], host), out=tmp_path / "run", device="cpu")
    assert key in str(caught.value) and message in str(caught.value)


def test_a_look_at_the_parts_leaves_the_model_as_it_was(tiny):
    import torch

    from recon_toolkit import build_model
    from recon_toolkit.engine.first_look import watched_parts
    from recon_toolkit.structures import Batch

    resolved = load_pipeline(tiny)
    model = build_model(resolved)
    before, renderer = list(model.state_dict()), model.renderer
    with watched_parts(model, resolved):
        model(Batch(image=torch.rand(2, 3, 32, 32), index=torch.zeros(2)))
    assert list(model.state_dict()) == before and model.renderer is renderer
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())

"""The hooks that a plugin may implement: this file is all that a plugin and the core know of each other.

A plugin is a module (or a package) named by an entry point of the group ``recon_toolkit``, or a single file given
with ``--plugin``. In its ``pyproject.toml``::

    [project.entry-points.recon_toolkit]
    my-plugin = "my_plugin"
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pluggy

from recon_toolkit.components import Component, NewKind

#: Entry-point group, and pluggy's project name.
PROJECT = "recon_toolkit"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def recon_components() -> Iterable[Component]:
    """Yield the components that the plugin contributes.

    A target written ``"module:Name"`` is imported when a pipeline first uses it; so listing plugins stays quick.

    >>> from recon_toolkit import Component, hookimpl
    >>> @hookimpl
    ... def recon_components():
    ...     yield Component("loss", "my-edges", "my_plugin.losses:edges", "difference of the edges")
    >>> next(recon_components()).name
    'my-edges'
    """
    raise NotImplementedError  # a specification; pluggy never calls it


@hookspec
def recon_kinds() -> Iterable[NewKind]:
    """Yield kinds of components that the plugin declares, for its own components and for those of others.

    What uses them asks ``load_plugins().registry.get(kind, name)``, or ``resolve_component`` for one with its options.

    >>> from recon_toolkit import NewKind, hookimpl
    >>> @hookimpl
    ... def recon_kinds():
    ...     yield NewKind("baker", frozenset({"mesh"}), "makes a texture of a mesh")
    >>> next(recon_kinds()).name
    'baker'
    """
    raise NotImplementedError  # a specification; pluggy never calls it


@hookspec
def recon_pipelines() -> Iterable[Path]:
    """Yield folders that hold pipelines (``*.yaml``), which ``recon run --pipeline NAME`` then finds by file name.

    >>> from pathlib import Path
    >>> from recon_toolkit import hookimpl
    >>> @hookimpl
    ... def recon_pipelines():
    ...     yield Path("my_plugin") / "pipelines"
    >>> next(recon_pipelines()).name
    'pipelines'
    """
    raise NotImplementedError  # a specification; pluggy never calls it


@hookspec
def recon_models() -> Iterable[Path]:
    """Yield folders that hold trained models: ``NAME.safetensors`` from a run, and a model card ``NAME.md`` beside it.

    ``recon reconstruct --model NAME`` finds them by file name, and without it takes the only one there is.

    >>> from pathlib import Path
    >>> from recon_toolkit import hookimpl
    >>> @hookimpl
    ... def recon_models():
    ...     yield Path("my_plugin") / "models"
    >>> next(recon_models()).name
    'models'
    """
    raise NotImplementedError  # a specification; pluggy never calls it

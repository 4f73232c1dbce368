"""Objects seen from many sides: procedural ones, ShapeNet's renderings, and renderings of any meshes."""

from collections.abc import Iterator

from recon_toolkit import Component, hookimpl


@hookimpl
def recon_components() -> Iterator[Component]:
    """The data sets."""
    yield Component(
        "dataset",
        "procedural-objects",
        "recon_object_views.procedural:ProceduralObjects",
        "Procedural chairs, tables, cars, planes and mugs with depth from many sides.",
    )

"""Objects seen from many sides: procedural ones, ShapeNet's renderings, and renderings of any meshes."""

from collections.abc import Iterator

from recon_toolkit import Component, hookimpl


@hookimpl
def recon_components() -> Iterator[Component]:
    """The data sets, and the command that makes one."""
    yield Component(
        "dataset",
        "procedural-objects",
        "recon_object_views.procedural:ProceduralObjects",
        "Procedural chairs, tables, cars, planes and mugs with depth from many sides.",
    )
    yield Component(
        "dataset",
        "shapenet-renders",
        "recon_object_views.renders:ShapenetRenders",
        "Objects seen from many sides: Lin et al.'s renderings of ShapeNet, or of any meshes.",
    )
    yield Component(
        "command",
        "data/render-views",
        "recon_object_views.command:render_views",
        "Draw meshes from many sides: training data for shapenet-renders.",
    )

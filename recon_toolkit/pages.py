"""HTML pages from templates. Whatever a template shows is escaped, unless it is marked as HTML."""

from __future__ import annotations

from functools import cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_OURS = "recon_toolkit"
FOLDER = "templates"


def page(package: str, template: str, **values: object) -> str:
    """A page from a template in a package's folder ``templates``.

    There, ``{% extends "page.html" %}`` is the toolkit's own layout, with the blocks ``style`` (CSS) and ``body``, and
    the variable ``title``; ``asset(FILE)`` is a file of that folder as it is, for styles and scripts.

    Args:
        package: the package's name, e.g. ``recon_bench``.
        template: the file's name.
        values: variables of the template, escaped where they are shown; :class:`markupsafe.Markup` is HTML already.

    Raises:
        jinja2.TemplateError: the template does not exist, is wrong, or uses a variable that was not given.
    """
    return _environment(package).get_template(template).render(values)


@cache
def asset(package: str, name: str) -> Markup:
    """A file of a package's ``templates``, or else of ours, as it is."""
    from markupsafe import Markup

    own = files(package).joinpath(FOLDER, name)
    found = own if own.is_file() else files(_OURS).joinpath(FOLDER, name)
    return Markup(found.read_text(encoding="utf-8"))


@cache
def _environment(package: str) -> Environment:
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    loaders = [PackageLoader(name, FOLDER) for name in dict.fromkeys((package, _OURS))]
    made = Environment(
        loader=ChoiceLoader(loaders), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.globals["asset"] = partial(asset, package)
    return made

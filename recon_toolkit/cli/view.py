"""``recon view``: look at results in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("view", short_help="Show results in the browser.")(view)


def view(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A run, results, tables, or an HTML file.")],
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 takes a free one.")] = 0,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
) -> None:
    """Show a run, results of recon reconstruct or recon bench, or a page in the browser, until Ctrl-C.

    Only files below that folder are served, for reading, to this machine, and to those who know the address. Hidden
    files and links that lead out of the folder are not.

    \b
    Examples:
      recon view reconstructions
      recon view runs/faces
      recon view runs/bench --no-open --port 8001
    """
    from recon_toolkit.demo.browser import show
    from recon_toolkit.demo.listen import address_of, listen
    from recon_toolkit.demo.site import site_of
    from recon_toolkit.demo.site_server import SiteServer

    site = site_of(path)
    with SiteServer(site, listen("127.0.0.1", port)) as server:
        address = address_of(server.socket, path=server.start)
        print(f"look at {address} (Ctrl-C ends this)", flush=True)
        if open_browser:
            show(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:  # the usual end
            return

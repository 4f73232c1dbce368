"""``recon demo`` turns a photograph in 3D on a web page; ``recon view`` shows results in the browser."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from recon_toolkit.cli.common import (
    DetectorName,
    DetectorSettings,
    Device,
    DisabledPlugins,
    ModelName,
    ModelRun,
    ModelWeights,
    PluginFiles,
    Trust,
    plugin_host,
    progress_of,
    torch_device,
)


def has_browser() -> bool:
    """Whether opening an address would show a window: a browser inside the terminal would take that over."""
    if sys.platform in ("win32", "darwin"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))


def show(address: str) -> None:
    """Open an address in the browser. Where there is none, or it fails, nothing happens."""
    if has_browser():
        # Some browsers keep their starter waiting until they end.
        threading.Thread(target=_open, args=(address,), daemon=True).start()


def _open(address: str) -> None:
    try:
        webbrowser.open(address)
    except Exception:  # whatever a foreign program does, the address is on the screen
        return


def demo(
    context: typer.Context,
    run: ModelRun = None,
    weights: ModelWeights = None,
    trust: Trust = False,
    model: ModelName = None,
    detector: DetectorName = "auto",
    detector_set: DetectorSettings = None,
    host: Annotated[str, typer.Option("--host", help="Where to listen; only this machine by default.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 takes a free one.")] = 8000,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
    faces: Annotated[int, typer.Option("--faces", min=1, max=50, help="Most faces per picture.")] = 8,
    upload_limit: Annotated[
        float, typer.Option("--upload-limit", min=0.01, max=1000, metavar="MB", help="Largest upload.")
    ] = 15,
    device: Device = "auto",
    plugins: PluginFiles = None,
    disabled: DisabledPlugins = None,
) -> None:
    """Serve a web page that turns photographs into 3D.

    Pictures are kept neither on the disk nor in memory, and their names are not written anywhere. Without --run or
    --weights, it uses the model that comes with the package.

    \b
    Examples:
      recon demo
      recon demo --run runs/faces --port 0 --no-open
    """
    from recon_demo.limits import MEGABYTE, Limits
    from recon_demo.server import listen, listens_to_this_machine_only, url_of

    listening = listen(host, port)  # before the model is loaded: a port that is taken is known at once
    with listening:
        from recon_demo.app import Demo
        from recon_demo.server import serve
        from recon_toolkit.inference.models import load_models
        from recon_toolkit.reconstructor import Reconstructor, detector_for

        chosen = torch_device(device)
        found = plugin_host(context, plugins, disabled)
        models = load_models(run=run, weights=weights, model=model, device=chosen, host=found, trust=trust)
        search = detector_for(models.default, detector, found, detector_set or ())
        loaded = Reconstructor(models.default, search, models)
        local = listens_to_this_machine_only(listening)
        limits = Limits(upload_bytes=round(upload_limit * MEGABYTE), faces=faces)
        address = url_of(listening)
        if not local:
            progress_of(context).warn(f"anyone who can reach port {listening.getsockname()[1]} here can send pictures")
        print(f"look at {address} (Ctrl-C ends this)", flush=True)
        page = Demo(loaded, limits, loopback=local)
        try:
            serve(page.app, listening, lambda: show(address) if open_browser else None)
        finally:
            page.queue.close()


def view(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A run, results, tables, or an HTML file.")],
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 takes a free one.")] = 0,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
) -> None:
    """Show results in the browser.

    A run, results of recon reconstruct or recon bench, or any page, until Ctrl-C.

    Only files below that folder are served, for reading, to this machine, and to those who know the address. Hidden
    files and links that lead out of the folder are not.

    \b
    Examples:
      recon view reconstructions
      recon view runs/faces
      recon view runs/bench --no-open --port 8001
    """
    from recon_demo.site import SiteApp, site_of

    site = SiteApp(site_of(path))
    from recon_demo.server import listen, serve, url_of

    with listen("127.0.0.1", port) as listening:
        address = url_of(listening, path=site.start)
        print(f"look at {address} (Ctrl-C ends this)", flush=True)
        serve(site.app, listening, lambda: show(address) if open_browser else None)

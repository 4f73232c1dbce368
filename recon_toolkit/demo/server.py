"""The web demo on a port."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from recon_toolkit.errors import ReconError

if TYPE_CHECKING:
    import uvicorn

    from recon_toolkit.demo.app import Demo

#: What the extra brings.
NEEDED = ("uvicorn", "python_multipart")


def check_extra() -> None:
    """Raise ReconError where the demo's dependencies are not installed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ReconError(
            f"the demo needs {' and '.join(missing)}, not installed here", remedy="pip install 'recon-toolkit[demo]'"
        )


def server_of(demo: Demo) -> uvicorn.Server:
    """A server for :meth:`uvicorn.Server.run`, which logs nothing about requests, and limits connections itself."""
    import uvicorn

    from recon_toolkit.demo.protocol import PatientProtocol

    return uvicorn.Server(
        uvicorn.Config(
            demo,
            http=PatientProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=2,
        )
    )


def serve(demo: Demo, listening: socket.socket, ready: Callable[[], None]) -> None:
    """Answer until Ctrl-C or a signal to end.

    Args:
        demo: the application.
        listening: from :func:`recon_toolkit.demo.listen.listen`; closed at the end.
        ready: called first.
    """
    ready()
    try:
        server_of(demo).run(sockets=[listening])
    except KeyboardInterrupt:  # the usual end
        return
    finally:
        demo.desk.close()
        listening.close()

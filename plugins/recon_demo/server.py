"""The web demo on a port."""

from __future__ import annotations

import asyncio
import errno
import importlib.util
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from uvicorn.protocols.http.h11_impl import H11Protocol

from recon_demo.limits import is_loopback
from recon_toolkit.errors import ReconError

if TYPE_CHECKING:
    import uvicorn

    from recon_demo.app import Demo


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at ``host`` and ``port``; port 0 is any free one.

    Raises:
        ReconError: the port is taken or not allowed, or the host is not this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError, OverflowError) as error:
        raise ReconError(f"no such address: {error}", where=f"--host {host}", remedy="try 127.0.0.1") from None
    taken = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # a port of a server that has just ended is free; elsewhere, this would share ports
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
        taken.listen()
    except OSError as error:
        taken.close()
        raise _problem(error, host, port) from None
    return taken


def address_of(listening: socket.socket, *, path: str = "/") -> str:
    """The address to open in a browser."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{path}"


def listens_to_this_machine_only(listening: socket.socket) -> bool:
    """Whether nobody else can reach a socket."""
    return is_loopback(listening.getsockname()[0])


def _problem(error: OSError, host: str, port: int) -> ReconError:
    where = f"--port {port}"
    if error.errno == errno.EADDRINUSE:
        return ReconError("another program uses this port", where=where, remedy="--port 0 takes a free one")
    if error.errno == errno.EACCES:
        return ReconError("this port is for administrators", where=where, remedy="take one from 1024")
    if error.errno == errno.EADDRNOTAVAIL:
        return ReconError("this machine has no such address", where=f"--host {host}", remedy="try 127.0.0.1")
    return ReconError(f"cannot listen: {error.strerror or error}", where=f"{host}, {where}", remedy="try others")


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
        listening: from :func:`recon_demo.server.listen`; closed at the end.
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


#: Seconds for a request's head to arrive, from the connection's beginning or the answer before.
HEADER_SECONDS = 10.0
#: Open connections. One more closes the one that has waited longest for a head; where all are being answered, itself.
CONNECTIONS = 64
#: Seconds in which a connection that is given up may still fetch its answer.
_DRAIN_SECONDS = 120.0


class PatientProtocol(H11Protocol):
    """uvicorn's, with an end to waiting for a request's head, which it does not have."""

    _deadline: asyncio.TimerHandle | None = None
    _since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait; make room where there are too many."""
        super().connection_made(transport)
        self._wait()
        live = [each for each in self.connections if isinstance(each, PatientProtocol) and not each._given_up()]
        if len(live) > CONNECTIONS:
            waiting = [each for each in live if each._deadline is not None and each is not self]
            min(waiting, key=lambda each: each._since, default=self)._give_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._wait_no_more()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Whatever has arrived; once a request is being answered, its head is not waited for."""
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait_no_more()

    def on_response_complete(self) -> None:
        """Wait for the next head."""
        if not self.transport.is_closing():
            self._wait()
        super().on_response_complete()  # which may begin with a request that has arrived already

    def _wait(self) -> None:
        self._wait_no_more()
        self._since = self.loop.time()
        self._deadline = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _wait_no_more(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _given_up(self) -> bool:
        return self.transport.is_closing()

    def _give_up(self) -> None:
        """Close, but let an answer that has been given be fetched by those who are slow."""
        self._wait_no_more()
        self.transport.close()
        self.loop.call_later(_DRAIN_SECONDS, self.transport.abort)

"""Taking a port, with a clear word where that fails."""

from __future__ import annotations

import errno
import os
import socket

from recon_toolkit.demo.guard import is_loopback
from recon_toolkit.errors import ReconError


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

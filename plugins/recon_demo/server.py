"""Applications on a port: where they listen, what every answer says, and how long anybody is waited for."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from recon_demo.limits import HEADERS, ICON, Refusal, check_host, is_loopback
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


def url_of(listening: socket.socket, *, path: str = "/") -> str:
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


def application(
    routes: Sequence[BaseRoute],
    refuse: Callable[[Refusal], Response],
    *,
    loopback: bool,
    headers: Mapping[str, str],
    unread_bytes: int = 0,
) -> ASGIApp:
    """An application with what all of ours have: guarded answers, and refusals for people.

    Args:
        routes: of the pages.
        refuse: the page that says why not.
        loopback: it is reached from this machine only, so that other names in the Host header are refused.
        headers: of every answer, besides :data:`~recon_demo.limits.HEADERS`.
        unread_bytes: of a refused request, what is read and thrown away, so that its sender gets to see the answer.
    """

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return refuse(error)

    async def unknown(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
            text = f"{request.method[:20]} does nothing here"
            return refuse(Refusal(405, text, "Choose a photo below", {"Allow": allowed}))
        return refuse(Refusal(404, "There is no such page", "This one is all there is"))

    async def gone(request: Request, error: Exception) -> Response:
        return Response(status_code=400)  # nobody reads it

    async def icon(request: Request) -> Response:
        return Response(status_code=204)

    app = Starlette(
        routes=[Route(ICON, icon), *routes],
        exception_handlers={Refusal: refused, HTTPException: unknown, ClientDisconnect: gone},
    )
    return _Guard(app, refuse, loopback, {**HEADERS, **headers}, unread_bytes)


#: Seconds for reading on what a refused request still sends.
_UNREAD_SECONDS = 10.0


class _Guard:
    """Around an application: the name it is asked by, the headers of all answers, and requests that were refused early.

    Closing while a browser still sends would make it show its own error instead of our page: so what it sends is read,
    for a while, and thrown away.
    """

    def __init__(
        self,
        app: ASGIApp,
        refuse: Callable[[Refusal], Response],
        loopback: bool,
        headers: Mapping[str, str],
        unread_bytes: int,
    ) -> None:
        self.app, self.refuse, self.loopback = app, refuse, loopback
        self.headers, self.unread_bytes = headers, unread_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        if scope["type"] != "http":
            return
        finished = False  # the request's body
        early = False  # the answer is given while the request still comes in

        async def received() -> Message:
            nonlocal finished
            message = await receive()
            finished = not message.get("more_body", False)
            return message

        async def sent(message: Message) -> None:
            nonlocal early
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    answer.setdefault(name, value)
                early = not finished and message["status"] >= 400 and scope["method"] not in ("GET", "HEAD")
                if early:
                    answer["Connection"] = "close"
                await send(message)
            elif early and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await self._discard(receive)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                await send(message)

        try:
            check_host(Headers(scope=scope), loopback=self.loopback)
        except Refusal as refusal:
            await self.refuse(refusal)(scope, received, sent)
        else:
            await self.app(scope, received, sent)

    async def _discard(self, receive: Receive) -> None:
        size = 0
        try:
            async with asyncio.timeout(_UNREAD_SECONDS):
                async for chunk in _chunks(receive):
                    size += len(chunk)
                    if size > self.unread_bytes:
                        return
        except TimeoutError:
            return


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    """What a request still sends, until its end or until its sender has left."""
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        yield message.get("body", b"")


def server_of(app: ASGIApp) -> uvicorn.Server:
    """A server for :meth:`uvicorn.Server.run`, which logs nothing about requests, and limits connections itself."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
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


def serve(app: ASGIApp, listening: socket.socket, ready: Callable[[], None]) -> None:
    """Answer until Ctrl-C or a signal to end.

    Args:
        app: the application.
        listening: from :func:`recon_demo.server.listen`; closed at the end.
        ready: called first.
    """
    ready()
    try:
        server_of(app).run(sockets=[listening])
    except KeyboardInterrupt:  # the usual end
        return
    finally:
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

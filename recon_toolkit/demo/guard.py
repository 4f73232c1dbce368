"""Who may ask a server on one's own machine: its own pages, by its own name."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from recon_toolkit.demo.refusal import Refusal

#: Sent with every answer. Not "no-referrer": with that, browsers call the origin of our own form "null" as well.
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

#: Browsers ask for it on their own account, and would report that there is none.
ICON = "/favicon.ico"


def is_loopback(address: str) -> bool:
    """Whether an IP address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def names_this_machine(host: str) -> bool:
    """Whether a Host header is a name that no foreign site can have: ``localhost`` or a loopback address.

    A page of another site can make its own name stand for 127.0.0.1 ("DNS rebinding") and would then count as ours.
    The port is not looked at, because tunnels change it.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return name == "localhost" or is_loopback(name)


def check_host(headers: Mapping[str, str], *, loopback: bool) -> None:
    """Raise Refusal 421 where a server on the loopback device is asked by another name."""
    if loopback and not names_this_machine(headers.get("host", "")):
        raise Refusal(421, "This server has another name", "Use the address that the command printed")


def check_origin(headers: Mapping[str, str]) -> None:
    """Raise Refusal 403 where a browser sends a form that another site's page holds.

    Programs other than browsers send neither header, and may ask.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        same = site in ("same-origin", "none")
    else:  # browsers leave the first out where the server is neither encrypted nor on their own machine
        same = origin is None or urlsplit(origin).netloc == headers.get("host")
    if not same:
        raise Refusal(403, "A page of another site sent this picture", "Choose the picture on this page")

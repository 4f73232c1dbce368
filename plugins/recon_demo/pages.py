"""The demo's pages: the form, with or without what went wrong, and the result."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from recon_demo.limits import CROP, PHOTO, Limits
from recon_toolkit.pages import asset, page

if TYPE_CHECKING:
    from recon_demo.limits import Refusal
    from recon_toolkit.viewer import Scene

_US = "recon_demo"
TITLE = "From a photo to 3D"
#: What browsers offer to choose from; they turn other formats of a phone's camera into these.
ACCEPT = "image/jpeg,image/png,image/webp,image/bmp,image/gif,image/tiff,image/avif"


def form_page(limits: Limits, *, noun: str, local: bool, refusal: Refusal | None = None) -> str:
    """The page to choose a photo on.

    Args:
        limits: named on the page, and watched before anything is sent.
        noun: what to call an object that is found, e.g. ``face``.
        local: only this machine reaches the server, so that a picture does not leave it.
        refusal: what was wrong with the last picture.
    """
    return page(
        _US,
        "form.html",
        title=TITLE if refusal is None else f"{refusal.message} – {TITLE}",
        heading=TITLE,
        limits=limits,
        noun=noun,
        local=local,
        refusal=refusal,
        photo=PHOTO,
        crop=CROP,
        accept=ACCEPT,
    )


@cache
def form_policy() -> str:
    """The Content-Security-Policy of :func:`form_page`: its own script and style, and nothing from elsewhere."""
    digest = base64.b64encode(hashlib.sha256(asset(_US, "form.js").encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def result_page(scenes: Sequence[Scene], noun: str) -> str:
    """The page with the objects of one picture: that of ``recon reconstruct``, below a bar with a way back.

    It stands in a frame, so that saving it gives exactly that page: browsers cannot save the answer to a form.
    """
    from recon_toolkit.viewer import viewer_document

    count = f"One {noun}" if len(scenes) == 1 else f"{len(scenes)} {noun}s"
    viewer = viewer_document(f"{count} in 3D", scenes)
    return page(_US, "result.html", title=f"{count} – {TITLE}", count=count, viewer=viewer)


def result_policy() -> str:
    """The Content-Security-Policy of :func:`result_page`."""
    from recon_toolkit.viewer.page import POLICY

    return f"{POLICY}; frame-ancestors 'none'"

"""The demo's pages: the form, with or without what went wrong, and the result."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from recon_demo.limits import CROP, PHOTO, Limits
from recon_toolkit.viewer.page import document

if TYPE_CHECKING:
    from recon_demo.limits import Refusal
    from recon_toolkit.viewer import Scene

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
    problem = title = ""
    if refusal is not None:
        title = f"{refusal.message} – "
        problem = (
            f'<div class="problem" role="alert" id="problem"><strong>{html.escape(refusal.message)}.</strong> '
            f"{html.escape(refusal.remedy)}.</div>\n"
        )
    where = "It stays on this machine and is not kept." if local else "It is sent to this server and is not kept."
    body = f"""<main>
<h1>{TITLE}</h1>
<p>Choose a photo, and turn the {html.escape(noun)} in it, and the light on it, in your browser. {where}</p>
{problem}<form method="post" action="./" enctype="multipart/form-data" data-limit="{limits.upload_bytes}"
 data-words="{html.escape(limits.upload_words)}">
<div class="field">
<label for="photo">Photo <small>choose one, or drop it here; at most {html.escape(limits.upload_words)}</small></label>
<input type="file" id="photo" name="{PHOTO}" accept="{ACCEPT}">
</div>
<div class="field camera">
<label for="camera">Camera <small>take one now</small></label>
<input type="file" id="camera" name="{PHOTO}" accept="image/*" capture="user">
</div>
<img id="preview" alt="The chosen photo" hidden>
<p><label class="tick"><input type="checkbox" name="{CROP}" value="yes">
The picture is a crop already: one {html.escape(noun)} fills it</label></p>
<p><button type="submit">Show it in 3D</button></p>
<p role="status" id="status"></p>
</form>
</main>
<script>{_asset("form.js")}</script>"""
    return document(title + TITLE, body, style=_asset("form.css"))


def form_policy() -> str:
    """The Content-Security-Policy of :func:`form_page`: its own script and style, and nothing from elsewhere."""
    return (
        f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src '{_digest('form.js')}'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def result_page(scenes: Sequence[Scene], noun: str) -> str:
    """The page with the objects of one picture: that of ``recon reconstruct``, below a bar with a way back.

    It stands in a frame, so that saving it gives exactly that page: browsers cannot save the answer to a form.
    """
    from recon_toolkit.viewer import viewer_document

    count = html.escape(f"One {noun}" if len(scenes) == 1 else f"{len(scenes)} {noun}s")
    viewer = viewer_document(f"{count} in 3D", scenes)
    body = f"""<header>
<a href="./">← Another photo</a>
<button type="button" id="save">Save this page</button>
<span>Nothing was kept.</span>
</header>
<iframe title="{count} in 3D" srcdoc="{html.escape(viewer)}"></iframe>
<script>{_asset("result.js")}</script>"""
    return document(f"{count} – {TITLE}", body, style=_asset("result.css"))


def result_policy() -> str:
    """The Content-Security-Policy of :func:`result_page`."""
    from recon_toolkit.viewer.page import POLICY

    return f"{POLICY}; frame-ancestors 'none'"


@cache
def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


@cache
def _digest(name: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(_asset(name).encode()).digest()).decode()

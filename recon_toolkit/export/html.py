"""The frame of every page that the toolkit writes: one file, nothing loaded from elsewhere."""

from __future__ import annotations

import html

STYLE = """
:root { --ink: #1f2328; --soft: #59636e; --line: #d8dee4; --wash: #f6f8fa; --link: #0b5cad; }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; color: var(--ink); }
h1, h2 { line-height: 1.25; margin: 2rem 0 .5rem; }
h1 { margin-top: 0; overflow-wrap: anywhere; }
p, li { max-width: 48rem; }
a { color: var(--link); }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .4rem; }
th, td { padding: .3rem 1rem .3rem 0; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; height: auto; }
figure { margin: 1.5rem 0; }
figcaption { color: var(--soft); }
details img { margin: .5rem 0; }
.warning { background: #fff3cd; padding: .5rem 1rem; border-radius: .3rem; }
.scroll { overflow-x: auto; }
"""


def document(title: str, body: str, *, style: str = "") -> str:
    """A whole HTML document.

    Args:
        title: plain text.
        body: HTML.
        style: CSS besides :data:`STYLE`.
    """
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}{style}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )

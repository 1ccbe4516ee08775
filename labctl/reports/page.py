"""The frame of every HTML page: style and script inline, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib import resources


def whole(title: str, body: Sequence[str]) -> str:
    """Return a whole page; `body` is HTML, `title` is text.

    Its policy allows no network and no script but labctl's own, so that a page from
    someone else runs nothing that a name or a log brought along.
    """
    style, script = _asset("page.css"), _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            '<head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>{escape(title)}</title>",
            f"<style>{style}</style></head>",
            "<body><main>",
            *body,
            "</main>",
            f"<script>{script}</script>",
            "</body></html>\n",
        ]
    )


def figure(svg: str, caption: str) -> str:
    """Return a plot with its caption."""
    return f'<figure class="plot">{svg}<figcaption>{escape(caption)}</figcaption></figure>'


def details(title: str, body: str) -> str:
    """Return a part of a page that is closed at first; `body` is HTML."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def pre(text: str) -> str:
    """Return preformatted text."""
    return f"<pre>{escape(text)}</pre>"


def warning(text: str) -> str:
    """Return a paragraph that warns."""
    return f'<p class="suspect">{escape(text)}</p>'


@cache
def _asset(name: str) -> str:
    return resources.files("labctl.reports").joinpath(name).read_text("utf-8")

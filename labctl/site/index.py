"""The first page of a site: the latest results, and all runs and nightly runs. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape

from labctl.reports import page
from labctl.reports.grid import Entry, grid
from labctl.site.types import Manifest, NightEntry, RunEntry

NIGHTLY = "nightly.html"
_SHOWN = 2  # results of a run; its page has all of them


def render(manifest: Manifest) -> str:
    """Return the page. With the script, one search finds runs and nightly runs by any word."""
    runs = sorted(manifest.runs, key=lambda one: one.run, reverse=True)
    nights = list(reversed(manifest.nights.entries))
    pages = {one.run for one in runs if not one.fault}
    body = ["<h1>labctl: runs and nightly runs</h1>", *_latest(runs, manifest)]
    tables = []
    if runs:
        tables.append(_runs(runs))
    if nights:
        tables.append(_nights(nights, pages))
    body.append(f'<div class="search">{"".join(tables)}</div>' if tables else "<p>No run yet.</p>")
    return page.whole("labctl: runs and nightly runs", body)


def _latest(runs: Sequence[RunEntry], manifest: Manifest) -> list[str]:
    parts = []
    if latest := next((one for one in runs if one.results), None):
        link = f'<a href="{escape(latest.page)}">Latest run</a>'
        results = "".join(f"<li>{escape(result)}</li>" for result in latest.results)
        found = f"<p><b>{link}</b></p><ul>{results}</ul>"
        parts.append(f'<div class="found{_bad(latest.is_bad)}">{found}</div>')
    nights = manifest.nights
    if nights.fault:
        parts.append(page.warning(nights.fault))
    elif nights.subject:
        link = f'<a href="{NIGHTLY}">Trends</a>'
        text = escape(nights.subject)
        parts.append(f'<p class="found{_bad(nights.is_bad)}"><b>{link}</b>: {text}</p>')
    return parts


def _bad(is_bad: bool) -> str:
    return " is-slower" if is_bad else ""


def _runs(runs: Sequence[RunEntry]) -> str:
    rows: list[list[str | Entry]] = [
        [
            Entry(one.run, href="" if one.fault else one.page),
            one.begun,
            Entry(one.fault or _shortened(one.results), style="text"),
            Entry(", ".join(one.kernels), style="text"),
            Entry(one.host, style="text"),
        ]
        for one in runs
    ]
    return grid("Runs", ["run", "started", "result", "kernels", "host"], rows)


def _shortened(results: Sequence[str]) -> str:
    more = [f"{len(results) - _SHOWN} more"] if len(results) > _SHOWN else []
    return "; ".join([*results[:_SHOWN], *more])


def _nights(nights: Sequence[NightEntry], pages: Collection[str]) -> str:
    rows: list[list[str | Entry]] = [
        [
            Entry(one.night, href=f"runs/{one.run}.html" if one.run in pages else ""),
            Entry("; ".join(one.findings) or "no change", style="text"),
            Entry(", ".join(one.kernels), style="text"),
        ]
        for one in nights
    ]
    return grid("Nightly runs", ["night", "found", "kernels"], rows)

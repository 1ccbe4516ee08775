"""The report of nightly runs as one HTML file that needs no network. Pure."""

from __future__ import annotations

from html import escape

from labctl.nightly import plots, text
from labctl.nightly.types import CellTrend, Nightly
from labctl.reports import page, words
from labctl.stats.kinds import FindingKind
from labctl.units import counted

_OF_INTEREST = (FindingKind.REGRESSED, FindingKind.IMPROVED, FindingKind.ALARM)


def render(content: Nightly) -> str:
    """Return the page: warnings, findings, and the trend of each cell."""
    title = text.subject(content)
    body = [
        f"<h1>{escape(title)}</h1>",
        *map(page.warning, content.warnings),
        *_findings(content),
        *(part for cell in content.cells for part in _cell(content, cell)),
        "<h2>Measured on</h2>",
        f"<p>{escape(words.host(content.host))}; {escape(str(content.accel))}</p>",
        *_commits(content),
    ]
    return page.whole(title, body)


def _findings(content: Nightly) -> list[str]:
    if not content.findings:
        return ["<p>No nightly run found a change.</p>"]
    items = "".join(
        f"<li>{escape(one.night)}: {escape(text.heading(one))}</li>"
        for one in reversed(content.findings)
    )
    return [f"<ul>{items}</ul>"]


def _cell(content: Nightly, cell: CellTrend) -> list[str]:
    own = [
        one
        for one in content.findings
        if (one.experiment, one.cell) == (cell.experiment, cell.cell) and one.kind in _OF_INTEREST
    ]
    begun = "".join(
        f"<li>from {escape(one.first)}: {escape(one.why)}</li>" for one in cell.segments if one.why
    )
    caption = (
        f"{counted(len(cell.nights), 'nightly run')}; higher is better. Crosses are disregarded."
    )
    name = f"{cell.experiment}: {words.named(cell.kernel, cell.setting)}"
    return [
        f"<h2>{escape(name)}</h2>",
        page.figure(plots.trend(cell, own), caption),
        f"<ul>{begun}</ul>" if begun else "",
    ]


def _commits(content: Nightly) -> list[str]:
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(commit))}</dd>"
        for name, commit in content.commits.items()
    )
    return [f"<dl>{rows}</dl>"] if rows else []

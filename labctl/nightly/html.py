"""The report of nightly runs as one HTML file that needs no network. Pure."""

from __future__ import annotations

from html import escape

from labctl.nightly import plots, text
from labctl.nightly.types import CellTrend, Finding, Nightly
from labctl.reports import grid, page, words
from labctl.reports.grid import Entry
from labctl.stats.kinds import FindingKind, Verdict
from labctl.units import counted

_OF_INTEREST = (FindingKind.REGRESSED, FindingKind.IMPROVED, FindingKind.ALARM)


def render(content: Nightly) -> str:
    """Return the page: warnings, findings, the cells, and the trend of each."""
    title = text.subject(content)
    hosts = (content.hosts or {}).values() or [content.host]
    body = [
        f"<h1>{escape(title)}</h1>",
        *map(page.warning, content.warnings),
        *_findings(content),
        *_cells(content),
        *(
            part
            for number, cell in enumerate(content.cells)
            for part in _cell(content, cell, number)
        ),
        "<h2>Measured on</h2>",
        *(f"<p>{escape(words.host(one))}; {escape(str(content.accel))}</p>" for one in hosts),
        *_commits(content),
    ]
    return page.whole(title, body)


def _findings(content: Nightly) -> list[str]:
    if not content.findings:
        return ["<p>No nightly run found a change.</p>"]
    rows: list[list[str | Entry]] = [
        [one.night, Entry(text.title(one), style=_style(one)), text.name(one), *text.about(one)]
        for one in reversed(content.findings)
    ]
    headings = ("nightly run", "found", "cell", "change", "since")
    return ["<h2>Findings</h2>", grid.grid("Findings of all nightly runs", headings, rows)]


def _style(finding: Finding) -> str:
    if finding.kind is FindingKind.IMPROVED:
        return grid.verdict_style(Verdict.FASTER)
    is_problem = finding.kind.is_problem
    return grid.verdict_style(Verdict.SLOWER) if is_problem else ""


def _cells(content: Nightly) -> list[str]:
    if not content.cells:
        return []
    rows: list[list[str | Entry]] = [
        [Entry(name, href=f"#cell-{number}"), last, usual, nights]
        for number, (name, last, usual, nights) in enumerate(text.rows(content))
    ]
    headings = ("cell", "ratio of the last nightly run", "usual ratio", "nightly runs")
    return ["<h2>Cells</h2>", grid.grid("Cells of the last nightly run", headings, rows)]


def _cell(content: Nightly, cell: CellTrend, number: int) -> list[str]:
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
        f'<h3 id="cell-{number}">{escape(name)}</h3>',
        page.figure(plots.trend(cell, own), caption),
        f"<ul>{begun}</ul>" if begun else "",
    ]


def _commits(content: Nightly) -> list[str]:
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(commit))}</dd>"
        for name, commit in content.commits.items()
    )
    return [f"<dl>{rows}</dl>"] if rows else []

"""The effect on each host as a table of the HTML page. Pure."""

from __future__ import annotations

from labctl.reports import words
from labctl.reports.grid import Entry, grid
from labctl.stats.host_types import HostEffect
from labctl.stats.report_types import Cell, Experiment

_MOST_ROWS = 2000


def table(experiment: Experiment) -> str:
    """Return a row for each cell and host, the A/A control first; empty with one host."""
    aa = experiment.aa_control
    cells = [*([aa] if aa else []), *experiment.cells]
    names = {host.id: host.name for host in experiment.hosts or ()}
    rows = [
        _row(cell, one, names[one.host], experiment)
        for cell in cells
        if cell.between_hosts
        for one in cell.between_hosts.hosts
    ]
    if not rows or len(rows) > _MOST_ROWS:
        return ""
    headings = [
        "cell",
        "host",
        "blocks",
        words.estimate_noun(experiment.kind),
        words.level(experiment.confidence),
        "differs",
    ]
    return grid(f"Hosts of {experiment.name}", headings, rows)


def _row(cell: Cell, one: HostEffect, name: str, experiment: Experiment) -> list[str | Entry]:
    metric = experiment.kind
    value = one.difference if metric.is_difference else one.ratio
    shown = words.value(value or 0.0, metric) if metric.is_difference else words.ratio(value or 0.0)
    return [
        words.cell(cell),
        Entry(name, style="text"),
        Entry(str(one.blocks), one.blocks),
        Entry(shown, value or 0.0),
        Entry(words.estimate_interval(one.ci, metric), one.ci[0] if one.ci else None),
        Entry("yes" if one.differs else "", style="text"),
    ]

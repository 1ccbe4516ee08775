"""The blocks of an experiment as a table: what the plot over time shows, in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, median

from labctl.lab.metrics import MetricKind
from labctl.reports import words
from labctl.reports.grid import Entry, grid
from labctl.runs.sample import Sample
from labctl.stats.health import load_percent
from labctl.stats.report_types import Experiment
from labctl.status import SampleStatus

_MOST_ROWS = 2000


def table(experiment: Experiment, samples: Sequence[Sample], links: Mapping[str, str]) -> str:
    """Return a row for each cell in each block: value, host load, failures, console log.

    Empty without samples, and with too many for a page. `links` are the addresses of
    console logs by their paths.
    """
    cells: dict[tuple[int, int, str], list[Sample]] = {}
    for sample in samples:
        if sample.status != SampleStatus.SKIPPED:
            key = sample.block, sample.order, sample.cell
            cells.setdefault(key, []).append(sample)
            if len(cells) > _MOST_ROWS:
                return ""
    if not cells:
        return ""
    rows = [_row(experiment, cells[key], links) for key in sorted(cells)]
    centre = "mean" if experiment.kind.is_difference else "median"
    headings = ["cell", "block", "started", centre, "other processes", "disturbed", "console"]
    return grid(f"Blocks of {experiment.name}", headings, rows)


def middle(values: Sequence[float], metric: MetricKind) -> float:
    """Return the value of a block's repetitions: their median, or mean with differences."""
    return fmean(values) if metric.is_difference else median(values)


def _row(
    experiment: Experiment, samples: Sequence[Sample], links: Mapping[str, str]
) -> list[str | Entry]:
    first = samples[0]
    measured = [sample for sample in samples if not sample.warmup]
    good = [s.value for s in measured if s.status == SampleStatus.OK and s.value is not None]
    failed = dict.fromkeys(s.status for s in samples if s.status != SampleStatus.OK)
    found = middle(good, experiment.kind) if good else None
    value = Entry("-") if found is None else Entry(words.value(found, experiment.kind), found)
    loads = [load_percent(s.load).get("others_percent") for s in measured]
    known = [load for load in loads if load is not None]
    others = Entry(f"{max(known):.2g} %", max(known)) if known else Entry("-")
    console = next((s.console for s in reversed(samples) if s.console in links), "")
    why = "; ".join([*failed, *dict.fromkeys(s.disturbed for s in measured if s.disturbed)])
    return [
        words.named(first.label, first.setting),
        Entry(str(first.block), first.block),
        words.moment(first.started_at),
        value,
        others,
        Entry(why, style="text"),
        Entry("log", href=links[console]) if console else Entry(""),
    ]

"""The comparison of two runs, for the terminal or as Markdown. Pure."""

from __future__ import annotations

from labctl.lab.metrics import MetricKind
from labctl.reports import failed, words
from labctl.stats.between_runs_types import Across, ChangedCell


def render(content: Across, style: str = "terminal") -> str:
    """Return the tables of a comparison, and below them its notes.

    `style` is terminal or markdown.
    """
    from tabulate import tabulate

    is_markdown = style == "markdown"
    first, second = content.runs
    lines = [f"{first} and {second}; {content.accel.upper()}"]
    for experiment in content.experiments:
        if experiment.refused:
            continue
        metric = experiment.kind
        rows = [_row(cell, experiment.confidence, metric) for cell in experiment.cells]
        title = experiment.name + ("" if metric.is_elapsed else f", {metric.name}")
        title = f"### {title}" if is_markdown else title
        form = "pipe" if is_markdown else "simple"
        lines += ["", title, "", tabulate(rows, headers="keys", tablefmt=form)]
    mark = "- " if is_markdown else ""
    notes = [f"{mark or '! '}{note}" for note in [*content.notes, *_failures(content)]]
    return "\n".join([*lines, "", *notes, *(mark + line for line in _explained(content))]) + "\n"


def _row(cell: ChangedCell, confidence: float, metric: MetricKind) -> dict[str, str]:
    before, after = (
        f"{_estimate(found, metric)} ({words.estimate_interval(ci, metric)})"
        for found, ci in zip(cell.difference or cell.ratio, cell.ci, strict=True)
    )
    row = {"cell": words.named(cell.kernel, cell.setting), "first": before, "second": after}
    if cell.median_seconds:
        row["times" if metric.is_time else "values"] = " and ".join(
            "-" if value is None else words.value(value, metric) for value in cell.median_seconds
        )
    interval = words.estimate_interval(cell.change_ci, metric)
    change = f"{_estimate(cell.change, metric)} ({interval})"
    row[f"change ({words.level(confidence)})"] = change
    verdict = metric.spoken(cell.verdict)
    row[""] = " ".join(filter(None, [verdict, cell.reason and f"({cell.reason})"]))
    return row


def _estimate(found: float | None, metric: MetricKind) -> str:
    return words.signed(found, metric) if metric.is_difference else words.ratio(found)


def _failures(content: Across) -> list[str]:
    return [
        f"{run}: {experiment.name}: {line}"
        for experiment in content.experiments
        for run, crashes, failures in zip(
            content.runs, experiment.crashes, experiment.failures, strict=True
        )
        for line in [
            *failed.crash_findings(crashes, experiment.baseline),
            *failed.lines(failures),
        ]
    ]


def _explained(content: Across) -> list[str]:
    hosts = dict.fromkeys(words.host(host) for host in content.hosts)
    scales = {each.kind.scale for each in content.experiments if not each.refused}
    changes = {
        "ratio": "Change: the second run's ratio over the first run's; above 1, the kernel gains "
        "more.",
        "difference": "Change of a difference: the second run's difference minus the first run's; "
        "the noise of a run is a share of the baseline's value.",
    }
    return [
        *(line for scale, line in changes.items() if scale in scales),
        f"The interval of a change contains {words.percent(content.run_noise)} of noise that all "
        "blocks of a run share (--run-noise).",
        *hosts,
    ]

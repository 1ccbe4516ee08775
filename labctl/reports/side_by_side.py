"""Two runs side by side, for the terminal or as Markdown. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labctl.lab_metrics import MetricKind
from labctl.reports import failed, words


def render(content: Mapping[str, Any], style: str = "terminal") -> str:
    """Return the tables of `results.across`, and below them what to mind.

    `style` is terminal or markdown.
    """
    from tabulate import tabulate

    is_markdown = style == "markdown"
    first, second = content["runs"]
    lines = [f"{first} and {second}; {content['accel'].upper()}"]
    for experiment in content["experiments"]:
        if experiment["refused"]:
            continue
        metric = MetricKind.of(experiment)
        rows = [_row(cell, experiment["confidence"], metric) for cell in experiment["cells"]]
        title = experiment["name"] + ("" if metric.is_elapsed else f", {metric.name}")
        title = f"### {title}" if is_markdown else title
        form = "pipe" if is_markdown else "simple"
        lines += ["", title, "", tabulate(rows, headers="keys", tablefmt=form)]
    mark = "- " if is_markdown else ""
    notes = [f"{mark or '! '}{note}" for note in [*content["notes"], *_failures(content)]]
    return "\n".join([*lines, "", *notes, *(mark + line for line in _explained(content))]) + "\n"


def _row(cell: Mapping[str, Any], confidence: float, metric: MetricKind) -> dict[str, str]:
    before, after = (
        f"{words.ratio(ratio)} ({words.interval(ci)})"
        for ratio, ci in zip(cell["ratio"], cell["ci"], strict=True)
    )
    row = {"cell": words.cell(cell), "first": before, "second": after}
    if cell["median_seconds"]:
        row["times" if metric.is_time else "values"] = " and ".join(
            "-" if value is None else words.value(value, metric) for value in cell["median_seconds"]
        )
    change = f"{words.ratio(cell['change'])} ({words.interval(cell['change_ci'])})"
    row[f"change ({words.level(confidence)})"] = change
    verdict = metric.spoken(cell["verdict"])
    row[""] = " ".join(filter(None, [verdict, cell["reason"] and f"({cell['reason']})"]))
    return row


def _failures(content: Mapping[str, Any]) -> list[str]:
    return [
        f"{run}: {experiment['name']}: {line}"
        for experiment in content["experiments"]
        for run, failures in zip(content["runs"], experiment.get("failures") or (), strict=False)
        for line in failed.lines({"failures": failures})
    ]


def _explained(content: Mapping[str, Any]) -> list[str]:
    hosts = dict.fromkeys(words.host(host) for host in content["hosts"])
    return [
        "Change: the second run's ratio over the first one's; above 1 the kernel gained more.",
        *hosts,
    ]

"""Two runs side by side, for the terminal or as Markdown. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labctl.reports import words


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
        rows = [_row(cell, experiment["confidence"]) for cell in experiment["cells"]]
        title = f"### {experiment['name']}" if is_markdown else experiment["name"]
        form = "pipe" if is_markdown else "simple"
        lines += ["", title, "", tabulate(rows, headers="keys", tablefmt=form)]
    mark = "- " if is_markdown else ""
    notes = [f"{mark or '! '}{note}" for note in content["notes"]]
    return "\n".join([*lines, "", *notes, *(mark + line for line in _explained(content))]) + "\n"


def _row(cell: Mapping[str, Any], confidence: float) -> dict[str, str]:
    before, after = (
        f"{words.ratio(ratio)} ({words.interval(ci)})"
        for ratio, ci in zip(cell["ratio"], cell["ci"], strict=True)
    )
    row = {"cell": words.cell(cell), "first": before, "second": after}
    if cell["median_seconds"]:
        row["times"] = " and ".join(
            "-" if value is None else words.seconds(value) for value in cell["median_seconds"]
        )
    change = f"{words.ratio(cell['change'])} ({words.interval(cell['change_ci'])})"
    row[f"change ({words.level(confidence)})"] = change
    row[""] = " ".join(filter(None, [cell["verdict"], cell["reason"] and f"({cell['reason']})"]))
    return row


def _explained(content: Mapping[str, Any]) -> list[str]:
    hosts = dict.fromkeys(words.host(host) for host in content["hosts"])
    return [
        "Change: the second run's ratio over the first one's; above 1 the kernel gained more.",
        *hosts,
    ]

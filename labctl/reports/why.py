"""The part of a page on what the observers found: counters, functions and stacks. Pure.

All functions return HTML with escaped text.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from labctl.reports import explanation, flame, page, plots, svg
from labctl.reports.grid import Entry, grid
from labctl.stats.explanation_types import CellChanges, FrameTime, FunctionTime, Observed

_CHANGES = 10
_FUNCTIONS = 12
_FRAMES = 60
_SECONDS = 1e-9
_CHANGE = ("difference", "changed")


def of_experiment(name: str, every: Sequence[Observed]) -> list[str]:
    """Return what each run or pass with observers found of one experiment."""
    parts = []
    for observed in (each for each in every if each.name == name):
        parts.append(f"<h3>Why: {escape(', '.join(observed.observers))}</h3>")
        lines = "".join(f"<li>{escape(line)}</li>" for line in explanation.facts(observed))
        parts.append(f"<ul>{lines}</ul>")
        for cell in observed.cells:
            parts += _cell(f"{name}: {', '.join(observed.observers)}", observed, cell)
    return parts


def _cell(where: str, observed: Observed, cell: CellChanges) -> list[str]:
    against = f"{explanation.name(cell)} against {observed.baseline}"
    parts = [f"<p>{escape(explanation.head(observed, cell))}.</p>"]
    if cell.changes:
        rows = [
            [Entry(row[0]), *map(Entry, row[1:])]
            for row in map(explanation.row, cell.changes[:_CHANGES])
        ]
        caption = f"Counters that changed, {where}: {against}"
        parts.append(grid(caption, explanation.titles(observed, cell), rows))
    if cell.functions:
        parts += _functions(where, against, observed, cell)
    if cell.frames:
        parts += _stacks(where, against, observed, cell)
    return parts


def _functions(where: str, against: str, observed: Observed, cell: CellChanges) -> list[str]:
    shown = cell.functions[:_FUNCTIONS]
    names = (observed.baseline, explanation.name(cell))
    rows = [[Entry(each.function), *_times(each)] for each in shown]
    caption = "Own time of functions per repetition, without that of functions they call"
    return [
        page.figure(_profile(shown, *names), f"{caption}: from {names[0]} to {names[1]}."),
        grid(
            f"{caption}, {where}: {against}",
            ["function", *names, *_CHANGE],
            rows,
        ),
    ]


def _times(each: FunctionTime | FrameTime) -> list[Entry]:
    """Return the entries of both kernels and of `_CHANGE`."""
    return [
        Entry(explanation.time(each.baseline), each.baseline),
        Entry(explanation.time(each.cell), each.cell),
        Entry(explanation.time(each.difference, sign="+"), each.difference),
        Entry("yes" if each.changed else "no"),
    ]


def _profile(functions: Sequence[FunctionTime], baseline: str, cell: str) -> str:
    """Return a plot with a row for each function: its time in both kernels, and a line between."""
    values = svg.Values()
    count = len(functions)
    with plots.figure(plots.ROW_INCHES * count + 0.8) as (axes, image):
        for row, each in enumerate(functions):
            times = [each.baseline * _SECONDS, each.cell * _SECONDS]
            axes.plot(times, [row, row], "-", color=plots.COLOURS[1], linewidth=1)
        for label, colour, marker in (
            (baseline, plots.OF_BASELINE, "o"),
            (cell, plots.COLOURS[1], "D"),
        ):
            own = [each.baseline if marker == "o" else each.cell for each in functions]
            texts = [
                f"{each.function} in {label}: {explanation.time(time)}"
                for each, time in zip(functions, own, strict=True)
            ]
            axes.plot(
                [time * _SECONDS for time in own], range(count), marker, markersize=4, color=colour,
                label=plots.short(label), gid=values.add(texts),
            )  # fmt: skip
        axes.set_yticks(range(count), [plots.short(each.function) for each in functions])
        axes.set_ylim(count - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.set_xlabel("own time, seconds", loc="right")
        plots.legend(axes, above=True)
    name = f"Own time of functions in {baseline} and in {cell}"
    return svg.labelled(image.getvalue(), name, values)


def _stacks(where: str, against: str, observed: Observed, cell: CellChanges) -> list[str]:
    names = {"baseline": observed.baseline, "cell": explanation.name(cell)}
    name = f"Flame graph of the difference, {where}: {against}"
    caption = (
        "Flame graph of the difference: CPU time of the kernel by call stack, callers above what "
        f"they call. The width is the mean of {names['baseline']} and {names['cell']}. Boxes with "
        f"an outline changed: orange and solid is longer in {names['cell']}, blue and dashed is "
        "shorter, a stronger colour is a larger difference. Grey is within noise."
    )
    rows = [
        [Entry(function), Entry(caller), *_times(each)]
        for each, function, caller in flame.rows(cell.frames)[:_FRAMES]
    ]
    titles = ["function", "called by", *names.values(), *_CHANGE]
    title = f"Stacks as a table, {where}: {against}"
    drawn = flame.graph(cell.frames, name=name, **names)
    return [page.figure(drawn, caption), page.details(title, grid(title, titles, rows))]

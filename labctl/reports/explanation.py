"""Text of `labctl explain`, and the lines of a report on its observers. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from labctl.observers.observer import is_time
from labctl.reports import words
from labctl.stats.explanation_types import CellChanges, Change, Cost, Explanation, Observed
from labctl.units import counted

_FIRST = 10
_BAR = 20  # characters
_TIME_SECONDS = 1e-9
_FLAME = "`labctl report --format html` has a flame graph of the difference"


def first_of(observed: Observed) -> Observed:
    """Return what the observers found with the first ten counters of each cell, no stacks."""
    cells = (
        replace(cell, changes=cell.changes[:_FIRST], functions=cell.functions[:_FIRST], frames=())
        for cell in observed.cells
    )
    return replace(observed, cells=tuple(cells))


def lines(observed: Observed) -> list[str]:
    """Return the lines of a report: the cost, and how many counters changed."""
    cells = []
    for cell in observed.cells:
        first = ", ".join(each.counter for each in cell.changes[:3])
        more = f", first {first}" if first else ""
        cells.append(f"{name(cell)}: {_count(cell)}{more}")
    hint = "; `labctl explain` lists them" if any(cell.changed for cell in observed.cells) else ""
    found = [f"counters that changed: {'; '.join(cells)}{hint}"] if cells else []
    return [_cost(observed), *found, *observed.warnings]


def render(document: Explanation, *, markdown: bool = False, every: bool = False) -> str:
    """Return the text of an explanation: the first ten counters of each cell, or `every` one."""
    parts = [f"run: {document.run}, accelerator: {document.accel}"]
    for observed in document.experiments:
        parts.append(f"### {observed.name}" if markdown else f"{observed.name}:")
        parts.append("\n".join(f"- {line}" for line in facts(observed)))
        for cell in observed.cells:
            parts.append(_table(observed, cell, markdown, every))
            parts += [_profile(observed, cell, markdown)] if cell.functions else []
        if any(cell.frames for cell in observed.cells):
            parts.append(_FLAME)
    return "\n\n".join(parts) + "\n"


def facts(observed: Observed) -> list[str]:
    """Return the cost of observing, and what could not be observed or compared."""
    found = [_cost(observed), *observed.warnings]
    if observed.unstable:
        found.append(
            f"left out, since {observed.baseline} differs from itself in them: "
            f"{', '.join(observed.unstable[:_FIRST])}{', ...' * (len(observed.unstable) > _FIRST)}"
        )
    return found


def _cost(observed: Observed) -> str:
    text = f"observers {', '.join(observed.observers)}: "
    return text + _ratio(observed.cost, observed.confidence)


def _ratio(cost: Cost | None, confidence: float) -> str:
    if cost is None:
        return "cost not measured, since no block has repetitions with and without them"
    ci = "no interval"
    if cost.ci is not None:
        ci = f"{words.level(confidence)} {cost.ci[0]:.3f} to {cost.ci[1]:.3f}"
    blocks = counted(cost.blocks, "block")
    return f"{cost.ratio:.3f} times the metric without them ({ci}, {blocks})"


def name(cell: CellChanges) -> str:
    """Return the name of a cell: its kernel and its setting."""
    return words.named(cell.label or cell.kernel, cell.setting)


def _count(cell: CellChanges) -> str:
    return f"{cell.changed or 'none'} of {cell.counters}"


def head(observed: Observed, cell: CellChanges) -> str:
    """Return how many counters of a cell changed."""
    return (
        f"{name(cell)} against {observed.baseline}, {counted(cell.blocks, 'block')}: "
        f"{_count(cell)} counters changed (false discovery rate {words.percent(observed.level)})"
    )


def titles(observed: Observed, cell: CellChanges) -> list[str]:
    """Return the headings of a table of counters."""
    level = words.level(observed.confidence)
    return ["counter", observed.baseline, name(cell), "difference", "ratio", level, "p (FDR)"]


def _table(observed: Observed, cell: CellChanges, markdown: bool, every: bool) -> str:
    text = head(observed, cell)
    if not cell.changes:
        return text
    from tabulate import tabulate

    shown = cell.changes if every else cell.changes[:_FIRST]
    text += "" if len(shown) == len(cell.changes) else f"; the first {_FIRST}"
    headings = titles(observed, cell)
    table = tabulate(
        [row(change) for change in shown],
        headers=headings,
        tablefmt="pipe" if markdown else "simple",
        disable_numparse=True,
        colalign=["left", *["right"] * (len(headings) - 1)],
    )
    return f"{text}\n\n{table}"


def _profile(observed: Observed, cell: CellChanges, markdown: bool) -> str:
    """Return the longest functions of both kernels side by side, with bars of the difference."""
    from tabulate import tabulate

    largest = max(abs(each.difference) for each in cell.functions) or 1.0
    rows = [
        [
            each.function,
            time(each.baseline),
            time(each.cell),
            time(each.difference, sign="+"),
            ("+" if each.difference > 0 else "-") * round(_BAR * abs(each.difference) / largest),
        ]
        for each in cell.functions
    ]
    table = tabulate(
        rows,
        headers=["function", observed.baseline, name(cell), "difference", ""],
        tablefmt="pipe" if markdown else "simple",
        disable_numparse=True,
        colalign=["left", "right", "right", "right", "left"],
    )
    return f"own time of functions per repetition, the longest first\n\n{table}"


def row(change: Change) -> list[str]:
    """Return the row of a counter, with the columns of `titles`."""
    name = change.counter
    return [
        name.removesuffix("nanoseconds") + "time" if is_time(name) else name,
        _value(name, change.baseline),
        _value(name, change.cell),
        _value(name, change.difference, sign="+"),
        _precise(change.ratio),
        "-" if change.ratio_ci is None else words.between(*map(_precise, change.ratio_ci)),
        words.p_value(change.p_corrected),
    ]


def _precise(ratio: float | None) -> str:
    """Return a ratio with three decimals below 10: counters may differ by a few events."""
    return words.ratio(ratio) if ratio is None or ratio >= 10 else f"{ratio:.3f}"


def _value(name: str, value: float, sign: str = "") -> str:
    if not is_time(name):
        return f"{value:{sign}.4g}" if abs(value) < 10_000 else f"{value:{sign}.0f}"
    return time(value, sign)


def time(nanoseconds: float, sign: str = "") -> str:
    """Return a time with a unit that fits; `sign` is that of times of 0 and above."""
    prefix = "-" if nanoseconds < 0 else sign
    return f"{prefix}{words.seconds(abs(nanoseconds) * _TIME_SECONDS)}"

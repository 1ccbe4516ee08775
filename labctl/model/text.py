"""Text of a prediction. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from labctl.model.types import Basis, Curve, Design, Point, Prediction, Series, Value
from labctl.reports import words
from labctl.units import counted, rough_size

_HASH_DIGITS = 12
_LOCKS = {
    Basis.MEASURED: "locks as measured",
    Basis.LEVELS: "locks as fitted",
    Basis.NO_WAITS: "no waits for locks",
    Basis.ALL_WAITS: "waits for locks only",
}
_DESIGNS = {
    Design.SERIAL: "one thread",
    Design.FREE: "one thread zaps and frees, workers free",
    Design.HAND_OVER: "one thread zaps, workers free all",
    Design.UNMAP: "the thread and the workers zap and free",
}
_LIMITS = {
    "zap": "zapping",
    "work": "all threads",
    "workers": "workers",
    "lists": "too few lists",
}


def render(document: Prediction, *, markdown: bool = False) -> str:
    """Return the text of a prediction, which ends in a newline."""
    parts = [_head(document), _list(_facts(document))]
    parts += [_titled("assumptions", _list(document.assumptions), markdown)]
    for series in document.series:
        title = f"{series.kernel}: estimated parameters"
        parts.append(_titled(title, _parameters(series, document, markdown), markdown))
    parts += [_titled(title, text, markdown) for title, text in curves(document, markdown)]
    if document.checks:
        title = "check: the model against the same run"
        parts.append(_titled(title, _list(_checks(document)), markdown))
    if document.unidentified:
        parts.append(_titled("not shown by the run", _list(document.unidentified), markdown))
    return "\n\n".join(parts) + "\n"


def _head(document: Prediction) -> str:
    target, cores = document.target, document.measured_cores
    there = f"{counted(target.cores, 'core')} and {counted(target.nodes, 'node')}"
    tcg = " under TCG emulation" if document.accel == "tcg" else ""
    here = f" on {counted(cores, 'core')}" if cores else ""
    return (
        f"PREDICTION, not a measurement: {document.operation} of "
        f"{rough_size(target.size_bytes)} on {there}, from a run{tcg}{here}"
    )


def _facts(document: Prediction) -> list[str]:
    """Return where the prediction comes from."""
    found = [
        f"run: {document.run}, experiment {document.experiment}",
        f"host of the run: {words.host(document.host)}",
        f"accelerator: {document.accel}",
        f"in the run: {rough_size(document.measured_bytes)}, placement {document.placement}, "
        f"pages of {counted(document.measured_nodes, 'node')} at a time",
    ]
    for series in document.series:
        hash_ = f", series {series.series[:_HASH_DIGITS]}" if series.series else ""
        found.append(f"kernel {series.kernel}: image {series.image[:_HASH_DIGITS]}{hash_}")
    return found


def _parameters(series: Series, document: Prediction, markdown: bool) -> str:
    """Return the table of the parameters of a kernel."""
    from tabulate import tabulate

    rows = [[one.name, f"{one.value:.2f}", _range(one), one.about] for one in series.parameters]
    names = ["parameter", "value", words.level(document.confidence), "meaning"]
    style = "github" if markdown else "simple"
    table = tabulate(rows, names, tablefmt=style, disable_numparse=True)
    blocks = counted(series.blocks, "block")
    workers = counted(series.workers, "worker")
    return f"{table}\n\nFrom {blocks} with {workers}, relative to {series.base}."


def _range(one: Value) -> str:
    return f"{one.ci[0]:.2f} to {one.ci[1]:.2f}"


def curves(document: Prediction, markdown: bool) -> Iterator[tuple[str, str]]:
    """Yield the title and the table of each kernel and design; ratios above 1 are faster."""
    from tabulate import tabulate

    level = words.level(document.confidence)
    style = "github" if markdown else "simple"
    for (kernel, design), group in groupby(document.curves, lambda c: (c.kernel, c.design)):
        own = list(group)
        title = f"{kernel}, {_DESIGNS[design]}: predicted ratio to {document.baseline} ({level})"
        if design is Design.SERIAL:
            yield title, f"{_point(own[0].points[0])}, for any number of cores"
            continue
        names = ["workers", *(_LOCKS[each.basis] for each in own), "limited by"]
        rows = [_row(own, index) for index in range(len(own[0].points))]
        yield title, tabulate(rows, names, tablefmt=style, disable_numparse=True)


def _row(own: Sequence[Curve], index: int) -> list[str]:
    points = [curve.points[index] for curve in own]
    limits = dict.fromkeys(_LIMITS[each.limit] for each in points)
    idle = points[0].workers - points[0].busy
    beyond = f", {idle} without a core" if idle else ""
    return [str(points[0].workers), *map(_point, points), " or ".join(limits) + beyond]


def _point(one: Point) -> str:
    """Return a predicted ratio with its interval, and the time where there is one."""
    if one.ratio is None or one.ci is None:
        return "-"
    text = f"{one.ratio:.2f} ({one.ci[0]:.2f} to {one.ci[1]:.2f})"
    return text if one.seconds is None else f"{text}, {words.seconds(one.seconds)}"


def _checks(document: Prediction) -> list[str]:
    """Return how far the model is off for other cells of the run."""
    found = []
    key = words.level(document.confidence)
    grouped = groupby(document.checks, lambda c: (c.kernel, c.workers))
    for (kernel, workers), group in grouped:
        texts = dict.fromkeys(
            f"{100 * c.deviation:+.0f} % ({100 * c.ci[0]:+.0f} to {100 * c.ci[1]:+.0f})"
            for c in group
        )
        found.append(
            f"{kernel}, {counted(workers, 'worker')}: the predicted speed is off by "
            f"{' or '.join(texts)} ({key})"
        )
    return found


def _titled(title: str, text: str, markdown: bool) -> str:
    head = f"### {title[0].upper()}{title[1:]}" if markdown else f"{title}:"
    return f"{head}\n\n{text}"


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)

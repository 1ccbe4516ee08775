"""The report of a run as a block for a cover letter: plain text, 72 columns. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from labctl.lab.metrics import MetricKind
from labctl.reports import failed, health, hosts, sentence, words
from labctl.runs.types import Settings
from labctl.stats.by_metric import by_metric
from labctl.stats.report_types import Cell, Experiment, Report

_COLUMNS = 72
_NAME_COLUMNS = 10
_HASH_DIGITS = 12
_INDENT = "  "
_TCG = "QEMU TCG emulation, where only ratios mean anything"


def render(document: Report) -> str:
    """Return setting, time, spread and ratio of each cell."""
    document = by_metric(document)
    parts = [
        _experiment(each) if each.cells else _fill(f"{each.name}: {sentence.sentence(each)}")
        for each in document.experiments
    ]
    return "\n\n".join([*parts, _facts(document)]) + "\n"


def _experiment(experiment: Experiment) -> str:
    cells, baseline = experiment.cells, experiment.baseline
    parameters = _parameters(cells)
    # `parameters` has the values that `set` changed.
    common = words.setting({k: v for k, v in (experiment.set or {}).items() if k not in parameters})
    metric = experiment.kind
    is_named = not metric.is_elapsed or experiment.metric_count > 1
    measured = "" if not is_named else f"{metric.name}, {metric.better} is better"
    conditions = "; ".join(filter(None, [words.parameters(parameters), common, measured]))
    paragraphs = [_fill(f"{experiment.name}: {conditions}" if conditions else experiment.name)]
    if experiment.control_differs:
        paragraphs.append(_fill(f"NOT TO BE TRUSTED: {experiment.warnings[0]}"))
    if warning := health.heading(experiment):
        paragraphs.append(_fill(f"WARNING: {warning}"))
    paragraphs += map(_fill, failed.findings(experiment))
    paragraphs.append(_table(experiment))
    noun = words.estimate_noun(metric).capitalize()
    blocks = health.counted_blocks(experiment)
    basis = f"{blocks}. {sentence.control(experiment)}. {noun}: {metric.formula(baseline)}."
    alone = sentence.corrected(experiment, "verdicts")
    notes = [basis, *([f"{alone[0].upper()}{alone[1:]}."] if alone else [])]
    rest = [*notes, *hosts.lines(experiment), *failed.lines(experiment.failures)]
    return "\n\n".join([*paragraphs, *map(_fill, rest)])


def _table(experiment: Experiment) -> str:
    from tabulate import tabulate

    cells = experiment.cells
    metric = experiment.kind
    level, noun = f"({words.level(experiment.confidence)})", words.estimate_noun(metric)
    rows = [
        (name, *_value(cell, metric), *_estimate(cell, metric))
        for name, cell in zip(words.names(cells), cells, strict=True)
    ]

    def lines(name_columns: int | None) -> list[str]:
        text = tabulate(
            rows,
            headers=["", "time" if metric.is_time else "value", "", noun, level, ""],
            tablefmt="plain",
            disable_numparse=True,
            colalign=("left", "right", "right", "right", "left", "left"),
            maxcolwidths=[name_columns],
        )
        return [line.rstrip() for line in text.splitlines()]

    found = lines(None)
    excess = max(map(len, found)) + len(_INDENT) - _COLUMNS
    if excess > 0:  # wrap long names
        found = lines(max(max(len(row[0]) for row in rows) - excess, _NAME_COLUMNS))
    return textwrap.indent("\n".join(found), _INDENT)


def _value(cell: Cell, metric: MetricKind) -> tuple[str, str]:
    value, spread = cell.median_seconds, cell.spread_percent
    if value is None:
        not_ok = ", ".join(f"{count} {status}" for status, count in cell.failed.items())
        return not_ok or "-", ""
    text = words.value(value, metric)
    if isinstance(cell.spread, float | int):
        return text.replace(" ", ""), f"±{words.spread(cell.spread, metric)}".replace(" ", "")
    return text.replace(" ", ""), "" if spread is None else f"±{spread:.1f}%"


def _estimate(cell: Cell, metric: MetricKind) -> tuple[str, str, str]:
    if cell.is_baseline:
        return "", "", ""
    ci = "" if cell.ci is None else f"({words.estimate_interval(cell.ci, metric)})"
    return words.estimate(cell, metric), ci, metric.spoken(cell.verdict)


def _parameters(cells: Sequence[Cell]) -> Settings:
    """Return the parameters that are the same in all cells."""
    first = cells[0].parameters
    return {
        name: value
        for name, value in first.items()
        if all(cell.parameters.get(name) == value for cell in cells)
    }


def _facts(document: Report) -> str:
    accel = document.accel
    workers = hosts.facts(document)
    own = "; ".join(f"{name}: {about}" for name, about in workers)
    lines = [
        f"{'Hosts' if workers else 'Host'}: {own or words.host(document.host)}; "
        f"{_TCG if accel == 'tcg' else accel.upper()}. "
        f"{_rows(document)}; all kernels take turns within a block. "
        f"labctl run {document.run}, seed {document.seed}."
    ]
    for name, kernel in document.kernels.items():
        series = kernel.series
        lines.append(
            f"{name}: {words.release(kernel)}, image {str(kernel.image or None)[:_HASH_DIGITS]}, "
            + (f"series {series[:_HASH_DIGITS]}" if series else "no series")
        )
    return "\n".join(map(_fill, [*lines, *document.notes]))


def _rows(document: Report) -> str:
    """Return what a row of values is."""
    scales = {each.kind.scale for each in document.experiments}
    of_ratios = "the geometric mean over blocks (a fresh boot each) of the robust mean of the "
    of_ratios += "repetitions, ± the coefficient of variation over blocks"
    means = "the mean over blocks (a fresh boot each), ± the standard deviation over blocks"
    if scales == {"difference"}:
        return f"Each row is {means}"
    more = f"; with differences, {means}" if "difference" in scales else ""
    return f"Each row is {of_ratios}{more}"


def _fill(text: str) -> str:
    return textwrap.fill(
        text,
        _COLUMNS,
        subsequent_indent=_INDENT,
        break_long_words=False,
        break_on_hyphens=False,  # paths stay whole
    )

"""The report of a run as text: for the terminal, or as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from labctl.lab.metrics import MetricKind, is_freebench
from labctl.reports import explanation, failed, health, hosts, seed, sentence, words
from labctl.stats.by_metric import by_metric
from labctl.stats.report_types import Cell, Experiment, Report, Second
from labctl.stats.stopping import FEWEST_BLOCKS
from labctl.stats.verdict import strict
from labctl.units import counted

Format = Literal["terminal", "markdown"]
ICOUNT_NOTE = (
    "the guest's clock counts instructions, 1 ns each, and its CPUs take turns: times are the cost"
    " of code, without caches, and not the speed of parallel work"
)
_DIFFERENCE = "A difference is the cell's mean minus that of the baseline and its A/A control. "
_HASH_DIGITS = 12


def render(document: Report, format: Format = "terminal", seed_figures: bool = True) -> str:  # noqa: A002
    """Return the report as text that ends in a newline.

    First warnings and one sentence for each experiment, then host and kernels, then the
    tables. `seed_figures` adds the times of the original patch series to the cells that
    repeat its measurements.
    """
    markdown = format == "markdown"
    document = by_metric(document)
    parts = [_findings(document, markdown), _facts(document, markdown)]
    shown = False
    for experiment in document.experiments:
        text, has_seed = _experiment(experiment, markdown, seed_figures)
        parts.append(text)
        shown = shown or has_seed
    parts.append(_notes(document, markdown, shown))
    return "\n\n".join(part for part in parts if part) + "\n"


def _findings(document: Report, markdown: bool) -> str:
    experiments = document.experiments
    lines = [f"{each.name}: {each.warnings[0]}" for each in experiments if each.control_differs]
    headings = ((each.name, health.heading(each)) for each in experiments)
    lines += [f"{name}: {heading}" for name, heading in headings if heading]
    lines += [f"{each.name}: {sentence.sentence(each)}" for each in experiments]
    if not document.finished:
        command = words.resume_command(document.run, is_imported=bool(document.imported))
        lines.append(f"the run is not finished: {command}")
    lines += document.notes
    return _list(lines, markdown)


def _facts(document: Report, markdown: bool) -> str:
    accel = document.accel
    lines = [
        f"run: {document.run}, seed {document.seed}",
        *_hosts(document),
        *([f"imported: {words.imported(document.imported)}"] if document.imported else []),
        f"accelerator: {accel}" + (f", {tcg_note(document)}" if accel == "tcg" else ""),
    ]
    for name, kernel in document.kernels.items():
        series = kernel.series
        what = [
            words.release(kernel),
            words.commit(kernel),
            f"image {str(kernel.image or None)[:_HASH_DIGITS]}",
            f"series {series[:_HASH_DIGITS]}" if series else "no series",
        ]
        lines.append(f"kernel {name}: {', '.join(filter(None, what))}")
    return _list(lines, markdown)


def tcg_note(document: Report) -> str:
    """Return what times under TCG mean."""
    where = "these hosts" if len(hosts.facts(document)) > 1 else "this host"
    return f"measured under TCG emulation: ratios only, and only on {where}"


def _hosts(document: Report) -> list[str]:
    workers = hosts.facts(document)
    if not workers:
        return [f"host: {words.host(document.host)}"]
    return [f"host {name}: {about}" for name, about in workers]


def _experiment(experiment: Experiment, markdown: bool, seed_figures: bool) -> tuple[str, bool]:
    cells = experiment.cells
    figures = _seed_column(experiment) if seed_figures else [None] * len(cells)
    columns = _columns(experiment, figures)
    break_line = " " if markdown else "\n"
    from tabulate import tabulate

    table = tabulate(
        list(zip(*columns.values(), strict=True)),
        headers=[break_line.join(name) for name in columns],
        tablefmt="pipe" if markdown else "simple",
        disable_numparse=True,
        colalign=["left", *["right"] * (len(columns) - 1)],
    )
    blocks = experiment.blocks
    metric = experiment.kind
    title = f"{experiment.name}: {_subject(cells)} against {experiment.baseline}, "
    title += counted(blocks, "block")
    is_named = not metric.is_elapsed or experiment.metric_count > 1
    title += "" if not is_named else f", {metric.name}: {metric.better} is better"
    parts = [f"### {title}" if markdown else title, table, _list(remarks(experiment), markdown)]
    return "\n\n".join(parts), any(figures)


def columns_of(experiment: Experiment) -> dict[tuple[str, ...], list[str]]:
    """Return the columns of an experiment's table by the words of their headings."""
    return _columns(experiment, _seed_column(experiment))


def remarks(experiment: Experiment) -> list[str]:
    """Return the lines below an experiment's table, the A/A control first."""
    cells = experiment.cells
    return [
        sentence.control(experiment),
        *hosts.lines(experiment),
        *failed.findings(experiment),
        *failed.lines(experiment.failures),
        *_one_by_one(experiment),
        *_ended_early(experiment),
        *_could_see(experiment),
        *health.lines(experiment),
        *map(sentence.curve, experiment.curves),
        *_handovers(cells),
        *_placement(experiment),
        *(explanation.lines(experiment.observed) if experiment.observed else ()),
        *(line for each in experiment.passes or () for line in explanation.lines(each)),
        *experiment.warnings,
    ]


def _placement(experiment: Experiment) -> list[str]:
    known = experiment.placement  # runs of older versions have none
    lines = [f"guest: {words.placement(known)}"] if known else []
    if experiment.guest and experiment.guest.get("icount"):
        lines.append(ICOUNT_NOTE)
    return lines


def _columns(
    experiment: Experiment, figures: Sequence[seed.SeedFigure | None]
) -> dict[tuple[str, ...], list[str]]:
    cells = experiment.cells
    level = words.level(experiment.confidence)
    metric = experiment.kind
    measured = "time" if metric.is_elapsed else metric.name
    columns = {
        ("cell",): words.names(cells),
        (f"{measured} ± {'SD' if metric.is_difference else 'CV'}", "across", "blocks"): [
            _value(cell, metric) for cell in cells
        ],
        (words.estimate_noun(metric),): [words.estimate(cell, metric) for cell in cells],
        (level,): [words.estimate_interval(cell.ci, metric) for cell in cells],
        ("p", "(Holm)"): [words.p_value(cell.p_corrected) for cell in cells],
        ("verdict",): [metric.spoken(cell.verdict) for cell in cells],
    }
    if any(cell.memory_back for cell in cells):
        columns["memory", "back", "(ratio)"] = [
            words.ratio(cell.memory_back.ratio if cell.memory_back else None) for cell in cells
        ]
    if any(cell.cpu for cell in cells):
        columns["CPU time", "of", "baseline"] = [_of_baseline(cell.cpu) for cell in cells]
    if any(cell.failed for cell in cells):
        columns[("not ok",)] = [_failed(cell) for cell in cells]
    if any(figures):
        columns["seed (144", "threads,", "320 GB)"] = [_seed(figure) for figure in figures]
    return columns


def _of_baseline(second: Second | None) -> str:
    """Return a second metric as a multiple of the baseline's."""
    return words.ratio(1 / second.ratio) if second and second.ratio else "-"


def _subject(cells: Sequence[Cell]) -> str:
    kernels = dict.fromkeys(cell.kernel for cell in cells if not cell.is_baseline)
    return " and ".join(kernels) or "nothing"


def _value(cell: Cell, metric: MetricKind) -> str:
    value, spread = cell.median_seconds, cell.spread_percent
    if value is None:
        return "-"
    text = words.value(value, metric)
    if metric.is_difference:
        own = cell.spread
        return f"{text} ± {words.spread(own, metric)}" if isinstance(own, float | int) else text
    return text if spread is None else f"{text} ± {spread:.0f} %"


def _failed(cell: Cell) -> str:
    return ", ".join(f"{count} {status}" for status, count in cell.failed.items())


def _seed_column(experiment: Experiment) -> list[seed.SeedFigure | None]:
    cells, metric = experiment.cells, experiment.kind
    if metric.is_difference or not (metric.is_elapsed and is_freebench(metric.command)):
        return [None] * len(cells)  # the original series timed free() only
    figures = [
        None if cell.is_baseline else seed.figure(cell.kernel, cell.setting, cell.parameters)
        for cell in cells
    ]
    if not any(figures):
        return figures
    return [
        seed.STOCK if cell.is_baseline else figure
        for cell, figure in zip(cells, figures, strict=True)
    ]


def _seed(figure: seed.SeedFigure | None) -> str:
    return "" if figure is None else f"{figure.ratio:.2f} ({figure.seconds:.4g} s)"


def _ended_early(experiment: Experiment) -> list[str]:
    """Return a line that names the cells that stopped early."""
    most = max((cell.blocks_visited for cell in experiment.cells), default=0)
    ended = [
        f"{words.cell(cell)} in {cell.blocks_visited}"
        for cell in experiment.cells
        if FEWEST_BLOCKS <= cell.blocks_visited < most
    ]
    if not ended:
        return []
    return [
        f"measured in fewer than {most} blocks, because the interval was narrow enough: "
        f"{', '.join(ended)}"
    ]


def _one_by_one(experiment: Experiment) -> list[str]:
    """Return what the intervals do not cover: other cells, and other runs."""
    if not any(cell.ci for cell in experiment.compared):
        return []
    level = words.level(experiment.confidence)
    lines = [f"{level}: of this run; another run differs by more (`labctl compare` adds that)"]
    corrected = sentence.corrected(experiment, "p and verdicts")
    return [*lines, corrected] if corrected else lines


def _could_see(experiment: Experiment) -> list[str]:
    effects = [cell.smallest_effect for cell in experiment.cells if cell.smallest_effect]
    if not effects:
        return []
    metric, aa = experiment.kind, experiment.aa_control

    def shown(effect: float) -> str:
        return words.value(effect, metric) if metric.is_difference else words.percent(effect)

    least, most = shown(min(effects)), shown(max(effects))
    span = most if least == most else f"{least.removesuffix(' %')} to {most}"
    control = (
        f"; of the A/A control {shown(aa.smallest_effect)}" if aa and aa.smallest_effect else ""
    )
    return [f"minimum detectable effect (80 % power): {span}{control}"]


def _handovers(cells: Sequence[Cell]) -> list[str]:
    counts = {words.cell(cell): cell.handovers for cell in cells if cell.handovers is not None}
    if not counts:
        return []
    patched = [cell for cell in cells if not cell.is_baseline]
    if len(set(counts.values())) == 1 and len(counts) == len(patched):
        every = " in every patched cell" if len(counts) > 1 else ""
        return [f"handovers per repetition (median): {next(iter(counts.values())):g}{every}"]
    each = ", ".join(f"{name}: {count:g}" for name, count in counts.items())
    return [f"handovers per repetition (median): {each}"]


def _notes(document: Report, markdown: bool, shows_seed: bool) -> str:
    if not document.experiments:
        return ""
    metrics = [each.kind for each in document.experiments]
    ratios = sorted({e.minimum_effect for e in document.experiments if not e.kind.is_difference})
    margins = [f"{' or '.join(f'{100 * margin:.3g}' for margin in ratios)} %"] if ratios else []
    differences = [each for each in document.experiments if each.kind.is_difference]
    margins += [f"{words.effect(e.minimum_effect, e.kind)} ({e.kind.name})" for e in differences]
    margin = " or ".join(dict.fromkeys(margins))
    verdicts = dict.fromkeys(
        f"{each.spoken('faster')} and {each.spoken('slower')}" for each in metrics
    )
    shown = ", ".join(verdicts)
    scales = ["A ratio above 1 is better than the baseline. "] if ratios else []
    scales += [_DIFFERENCE] if differences else []
    lines = [
        f"{''.join(scales)}{shown[0].upper()}{shown[1:]}: shown to be beyond {margin}; same: shown "
        "to be within.",
    ]
    cells = [cell for each in document.experiments for cell in each.cells]
    if any(cell.p_corrected is not None for cell in cells):
        levels = sorted({1 - strict(each.confidence) for each in document.experiments})
        below = " or ".join(f"{level:.3g}" for level in levels)
        lines.append(f"p: of any difference at all; it counts below {below}.")
    if any(cell.memory_back for cell in cells):
        lines.append(
            "Memory back: the time until every node has its memory back, the baseline's over "
            "the cell's."
        )
    if any(cell.cpu for cell in cells):
        lines.append(
            "CPU time: of the operation and of everything that ran during it, workers included."
        )
    if shows_seed:
        lines.append(
            f"The seed's figures are of other hardware ({seed.CONDITIONS}; {seed.SOURCE}): "
            "compare the order of the ratios, not the times."
        )
    return _list(lines, markdown)


def _list(lines: Sequence[str], markdown: bool) -> str:
    if markdown:
        return "\n".join(f"- {line}" for line in lines)
    import textwrap

    return "\n".join(
        textwrap.fill(
            line, width=100, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
        for line in lines
    )

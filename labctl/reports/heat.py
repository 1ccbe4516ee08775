"""Heat maps of matrices of two tunables, as tables. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from labctl.reports import words
from labctl.reports.grid import verdict_style
from labctl.runs.sample import Scalar
from labctl.stats.report_types import Cell, Experiment
from labctl.stats.scale import margin_of

_STEPS = 4  # colours on each side of no gain
_MOST_MAPS = 12


@dataclass(frozen=True, slots=True)
class Heat:
    """The cells of one kernel over two tunables, `down` and `across`; `rest` is the same."""

    kernel: str
    down: str
    across: str
    rest: dict[str, Scalar]
    cells: Sequence[Cell]

    @property
    def name(self) -> str:
        """The name of the map; unique in an experiment."""
        return f"{words.named(self.kernel, self.rest)}: {self.down} and {self.across}"


def maps_of(experiment: Experiment) -> list[Heat]:
    """Return a map for each kernel with two or more tunables of two or more values each.

    Of more tunables, the two with the most values are the sides; the others give a map
    for each of their settings.
    """
    found = []
    for kernel in dict.fromkeys(cell.kernel for cell in experiment.compared):
        own = [cell for cell in experiment.compared if cell.kernel == kernel and cell.setting]
        found += list(_of_kernel(kernel, own))
    return found[:_MOST_MAPS]


def _of_kernel(kernel: str, cells: Sequence[Cell]) -> Iterator[Heat]:
    values = {name: _values(cells, name) for name in {n: 0 for c in cells for n in c.setting}}
    varied = [name for name, each in values.items() if len(each) > 1]
    sides = sorted(varied, key=lambda name: (-len(values[name]), varied.index(name)))[:2]
    full = [cell for cell in cells if cell.setting.keys() >= set(sides)]
    if len(sides) < 2 or not full:
        return
    across, down = sides
    groups: dict[tuple[tuple[str, Scalar], ...], list[Cell]] = {}
    for cell in full:
        rest = tuple((name, v) for name, v in cell.setting.items() if name not in sides)
        groups.setdefault(rest, []).append(cell)
    for rest, own in groups.items():
        if min(len(_values(own, name)) for name in sides) > 1:
            yield Heat(kernel, down, across, dict(rest), own)


def _values(cells: Sequence[Cell], name: str) -> list[Scalar]:
    """Return the values of a tunable: numbers by size, else in the order of the cells."""
    found = list(dict.fromkeys(cell.setting[name] for cell in cells if name in cell.setting))
    if all(isinstance(each, int | float) for each in found):
        return sorted(found, key=float)
    return found


def table(heat: Heat, experiment: Experiment, *, widest: float) -> str:
    """Return a map as a table: ratio or difference and verdict in each cell, with a colour.

    `widest` is the largest absolute gain; it has the strongest colour.
    """
    across, down = _values(heat.cells, heat.across), _values(heat.cells, heat.down)
    of = {(cell.setting[heat.down], cell.setting[heat.across]): cell for cell in heat.cells}
    head = "".join(f'<th scope="col">{escape(str(value))}</th>' for value in across)
    rows = "\n".join(
        f'<tr><th scope="row">{escape(f"{heat.down}={one}")}</th>'
        + "".join(_field(of.get((one, other)), experiment, widest) for other in across)
        + "</tr>"
        for one in down
    )
    name = f"{experiment.name}, {heat.name}"
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{escape(name)}">'
        f'<table class="heat"><caption>{escape(name)}</caption>'
        f'<thead><tr><td></td><th scope="colgroup" colspan="{len(across)}">'
        f"{escape(heat.across)}</th></tr><tr><td></td>{head}</tr></thead>\n"
        f"<tbody>{rows}</tbody></table></div>"
    )


def widest(maps: Sequence[Heat], experiment: Experiment) -> float:
    """Return the largest absolute gain in maps, at least that of the minimum effect."""
    gains = [words.gain(cell, experiment.kind) for heat in maps for cell in heat.cells]
    return max([margin_of(experiment.minimum_effect, experiment.kind), *map(abs, gains)])


def _field(cell: Cell | None, experiment: Experiment, widest: float) -> str:
    if cell is None:
        return '<td class="none">not measured</td>'
    verdict = experiment.kind.spoken(cell.verdict)
    if cell.estimate is None:
        return f'<td class="none">{escape(verdict)}</td>'
    value = experiment.kind
    measured = "" if cell.median_seconds is None else words.value(cell.median_seconds, value)
    level, estimate = words.level(experiment.confidence), words.estimate(cell, value)
    text = (
        f"{words.cell(cell)}: {words.estimate_noun(value)} {estimate}, {level} "
        f"{words.estimate_interval(cell.ci, value)}; {verdict}"
        + (f"; {measured}" if measured else "")
    )
    return (
        f'<td class="{_colour(words.gain(cell, value), widest)} {verdict_style(cell.verdict)}" '
        f'title="{escape(text)}">{escape(estimate)} <span>{escape(verdict)}</span></td>'
    )


def _colour(gain: float, widest: float) -> str:
    step = round(_STEPS * gain / widest)
    return f"better-{step}" if step > 0 else f"worse-{-step}" if step < 0 else "equal"

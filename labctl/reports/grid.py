"""Tables of a page: readable without a script, sortable and filterable with it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from labctl.reports import table
from labctl.stats.kinds import Verdict
from labctl.stats.report_types import Cell, Experiment


@dataclass(frozen=True, slots=True)
class Entry:
    """One table cell. `key` sorts it if its text does not; `href` makes it a link."""

    text: str
    key: float | None = None
    style: str = ""
    href: str = ""


def grid(caption: str, headings: Sequence[str], rows: Sequence[Sequence[str | Entry]]) -> str:
    """Return a table that scrolls sideways in a narrow window; the first column names its row.

    `caption` must be unique in the page.
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in headings)
    body = "\n".join(f"<tr>{''.join(map(_entry, range(len(row)), row))}</tr>" for row in rows)
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{escape(caption)}">'
        f'<table class="grid"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def _entry(column: int, entry: str | Entry) -> str:
    one = Entry(entry) if isinstance(entry, str) else entry
    tag, scope = ("td", "") if column else ("th", ' scope="row"')
    key = "" if one.key is None else f' data-key="{one.key:.9g}"'
    style = f' class="{escape(one.style)}"' if one.style else ""
    text = escape(one.text)
    text = f'<a href="{escape(one.href)}">{text}</a>' if one.href else text
    return f"<{tag}{scope}{key}{style}>{text}</{tag}>"


def of_experiment(experiment: Experiment) -> str:
    """Return the table of an experiment's cells."""
    columns = table.columns_of(experiment)
    entries = [
        [
            Entry(text, key=_key(words[0], cell), style=_style(words[0], cell))
            for cell, text in zip(experiment.cells, texts, strict=True)
        ]
        for words, texts in columns.items()
    ]
    return grid(
        f"Cells of {experiment.name}",
        [" ".join(words) for words in columns],
        list(zip(*entries, strict=True)),
    )


# By the first word of a heading; the heading of values has the metric's name.
_KEYS: Mapping[str, Callable[[Cell], float | None]] = {
    "ratio": lambda cell: cell.ratio,
    "difference": lambda cell: cell.estimate,
    "p": lambda cell: cell.p_corrected,
    "memory": lambda cell: cell.memory_back.ratio if cell.memory_back else None,
    "CPU time": lambda cell: 1 / cell.cpu.ratio if cell.cpu and cell.cpu.ratio else None,
    "not ok": lambda cell: sum(cell.failed.values()) or None,
}


def _key(heading: str, cell: Cell) -> float | None:
    if heading.endswith((" ± CV", " ± SD")):
        return cell.median_seconds
    if heading.endswith(" CI"):
        return cell.ci[0] if cell.ci else None
    return _KEYS[heading](cell) if heading in _KEYS else None


def _style(heading: str, cell: Cell) -> str:
    return verdict_style(cell.verdict) if heading == "verdict" else ""


def verdict_style(verdict: Verdict) -> str:
    """Return the class of a verdict in the page's style."""
    return f"is-{verdict}"

"""The report of a run as one HTML file that needs no network. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from types import MappingProxyType

from labctl.lab.metrics import is_freebench
from labctl.reports import facts, health, plots, sentence, table
from labctl.runs.sample import Sample
from labctl.stats.report_types import Experiment, Report
from labctl.status import SampleStatus

_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
h3 { font-size: 1rem; margin-top: 1.5rem; } ul { padding-left: 1.2rem; }
.found { font-size: 1.1rem; } .suspect { color: #d33; font-weight: bold; }
.wide { overflow-x: auto; background: /* a shadow where a table goes on */
  linear-gradient(to right, Canvas 50%, transparent) left / 2rem 100% no-repeat local,
  linear-gradient(to left, Canvas 50%, transparent) right / 2rem 100% no-repeat local,
  linear-gradient(to right, #8888, transparent) left / .7rem 100% no-repeat scroll,
  linear-gradient(to left, #8888, transparent) right / .7rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #8886; text-align: right; }
th { vertical-align: bottom; }
td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1.5rem 0; } figcaption { font-size: .85rem; opacity: .8; }
svg { width: 100%; max-width: 38rem; height: auto; }
code, pre { font-family: ui-monospace, monospace; font-size: .85rem; }
pre { overflow-x: auto; }
dt { font-weight: 600; } dd { margin: 0 0 .5rem 0; overflow-wrap: anywhere; }
summary { cursor: pointer; margin: .5rem 0; }
@media (max-width: 40rem) {
  table { font-size: .8rem; } th, td { padding: .2rem .3rem; }
}
@media print {
  body { max-width: none; font-size: 10pt; padding: 0; }
  .wide { overflow: visible; background: none; }
  table { font-size: 7.5pt; } th, td { padding: 1pt 3pt; }
  td:first-child { white-space: normal; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  h2, h3 { break-after: avoid; } figure, table { break-inside: avoid; }
  svg { max-width: 12cm; }
}
"""


def render(
    document: Report,
    samples: Sequence[Sample],
    *,
    lab: str = "",
    guests: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return the page: results, tables, plots, host and guests, and how to repeat the run.

    `lab` is the text of the lab.yaml, `guests` are QEMU's command lines by the guest's name.
    """
    title = f"labctl {document.run}"
    body = [
        f"<h1>{escape(title)}</h1>",
        *_found(document),
        *(
            part
            for each in document.experiments
            for part in _experiment(
                each, [sample for sample in samples if sample.experiment == each.name]
            )
        ),
        *facts.measured_on(document),
        *facts.commands(document, lab, guests),
    ]
    return whole(title, body)


def whole(title: str, body: Sequence[str]) -> str:
    """Return a whole page; `body` is HTML, `title` is text."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            '<head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style></head>",
            "<body>",
            *body,
            "</body></html>\n",
        ]
    )


def _found(document: Report) -> list[str]:
    basis = f"{document.accel.upper()}, {document.host.cores or '?'} cores"
    lines = []
    for each in document.experiments:
        if each.control_differs:
            lines.append(f'<p class="suspect">{escape(each.name)}: {escape(_first(each))}</p>')
        if loaded := health.heading(each):
            lines.append(f'<p class="suspect">{escape(each.name)}: {escape(loaded)}</p>')
        result = f"{sentence.sentence(each)}. {basis}."
        lines.append(f'<p class="found"><b>{escape(each.name)}</b>: {escape(result)}</p>')
    if document.accel == "tcg":
        lines.append(f"<p>{escape(table.TCG_NOTE[0].upper() + table.TCG_NOTE[1:])}.</p>")
    if not document.finished:
        lines.append(
            f"<p>The run is not finished: <code>labctl run --resume {document.run}</code></p>"
        )
    lines += [f"<p>{escape(note)}</p>" for note in document.notes]
    return lines


def _first(experiment: Experiment) -> str:
    return str(next(iter(experiment.warnings), "the baseline differs from itself"))


def _experiment(experiment: Experiment, samples: Sequence[Sample]) -> list[str]:
    notes = "".join(f"<li>{escape(line)}</li>" for line in table.remarks(experiment))
    parts = [
        f"<h2>{escape(experiment.name)}</h2>",
        f'<div class="wide">{table.as_html(experiment)}</div>',
        f"<ul>{notes}</ul>",
    ]
    if any(cell.ratio and cell.ci for cell in experiment.cells):
        parts.append(figure(plots.intervals(experiment), "Ratios, each with its interval."))
    metric = experiment.kind
    with_seed = metric.is_elapsed and is_freebench(metric.command)
    for fitted in experiment.curves:
        parts.append(figure(plots.curve(fitted, with_seed=with_seed), sentence.curve(fitted)))
    if any(sample.status == SampleStatus.OK for sample in samples):
        parts.append(_over_time(experiment, samples))
    return [*parts, *facts.placement(samples)]


def _over_time(experiment: Experiment, samples: Sequence[Sample]) -> str:
    svg, drawn, count = plots.over_time(experiment, samples)
    caption = "Every repetition when it was made: a drift of the host would be seen here."
    if drawn < count:
        caption = (
            f"{drawn:,} of {count:,} repetitions, when they were made: of each kernel and each "
            "stretch of time the shortest, the middle and the longest, so that no outlier is "
            "missing. A drift of the host would be seen here."
        )
    if any(sample.disturbed for sample in samples):
        caption += " A cross was disturbed by the host."
    return figure(svg, caption)


def figure(svg: str, caption: str) -> str:
    """Return a plot with its caption."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"

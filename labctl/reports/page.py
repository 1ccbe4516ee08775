"""A report as one HTML file that needs no network. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from labctl.reports import health, plots, sentence, table, words
from labctl.results.store import Sample

_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }
.found { font-size: 1.1rem; } .suspect { color: #d33; font-weight: bold; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #8886; text-align: right; }
th { vertical-align: bottom; }
td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1.5rem 0; } figcaption { font-size: .85rem; opacity: .8; }
svg { width: 100%; max-width: 44rem; height: auto; }
code, pre { font-family: ui-monospace, monospace; font-size: .85rem; }
pre { overflow-x: auto; } dd { margin: 0 0 .5rem 0; overflow-wrap: anywhere; }
@media print { body { max-width: none; } h2, figure, table { break-inside: avoid; } }
"""


def render(document: Mapping[str, Any], samples: Sequence[Sample]) -> str:
    """Return the report as a page: what was found, tables, plots, on what, and how to repeat it."""
    title = f"labctl {document['run']}"
    body = [
        f"<h1>{escape(title)}</h1>",
        *_found(document),
        *(
            part
            for each in document["experiments"]
            for part in _experiment(
                each, [sample for sample in samples if sample.experiment == each["name"]]
            )
        ),
        *_facts(document),
        *_commands(document),
    ]
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


def _found(document: Mapping[str, Any]) -> list[str]:
    basis = f"{document['accel'].upper()}, {document['host'].get('cores', '?')} cores"
    lines = []
    for each in document["experiments"]:
        if sentence.is_suspect(each):
            lines.append(f'<p class="suspect">{escape(each["name"])}: {escape(_first(each))}</p>')
        if loaded := health.heading(each):
            lines.append(f'<p class="suspect">{escape(each["name"])}: {escape(loaded)}</p>')
        said = f"{sentence.sentence(each)}. {basis}."
        lines.append(f'<p class="found"><b>{escape(each["name"])}</b>: {escape(said)}</p>')
    if document["accel"] == "tcg":
        lines.append(f"<p>{escape(table.TCG_NOTE[0].upper() + table.TCG_NOTE[1:])}.</p>")
    if not document.get("finished", True):
        lines.append(
            f"<p>The run is not finished: <code>labctl run --resume {document['run']}</code></p>"
        )
    lines += [f"<p>{escape(note)}</p>" for note in document["notes"]]
    return lines


def _first(experiment: Mapping[str, Any]) -> str:
    return str(next(iter(experiment["warnings"]), "the baseline differs from itself"))


def _experiment(experiment: Mapping[str, Any], samples: Sequence[Sample]) -> list[str]:
    notes = "".join(f"<li>{escape(line)}</li>" for line in table.remarks(experiment))
    parts = [
        f"<h2>{escape(experiment['name'])}</h2>",
        f'<div class="wide">{table.as_html(experiment)}</div>',
        f"<ul>{notes}</ul>",
    ]
    if any(cell["ratio"] and cell["ci"] for cell in experiment["cells"]):
        parts.append(_figure(plots.intervals(experiment), "Ratios, each with its interval."))
    for fitted in experiment.get("curves", []):
        parts.append(_figure(plots.curve(fitted), sentence.curve(fitted)))
    if any(sample.status == "ok" for sample in samples):
        caption = "Every repetition when it was made: a drift of the host would be seen here."
        parts.append(_figure(plots.over_time(experiment, samples), caption))
    return parts


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _facts(document: Mapping[str, Any]) -> list[str]:
    rows = [
        ("host", words.host(document["host"])),
        ("accelerator", document["accel"]),
        ("seed", str(document.get("seed"))),
    ]
    for name, kernel in document["kernels"].items():
        series = kernel.get("series")
        what = [
            kernel.get("release"),
            f"image {kernel.get('image')}",
            f"series {series}" if series else "no series",
            kernel.get("compiler"),
        ]
        rows.append((name, ", ".join(str(each) for each in what if each)))
    facts = "".join(f"<dt>{escape(what)}</dt><dd>{escape(said)}</dd>" for what, said in rows)
    return ["<h2>Measured on</h2>", f"<dl>{facts}</dl>"]


def _commands(document: Mapping[str, Any]) -> list[str]:
    names = " ".join(each["name"] for each in document["experiments"])
    lines = [
        f"labctl run {names} --seed {document.get('seed')}",
        f"labctl report {document['run']}",
        f"labctl export {document['run']} --format csv",
    ]
    return ["<h2>To repeat it</h2>", f"<pre>{escape(chr(10).join(lines))}</pre>"]

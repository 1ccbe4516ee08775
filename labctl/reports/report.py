"""From a run's folder to its report: samples -> comparisons -> document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from labctl.reports import mail, table
from labctl.reports.document import document
from labctl.results import runs
from labctl.results.stats import compare

FORMATS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "terminal": table.render,
    "markdown": partial(table.render, format="markdown"),
    "cover-letter": mail.render,
}


def document_of(folder: Path, run_id: str) -> dict[str, Any]:
    """Return the report of a run in `folder` as one JSON object.

    Raises:
        UserError: there is no such run, or its files are damaged.
    """
    run = runs.resolve(folder, run_id)
    record = run.read()
    samples = run.store.samples()
    results = [
        compare(
            [sample for sample in samples if sample.experiment == experiment["name"]],
            name=experiment["name"],
            baseline=experiment["baseline"],
            confidence=experiment["confidence"],
            minimum_effect=experiment["minimum_effect"],
            better=experiment["better"],
        )
        for experiment in record["experiments"]
    ]
    return document(record, results)


def found_a_problem(content: dict[str, Any]) -> bool:
    """Return whether a script should stop at this report: something slower, or a failure."""
    cells = [cell for experiment in content["experiments"] for cell in experiment["cells"]]
    return any(cell["verdict"] == "slower" or cell["failed"] for cell in cells)

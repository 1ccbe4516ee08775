"""From a run's folder to its report: samples -> comparisons -> document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from labctl.reports.document import document
from labctl.reports.table import render
from labctl.results import runs
from labctl.results.stats import compare

__all__ = ["document_of", "found_a_problem", "render"]


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

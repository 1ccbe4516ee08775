"""A stored run as a report to KCIDB, the common database of kernel CI systems. Pure.

Schema 5.3 of https://github.com/kernelci/kcidb-io. Each kernel is a checkout and a
build. The repetitions of a cell in a block are one test with a number, or a failure.
Each comparison is another test, which fails if the cell is slower.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from labctl.arch import X86_64
from labctl.lab.names import safe_name
from labctl.reports import failed, words
from labctl.reports.blocks import middle
from labctl.runs.sample import Sample
from labctl.runs.types import Kernel
from labctl.stats.kinds import Verdict
from labctl.stats.report_types import Cell, Experiment, Report
from labctl.status import SampleStatus

_VERSION = {"major": 5, "minor": 3}
# The submitter replaces it by the name that KCIDB has for the CI system.
ORIGIN = "labctl"
# ERROR means that the test has no result.
_STATUS: Mapping[str, str] = {
    **dict.fromkeys(
        (
            SampleStatus.PANIC,
            SampleStatus.SPLAT,
            SampleStatus.HUNG,
            SampleStatus.BOOT_FAILED,
            SampleStatus.EXERCISED,
        ),
        "FAIL",
    ),
    **dict.fromkeys(
        (
            SampleStatus.DEADLINE,
            SampleStatus.LOST,
            SampleStatus.BAD_OUTPUT,
            SampleStatus.TUNABLE_REFUSED,
        ),
        "ERROR",
    ),
    SampleStatus.OK: "DONE",
    **dict.fromkeys((SampleStatus.NOT_EXERCISED, SampleStatus.SKIPPED), "SKIP"),
}
_VERDICTS = {
    Verdict.FASTER: "PASS",
    Verdict.SAME: "PASS",
    Verdict.SLOWER: "FAIL",
    Verdict.UNDECIDED: "SKIP",
}


def kcidb(document: Report, samples: Sequence[Sample]) -> str:
    """Return checkouts, builds and tests as one JSON object."""
    kernels = {sample.kernel for sample in samples}
    shown = {name: each for name, each in document.kernels.items() if name in kernels}
    of_experiment = {each.name: each for each in document.experiments}
    tests = [
        _block(document, of_experiment[block[0].experiment], block) for block in _blocks(samples)
    ]
    tests += [
        _verdict(document, experiment, cell)
        for experiment in document.experiments
        for cell in experiment.cells
        if cell.verdict in _VERDICTS and cell.kernel in shown
    ]
    content = {
        "version": _VERSION,
        "checkouts": [_checkout(name, kernel) for name, kernel in shown.items()],
        "builds": [_build(name, kernel) for name, kernel in shown.items()],
        "tests": tests,
    }
    return json.dumps(content, indent=1) + "\n"


def _checkout(name: str, kernel: Kernel) -> dict[str, Any]:
    # KCIDB hashes the patches alone, the lab also how they are applied: the hashes differ,
    # so only the absence of patches is reported.
    patches = {} if kernel.series else {"patchset_hash": ""}
    return {
        "id": _id("checkout", kernel.image or ""),
        "origin": ORIGIN,
        "comment": f"{name}, {kernel.release or None}",
        "valid": True,
        **patches,
        "misc": {"series": kernel.series or None, "patches": list(kernel.patches or ())},
    }


def _build(name: str, kernel: Kernel) -> dict[str, Any]:
    compiler = kernel.compiler
    return {
        "id": _id("build", kernel.image or ""),
        "checkout_id": _id("checkout", kernel.image or ""),
        "origin": ORIGIN,
        "comment": name,
        "architecture": kernel.arch or X86_64.name,
        **({"compiler": compiler} if compiler else {}),
        "status": "PASS",
        "misc": {"image": kernel.image or None, "release": kernel.release or None},
    }


def _blocks(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Return the repetitions of each cell in each block."""
    groups: dict[tuple[str, str, int], list[Sample]] = {}
    for sample in samples:
        if not sample.warmup:
            groups.setdefault((sample.experiment, sample.cell, sample.block), []).append(sample)
    return [groups[key] for key in sorted(groups)]


def _block(document: Report, experiment: Experiment, samples: Sequence[Sample]) -> dict[str, Any]:
    first = samples[0]
    found = [_STATUS[sample.status] for sample in samples]
    status = next(each for each in ("FAIL", "ERROR", "DONE", "SKIP") if each in found)
    values = [s.value for s in samples if s.status == SampleStatus.OK and s.value is not None]
    messages = dict.fromkeys(s.message for s in samples if s.message)
    test: dict[str, Any] = {
        "id": _id(first.run, first.experiment, first.cell, str(first.block)),
        "build_id": _id("build", document.kernels[first.kernel].image or ""),
        "origin": ORIGIN,
        "path": _path(first.experiment, first.setting),
        "status": status,
        "start_time": first.started_at,
        "environment": _environment(document, first.accel),
        "misc": {
            "block": first.block,
            "boot_id": first.boot_id,
            "control": first.control,
            "repetitions": len(values),
            "disturbed": next((s.disturbed for s in samples if s.disturbed), ""),
            "parameters": first.parameters,
            "console": next((s.console for s in samples if _STATUS[s.status] != "DONE"), ""),
        },
    }
    if status == "DONE":
        test["number"] = {"value": middle(values, experiment.kind), "unit": _unit(experiment)}
    if messages:
        test["log_excerpt"] = _plain("\n".join(messages))[:16384]
    return test


def _verdict(document: Report, experiment: Experiment, cell: Cell) -> dict[str, Any]:
    metric, found_value = experiment.kind, cell.estimate
    verdict, noun = metric.spoken(cell.verdict), words.estimate_noun(metric)
    result = f"{verdict}: {noun} {words.estimate(cell, metric)} to {experiment.baseline}"
    keys = ("ci", "p_corrected", "blocks", "verdict", "reason", "failed")
    found = {_STATUS[status] for status in cell.failed}
    # A failure of the kernel is FAIL; a failure of the workload is not the kernel's.
    status = next((each for each in ("FAIL", "ERROR") if each in found), _VERDICTS[cell.verdict])
    crashes = failed.findings(experiment, cell.kernel)
    if cell.verdict is Verdict.SLOWER or crashes:
        status = "FAIL"
    reasons = [*crashes, *failed.of_cell(experiment.failures, cell.cell)]
    return {
        "id": _id(document.run, experiment.name, cell.cell, "verdict"),
        "build_id": _id("build", document.kernels[cell.kernel].image or ""),
        "origin": ORIGIN,
        "path": f"{_path(experiment.name, cell.setting)}.against_baseline",
        "comment": f"{result}, {words.estimate_interval(cell.ci, metric)}",
        "status": status,
        "environment": _environment(document, document.accel),
        **({} if found_value is None else {"number": _number(found_value, experiment)}),
        **({"log_excerpt": _plain("\n".join(reasons))[:16384]} if reasons else {}),
        "misc": {noun: found_value, **{key: getattr(cell, key) for key in keys}},
    }


def _number(value: float, experiment: Experiment) -> dict[str, Any]:
    """Return a ratio, or a difference with its unit."""
    unit = {"unit": _unit(experiment)} if experiment.kind.is_difference else {}
    return {"value": value, **unit}


def _environment(document: Report, accel: str) -> dict[str, Any]:
    return {
        "comment": f"{words.host(document.host)}, {accel}",
        "misc": {"accel": accel, "host": document.host.id or None},
    }


def _unit(experiment: Experiment) -> str:
    metric = experiment.kind
    return metric.value_unit or metric.name


def _id(*parts: str) -> str:
    return f"{ORIGIN}:{'/'.join(parts)}"


def _path(experiment: str, setting: Mapping[str, Any]) -> str:
    """Return the path of a test; its names have only letters, digits, _ and -.

    A name with other characters gets a hash, so that different values keep different paths.
    """
    names = [
        "labctl",
        *experiment.split("/"),
        *(f"{name}_{value}" for name, value in setting.items()),
    ]
    return ".".join(safe_name(name).replace(".", "_").replace("+", "_") for name in names)


def _plain(text: str) -> str:
    return text.replace("\0", "")

"""Two stored runs side by side: what of them may be compared, and what changed. Pure.

Blocks of different runs are not pairs. But each run has the log ratios of its own
blocks, in which its host cancels: these are compared, by Welch's t.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labctl.errors import UserError
from labctl.results.paired import MINIMUM_BLOCKS, Paired, adjust, t_tests
from labctl.results.verdict import Rule, word
from labctl.units import counted

Document = Mapping[str, Any]
# Of an experiment; where these differ a cell of one is no cell of the other.
_SAME_EXPERIMENT = ("workload", "command", "guest", "metric", "better", "baseline", "set")


@dataclass(frozen=True, slots=True)
class Summary:
    """The log ratios of one cell's blocks: how many, their mean and standard deviation."""

    blocks: int
    mean: float
    sd: float


def across(first: Document, second: Document) -> dict[str, Any]:
    """Compare two runs' documents (`reports.document`), as one JSON object.

    A cell's `change` is the second run's ratio over the first one's: above 1 the
    kernel gained more on its baseline than before. Times are given only if host,
    QEMU and the baseline's image are the same, and are never judged.

    Raises:
        UserError: one run twice, other accelerators, or nothing that both measured.
    """
    if first["run"] == second["run"]:
        raise UserError(
            f"both are the run {first['run']}",
            hint="name two runs; without a second name it is the latest",
        )
    if first["accel"] != second["accel"]:
        raise UserError(
            f"one run is under {first['accel']}, the other under {second['accel']}",
            hint="what is translated and what is virtualised differ in what they slow down; "
            "not even ratios can be compared",
        )
    both = _by_name(first), _by_name(second)
    common = [name for name in both[0] if name in both[1]]
    if not common:
        raise UserError(
            "the runs have no experiment in common",
            hint=f"they have: {', '.join(both[0])}; {', '.join(both[1])}",
        )
    experiments = [_experiment(both[0][name], both[1][name]) for name in common]
    for each in experiments:
        each["same_baseline"] = _image(first, each["baseline"]) == _image(second, each["baseline"])
    if all(each["refused"] for each in experiments):
        reasons = "; ".join(f"{each['name']}: {each['refused']}" for each in experiments)
        raise UserError(f"nothing can be compared: {reasons}")
    same_host = _of_host(first) == _of_host(second)
    for each in experiments:
        if not (same_host and each["same_baseline"]):
            for cell in each["cells"]:
                cell["median_seconds"] = None
    return {
        "schema": 1,
        "runs": [first["run"], second["run"]],
        "hosts": [dict(first["host"]), dict(second["host"])],
        "accel": first["accel"],
        "same_host": same_host,
        "notes": _notes(first, second, experiments, same_host=same_host),
        "experiments": experiments,
    }


def difference(first: Summary, second: Summary, rule: Rule) -> Paired:
    """Return what two cells' summaries say of the change from the first to the second.

    Welch's t, with the degrees of freedom of Satterthwaite (Biometrics 2, 1946). Of the
    result `blocks` is the smaller number of blocks. With fewer than two blocks, or no
    spread at all in both, there is only the mean.
    """
    mean = second.mean - first.mean
    blocks = min(first.blocks, second.blocks)
    parts = [each.sd**2 / each.blocks for each in (first, second)]
    error = math.sqrt(sum(parts))
    if blocks < 2 or not error:
        return Paired(blocks, mean, None, None, None, None, None)
    freedom = sum(parts) ** 2 / sum(
        part**2 / (each.blocks - 1) for part, each in zip(parts, (first, second), strict=True)
    )
    tests = t_tests(mean, error, freedom, confidence=rule.confidence, margin=rule.margin)
    return Paired(blocks, mean, None, *(float(each) for each in tests))


def _experiment(first: Document, second: Document) -> dict[str, Any]:
    # What an older labctl did not record is not known to differ.
    known = [key for key in _SAME_EXPERIMENT if None not in (first.get(key), second.get(key))]
    differs = [key for key in known if first[key] != second[key]]
    told = [_difference_of(key, first[key], second[key]) for key in differs]
    cells = [] if told else _cells(first, second)
    refused = ", ".join(told) or ("" if cells else "no cell in common")
    return {
        "name": first["name"],
        "metric": first.get("metric"),
        "better": first.get("better"),
        "command": first.get("command"),
        "baseline": first["baseline"],
        "confidence": _confidence(first, second),
        "refused": refused,
        "failures": [list(each.get("failures") or []) for each in (first, second)],
        "cells": cells,
    }


def _difference_of(what: str, first: object, second: object) -> str:
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        keys = [key for key in {**first, **second} if first.get(key) != second.get(key)]
        each = (f"{key} {first.get(key)} and {second.get(key)}" for key in keys)
        return f"{what}: {', '.join(each)}"
    return f"{what} {first} and {second}"


def _cells(first: Document, second: Document) -> list[dict[str, Any]]:
    effect = max(first["minimum_effect"], second["minimum_effect"])
    rule = Rule.of(_confidence(first, second), effect)
    others = {_key(cell): cell for cell in second["cells"]}
    pairs = [(cell, others[_key(cell)]) for cell in first["cells"] if _key(cell) in others]
    pairs = [pair for pair in pairs if pair[0]["verdict"] != "baseline"]
    is_suspect = any(
        each["aa_control"] and each["aa_control"]["verdict"] in ("faster", "slower")
        for each in (first, second)
    )
    results = [_difference(pair, rule) for pair in pairs]
    beyond = adjust([one.p_beyond if one else None for one in results])
    return [
        _row(pair, one, p, rule, is_suspect=is_suspect)
        for pair, one, p in zip(pairs, results, beyond, strict=True)
    ]


def _difference(pair: Sequence[Document], rule: Rule) -> Paired | None:
    first, second = map(_summary, pair)
    return difference(first, second, rule) if first and second else None


def _summary(cell: Document) -> Summary | None:
    if not cell["ratio"] or cell["sd_log"] is None or cell["failed"]:
        return None
    return Summary(cell["blocks"], math.log(cell["ratio"]), cell["sd_log"])


def _row(
    pair: Sequence[Document], result: Paired | None, p: float | None, rule: Rule, is_suspect: bool
) -> dict[str, Any]:
    verdict, reason = "undecided", ""
    if result is None:
        reason = "a run has failures, or too few blocks, of this cell"
    elif result.blocks < MINIMUM_BLOCKS:
        blocks = counted(result.blocks, "block")
        reason = f"{blocks} in one of the runs, at least {MINIMUM_BLOCKS} are needed"
    elif is_suspect:
        reason = "the A/A control of one of the runs differs"
    else:
        verdict = word(result, p, rule)
        reason = "" if verdict != "undecided" else "the interval is too wide for a verdict"
    return {
        "kernel": pair[0]["kernel"],
        "setting": dict(pair[0]["setting"]),
        "parameters": dict(pair[0]["parameters"]),
        "blocks": [cell["blocks"] for cell in pair],
        "ratio": [cell["ratio"] for cell in pair],
        "ci": [cell["ci"] for cell in pair],
        "median_seconds": [cell["median_seconds"] for cell in pair],
        "change": result.ratio if result else None,
        "change_ci": result.ci if result else None,
        "p_beyond": p,
        "verdict": verdict,
        "reason": reason,
    }


def _confidence(first: Document, second: Document) -> float:
    return float(max(first["confidence"], second["confidence"]))


def _notes(
    first: Document, second: Document, experiments: Sequence[Document], *, same_host: bool
) -> list[str]:
    notes = [*first.get("notes", []), *second.get("notes", [])]
    for each in (first, second):
        if not each["finished"]:
            notes.append(f"{each['run']} is not finished")
        loaded = [e["name"] for e in each["experiments"] if _is_loaded(e)]
        if loaded:
            notes.append(f"in {each['run']} the host was busy ({', '.join(loaded)})")
        few = [e["name"] for e in each["experiments"] if _uses_disturbed(e) and not _is_loaded(e)]
        if few:
            notes.append(f"in {each['run']} disturbed blocks are used ({', '.join(few)})")
    if not same_host:
        notes.append("other host or other QEMU: ratios can be compared, times can not")
    for name in sorted({each["baseline"] for each in experiments if not each["same_baseline"]}):
        notes.append(
            f"the baseline {name} is another image: a ratio may have changed with it alone"
        )
    kernels = first["kernels"].keys() & second["kernels"].keys()
    baselines = {each["baseline"] for each in experiments}
    for name in sorted(kernels - baselines):
        if _image(first, name) != _image(second, name):
            notes.append(f"{name} is another image in each run: what is compared is its change")
    names = _by_name(first).keys() ^ _by_name(second).keys()
    notes += [f"{name} is in one of the runs only" for name in sorted(names)]
    refused = (each for each in experiments if each["refused"])
    notes += [f"{each['name']} is not compared: {each['refused']}" for each in refused]
    return notes


def _is_loaded(experiment: Document) -> bool:
    return bool((experiment.get("host_health") or {}).get("stays_loaded"))


def _uses_disturbed(experiment: Document) -> bool:
    health = experiment.get("host_health") or {}
    return bool(health.get("disturbed")) and not health.get("left_out")


def _by_name(document: Document) -> dict[str, Document]:
    return {each["name"]: each for each in document["experiments"]}


def _key(cell: Document) -> tuple[str, str, str]:
    return cell["kernel"], str(dict(cell["setting"])), str(dict(cell["parameters"]))


def _image(document: Document, kernel: str) -> object:
    return document["kernels"].get(kernel, {}).get("image")


def _of_host(document: Document) -> tuple[object, object]:
    return document["host"].get("id"), document["host"].get("qemu")

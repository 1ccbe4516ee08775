"""The JSON of reports, comparisons, nightly runs and runs, from their schemas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from page import anchor, first_line, schema_of, table

from labctl.runs.record import RunExperiment, RunRecord

Schema = dict[str, Any]

RUN = {
    "schema": ("integer", "Version of this format: 1."),
    "run": ("string", "Id of the run, the name of its folder."),
    "created_at": ("string", "Start of the run: UTC, ISO 8601."),
    "finished": ("boolean", "Whether the run measured all planned blocks."),
    "seed": ("integer", "Seed of the order of cells."),
    "lab": ("string", "Text of lab.yaml."),
    "host": ("object", "Facts about the host; see [Host](report.md#host)."),
    "hosts": (
        "object of object",
        "Facts about each worker's host, by id; missing without a scheduler.",
    ),
    "imported": (
        "object",
        "`pack`, the id of the packed lab that measured the run, and `at`, when it was imported; "
        "missing if this lab measured it.",
    ),
    "accel": ("string", "Accelerator: kvm, tcg, or native on a target."),
    "launcher": ("string", "Launcher of the guests."),
    "transport": ("string", "Transport of the guests."),
    "initramfs": ("string", "Hash of the guests' initramfs."),
    "guests": ("object of object", "Guests by name, each with its topology as in lab.yaml."),
    "kernels": ("object of object", "Kernels by name; see [Kernel](report.md#kernel)."),
    "experiments": ("array of object", "Experiments in their order; see below."),
    "health": (
        "object",
        "Shares from which on a repetition is disturbed: `others_share` by other processes, "
        "`disturbed_share` by the hypervisor or memory pressure.",
    ),
    "timing": (
        "object of array",
        "By experiment, for each time it was measured: `boots`, `repetitions`, `boot_seconds`, "
        "`workload_seconds`; `labctl plan` estimates by them. Older versions of labctl wrote "
        "`visits` for `repetitions`.",
    ),
}
RUN_EXPERIMENT = {
    "name": ("string", "Name of the experiment."),
    "workload": ("string", "Name of the workload."),
    "guest": ("string", "Name of the guest."),
    "target": ("string or null", "Name of the target; null for guests."),
    "command": ("string", "Command of the workload."),
    "metric": ("string", "Name of the metric."),
    "better": ("string", "Which values are better: lower or higher."),
    "scale": ("string", "How kernels are compared: ratio or difference."),
    "baseline": ("string", "Kernel that the cells are compared with."),
    "confidence": ("number", "Confidence level of the intervals."),
    "minimum_effect": (
        "number",
        "Smallest change that matters; 0.02 is 2 %. In the unit of the "
        "values with `scale` difference.",
    ),
    "further_metrics": (
        "array of object",
        "Metrics after the first, each with `metric`, `better`, `scale` and `minimum_effect`.",
    ),
    "blocks_min": ("integer", "Minimum number of blocks."),
    "blocks_max": ("integer", "Maximum number of blocks."),
    "repetitions": ("integer", "Measured repetitions of each cell in each block."),
    "warmup": ("integer", "Repetitions before the measured ones."),
    "set": ("object", "Tunables and parameters of all cells."),
    "cells": ("array of string", "Ids of the cells."),
    "observe": ("array of string", "Names of the observers."),
    "placement": (
        "object or null",
        "Placement of a guest, null on a target; see [Placement](report.md#placement).",
    ),
}


def kind(schema: Schema) -> str:
    """Return the type of a JSON value in words, with a link to its section."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{anchor(name)})"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(kind(one) for one in schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(f"`{one}`" for one in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "prefixItems" in schema:
        kinds = [kind(one) for one in schema["prefixItems"]]
        if len(set(kinds)) == 1:
            return f"array of {len(kinds)} {grouped(kinds[0])}"
        return f"array of {', '.join(kinds)}"
    found = schema.get("type", "any")
    if found == "array":
        return f"array of {grouped(kind(schema['items']))}" if schema.get("items") else "array"
    if found == "object" and schema.get("additionalProperties"):
        return f"object of {grouped(kind(schema['additionalProperties']))}"
    return " or ".join(found) if isinstance(found, list) else str(found)


def grouped(words: str) -> str:
    """Return an alternative in brackets."""
    return f"({words})" if " or " in words else words


def sections(schema: Schema) -> str:
    """Return a section for each struct of a schema, the document itself first."""
    top = schema["$ref"].rpartition("/")[2]
    names = [top, *(name for name in schema["$defs"] if name != top)]
    parts = []
    for name in names:
        part = schema["$defs"][name]
        head = f"## {name}\n\n{first_line(part.get('description'))}\n\n"
        if "enum" in part:
            values = ", ".join(f"`{one}`" for one in part["enum"])
            parts.append(f"{head}One of {values}.\n")
            continue
        rows = [
            (f"`{key}`", kind(one), one["description"]) for key, one in part["properties"].items()
        ]
        parts.append(head + table(("field", "type", "meaning"), rows))
    return "\n".join(parts)


def report() -> str:
    """Return the page on `labctl report --json`."""
    return (
        "# JSON of reports\n\n`labctl run --json` and `labctl report --json` print one object. A "
        "field that an older labctl did not record is missing. [What a verdict "
        "means](../explanation/verdicts.md) explains the statistics.\n\n"
        + sections(schema_of("--report"))
    )


def explain() -> str:
    """Return the page on `labctl explain --json`."""
    return (
        "# JSON of explanations\n\n`labctl explain --json` prints one object. [Find out why a "
        "kernel is slower](../howto/explain.md) explains the counters.\n\n"
        + sections(schema_of("--explain"))
    )


def model() -> str:
    """Return the page on `labctl model --json`."""
    return (
        "# JSON of predictions\n\n`labctl model --json` prints one object. [Predict a larger "
        "host](../howto/predict.md) explains it.\n\n" + sections(schema_of("--model"))
    )


def compare() -> str:
    """Return the page on `labctl compare --json`."""
    return (
        "# JSON of comparisons\n\n`labctl compare --json` prints one object. Pairs have the "
        "value of the first run, then of the second.\n\n" + sections(schema_of("--compare"))
    )


def nightly() -> str:
    """Return the page on `labctl nightly --json`."""
    return (
        "# JSON of nightly runs\n\n`labctl nightly --json` prints one object. [When a nightly run "
        "raises an alarm](../explanation/nightly.md) explains the findings.\n\n"
        + sections(schema_of("--nightly"))
    )


def bisect() -> str:
    """Return the page on `labctl bisect --json`."""
    return (
        "# JSON of a bisection\n\n`labctl bisect --json` prints one object. [Find the patch that "
        "caused a change](../howto/bisect.md) explains the decisions.\n\n"
        + sections(schema_of("--bisect"))
    )


def verify() -> str:
    """Return the page on `labctl verify --json`."""
    return "# JSON of checks\n\n`labctl verify --json` prints one object.\n\n" + sections(
        schema_of("--verify")
    )


def plan() -> str:
    """Return the page on `labctl plan --json`."""
    return "# JSON of plans\n\n`labctl plan --json` prints one object.\n\n" + sections(
        schema_of("--plan")
    )


def series_check() -> str:
    """Return the page on `labctl series check --json`."""
    return (
        "# JSON of series checks\n\n`labctl series check --json` prints one object.\n\n"
        + sections(schema_of("--series-check"))
    )


def run() -> str:
    """Return the page on run.json."""
    known: tuple[tuple[Mapping[str, Any], type[msgspec.Struct]], ...] = (
        (RUN, RunRecord),
        (RUN_EXPERIMENT, RunExperiment),
    )
    for described, struct in known:
        missing = set(struct.__struct_fields__) - set(described)
        if missing:
            raise SystemExit(f"docs/generate: describe {', '.join(sorted(missing))}")
    head = ("field", "type", "meaning")
    return (
        "# JSON of a run\n\n`.labctl/runs/RUN/run.json` describes a run; its "
        "[samples](samples.md) are beside it. Keys that an older labctl did not record may be "
        "missing.\n\n"
        + table(head, [(f"`{key}`", *one) for key, one in RUN.items()])
        + "\n## Experiments\n\n"
        + table(head, [(f"`{key}`", *one) for key, one in RUN_EXPERIMENT.items()])
    )

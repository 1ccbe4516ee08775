"""The JSON of samples, from their struct."""

from __future__ import annotations

from typing import Any

import msgspec
from page import table

from labctl.runs.sample import Sample
from labctl.status import SampleStatus

Schema = dict[str, Any]
SAMPLE = {
    "run": "Name of the run.",
    "experiment": "Name of the experiment.",
    "workload": "Name of the workload.",
    "metric": "Name of the metric.",
    "block": "Number of the block, from 0.",
    "order": "Position in the block, from 0.",
    "repetition": "Number of the repetition, from 0; warm-ups have their own count.",
    "warmup": "Whether it is a warm-up, whose value is not used.",
    "kernel": "Name of the kernel.",
    "label": "Kernel, or kernel with `+aa` for the A/A control.",
    "control": "Whether the cell is the A/A control.",
    "cell": "Name of the cell.",
    "setting": "Tunables and parameters of the cell.",
    "parameters": "Parameters of the workload.",
    "status": "`ok`, or why there is no value; see below.",
    "value": "Value of the metric; seconds if it is a time. Above 0, except with `scale` "
    "difference. null if it failed.",
    "boot_id": "The kernel's random id of the boot.",
    "image": "Hash of the kernel image.",
    "series": "Hash of the series; null without one.",
    "host": "Id of the host.",
    "accel": "`kvm`, `tcg` or `native`.",
    "started_at": "Time of the start, ISO 8601, UTC.",
    "read_back": "Tunables as they were read back.",
    "measurements": "Everything the workload printed, by name.",
    "counters": "Increments of counters over the repetition: those of the series, and those of "
    "observers as `OBSERVER.NAME`; times are in nanoseconds.",
    "load": "What the host did during the repetition, by name; `boot_seconds` is the time that "
    "booting the block's guests took.",
    "disturbed": "Reason why the repetition is disturbed; empty if it is not.",
    "message": "Reason of a failure; empty if there is none.",
    "console": "Path of the guest's console log, from the run's folder.",
    "schema": "Version of this format: 1.",
    "scale": "`difference`; missing where ratios are compared.",
    "values": "Values of the experiment's further metrics, by name; missing without any.",
    "units": "Unit of each metric that is not a time, by name; missing where none is known.",
}
STATUS = {
    "ok": "Measured.",
    "boot-failed": "The guest did not reach its init, without a panic.",
    "panic": "The kernel panicked.",
    "splat": "The kernel reported an oops, BUG, WARNING, lockup, hung task or OOM kill.",
    "hung": "Neither console nor command line printed anything until the silence deadline.",
    "deadline": "The command exceeded its time limit in a guest that was alive.",
    "lost": "QEMU or the line to the guest ended.",
    "bad-output": "The workload did not print its metric.",
    "knob-refused": "A tunable did not read back as written.",
    "not-exercised": "Series not exercised: handovers unchanged.",
    "exercised": "The patch was entered where the experiment says `handovers: none`.",
    "skipped": "Not measured.",
}


def type_name(schema: Schema) -> str:
    """Return the type of a JSON value in words."""
    if "anyOf" in schema:
        return " or ".join(type_name(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"array of {type_name(schema['items'])}"
    if "$ref" in schema:
        return "string"  # the status
    found = schema.get("type", "any")
    return " or ".join(found) if isinstance(found, list) else str(found)


def samples() -> str:
    """Return the page on samples."""
    schema = msgspec.json.schema(Sample)["$defs"]["Sample"]
    for known, found in ((SAMPLE, schema["properties"]), (STATUS, SampleStatus)):
        if set(known) != set(found):
            raise SystemExit(f"docs/generate: describe {set(known) ^ set(found)}")
    rows = [
        (f"`{name}`", type_name(one), SAMPLE[name]) for name, one in schema["properties"].items()
    ]
    text = (
        "# JSON of samples\n\nA run is a folder `.labctl/runs/RUN` with `run.json`, "
        "`samples.jsonl`, the logs of its guests, and `commands.log`: each command that labctl "
        "started for the run, with its output. `samples.jsonl` has one JSON object per "
        "line, appended and synced one by one; its last key is `crc`, the CRC-32 of the bytes "
        "before that key's comma. [Recover a damaged run](../howto/damaged-files.md) "
        "lists what labctl rejects.\n\n"
    )
    text += table(("field", "type", "meaning"), rows)
    statuses = [(f"`{status}`", STATUS[status]) for status in SampleStatus]
    return text + "\n## Status\n\n" + table(("status", "meaning"), statuses)

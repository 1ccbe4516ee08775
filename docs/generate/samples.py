"""The JSON of samples, from their struct."""

from __future__ import annotations

from typing import Any

import msgspec
from page import table

from labctl.experiments.retries import IN_ALL, IN_BLOCK
from labctl.runs.sample import Sample
from labctl.status import HOST_FAULTS, GuestFault, SampleStatus

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
    "host": "Id of the host, by its machine id and CPU model; the same in all samples of a block.",
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
    "attempt": "Failures of the guest in this block before this boot: above 0 on a fresh boot "
    "after a failure; missing if 0.",
    "fault": "Why the guest failed; see below. Missing if it did not.",
    "host_name": "Name of the worker that measured the block; missing without a scheduler.",
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
RETRIES = f"""\
A guest that fails is booted again at once, while the others are paused. It is warmed up again, and
the repetition that failed is measured again at its place in the order, with the next `attempt`.
The failure stays on record with its console. A guest is booted again at most {IN_BLOCK} times in a
block, and no more after {IN_ALL} failures in an experiment; then its other repetitions in the block
are `skipped`. A target that fails is not booted again.
"""
FAULT = {
    "boot-timeout": "The guest did not reach its init before the boot deadline.",
    "panic": "The kernel panicked.",
    "oops": "The kernel oopsed and went on.",
    "bug": "The kernel hit a BUG and went on.",
    "warning": "The kernel warned.",
    "soft-lockup": "A CPU did not schedule for too long.",
    "hard-lockup": "A CPU took no interrupts for too long.",
    "hung-task": "A task was blocked for too long.",
    "rcu-stall": "An RCU grace period did not end in time.",
    "oom-kill": "The guest's memory was full, and the kernel killed a program.",
    "bad-page": "A page or page table had an invalid state.",
    "kasan": "KASAN found an invalid access.",
    "kmsan": "KMSAN found a use of uninitialised memory.",
    "kcsan": "KCSAN found a data race.",
    "kfence": "KFENCE found an invalid access.",
    "ubsan": "UBSAN found undefined behaviour.",
    "no-response": "The guest's agent was silent while QEMU ran: a kernel that hangs, an agent "
    "that is stopped, or a serial port that is frozen.",
    "guest-paused": "The guest was paused by another program.",
    "guest-reset": "The guest reset itself: a reboot, or a triple fault.",
    "guest-shutdown": "The guest powered off.",
    "rebooted": "A second banner of a kernel is on the console.",
    "console-flood": "The console log exceeded its limit.",
    "clock-jump": "The guest's clock did not agree with the host's.",
    "line-lost": "The line to the guest ended or was damaged.",
    "qemu-stopped": "QEMU was stopped, as by SIGSTOP.",
    "qemu-killed": "QEMU was killed by another program.",
    "qemu-crashed": "QEMU crashed.",
    "qemu-exited": "QEMU exited with an error.",
    "host-oom": "The host's OOM killer ended QEMU, or QEMU got no memory.",
    "host-suspended": "The host slept, and the guest or its line did not survive it.",
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
    for known, found in (
        (SAMPLE, schema["properties"]),
        (STATUS, SampleStatus),
        (FAULT, GuestFault),
    ):
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
    text += "\n## Status\n\n" + table(("status", "meaning"), statuses)
    faults = [(f"`{one}`", FAULT[one], "host" if one in HOST_FAULTS else "") for one in GuestFault]
    return f"{text}\n## Fault of the guest\n\n{RETRIES}\n" + table(
        ("fault", "meaning", "blamed on"), faults
    )

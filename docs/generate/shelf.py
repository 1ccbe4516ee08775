"""The ready workloads, from their table."""

from __future__ import annotations

from page import table

from labctl.lab.shelf import SHELF, Entry


def shelf() -> str:
    """Return the page on the ready workloads."""
    head = ("workload", "good for", "needs")
    rows = [(f"[{name}](#{name})", one.good_for, one.needs) for name, one in SHELF.items()]
    return (
        "# Ready workloads\n\n`use: NAME` in a workload of lab.yaml takes one; [Bring your own "
        "benchmark](../howto/workloads.md#ready-workloads) shows how. `labctl workloads` prints "
        "the same list. The first metric is compared unless `metric:` names another.\n\n"
        + table(head, rows)
        + "\n"
        + "\n".join(map(_section, SHELF.values()))
    )


def _section(entry: Entry) -> str:
    metrics = [
        (f"`{name}`", one.shown_unit, one.better, one.meaning)
        for name, one in entry.metrics.items()
    ]
    parameters = [
        (f"`{name}`", f"`{one.shown_default}`", one.meaning)
        for name, one in entry.parameters.items()
    ]
    return (
        f"## {entry.name}\n\n"
        + table(("metric", "unit", "better", "meaning"), metrics)
        + "\n"
        + table(("parameter", "default", "meaning"), parameters)
    )

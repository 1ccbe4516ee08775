"""`labctl workloads`: the ready workloads that `use:` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from labctl import progress, units
from labctl.cli.root import JSON, print_json

if TYPE_CHECKING:
    from labctl.lab.shelf import Entry


@click.command()
@JSON
@click.argument("name", required=False)
def workloads(as_json: bool, name: str | None) -> None:
    """List the ready workloads, or describe the workload NAME.

    `use: NAME` in a workload of lab.yaml takes one.

    \b
    Examples:
      labctl workloads                 all
      labctl workloads time-unmap      its parameters, metrics and requirements
    """  # noqa: D301 - click wants the character itself
    from labctl.errors import UserError
    from labctl.lab.problems import suggestion
    from labctl.lab.shelf import SHELF

    if name is not None and name not in SHELF:
        hint = suggestion(name, tuple(SHELF), "names")
        raise UserError(f"unknown ready workload {units.quote(name)}", hint=hint)
    entries = list(SHELF.values()) if name is None else [SHELF[name]]
    if as_json:
        print_json({"schema": 1, "workloads": [_content(one) for one in entries]})
    elif name is None:
        rows = [
            {"workload": one.name, "metric": next(iter(one.metrics)), "good for": one.good_for}
            for one in entries
        ]
        click.echo(progress.table(rows))
    else:
        click.echo(_text(entries[0]))


def _content(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "good_for": entry.good_for,
        "needs": entry.needs,
        "packages": list(entry.workload.get("packages", ())),
        "metrics": [
            {"name": name, "meaning": one.meaning, "unit": one.shown_unit, "better": one.better}
            for name, one in entry.metrics.items()
        ],
        "parameters": [
            {"name": name, "meaning": one.meaning, "default": one.default}
            for name, one in entry.parameters.items()
        ],
    }


def _text(entry: Entry) -> str:
    metrics = [
        {"metric": name, "unit": one.shown_unit, "better": one.better, "meaning": one.meaning}
        for name, one in entry.metrics.items()
    ]
    parameters = [
        {"parameter": name, "default": one.shown_default, "meaning": one.meaning}
        for name, one in entry.parameters.items()
    ]
    head = f"{entry.name}: {entry.good_for}\nneeds: {entry.needs}"
    return "\n\n".join([head, progress.table(metrics), progress.table(parameters)])


COMMANDS = (workloads,)

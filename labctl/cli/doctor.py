"""The command that examines the host."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from labctl import screen
from labctl.cli.root import JSON, LAB, find_lab, print_json

_HOST_CANNOT = 3


@click.command()
@LAB
@JSON
def doctor(lab_path: Path | None, as_json: bool) -> None:
    """Try what the lab needs of this host, and say what mends the rest.

    Boots probe guests that need no kernel, compiles a program, writes to the
    state folder, and counts memory for the guests of each experiment. Without a
    lab.yaml it examines the host alone. Nothing is changed.

    \b
    ok    it was tried and works
    warn  the lab works; its figures are worth less, or builds take longer
    fail  the lab needs it: exit status 3
    """  # noqa: D301 - click wants the character itself
    from labctl import host, lab
    from labctl.doctor.diagnosis import worst
    from labctl.doctor.examination import Examination
    from labctl.host_facts import read_facts

    path = lab_path or find_lab()
    # Not against this host's memory: that is a line of its own here.
    loaded = lab.load(path) if path else None
    state = loaded.state if loaded else Path.cwd() / ".labctl"
    with screen.Examining() as examining:
        examination = Examination(
            lab=loaded, state=state, facts=read_facts(), telling=examining.trying
        )
        found = list(examination.diagnoses())
    status = worst(found)
    if as_json:
        print_json(
            {"schema": 1, "lab": str(path) if path else None, "host": host.describe().as_dict(),
             "status": status, "diagnoses": [one.document() for one in found]}
        )  # fmt: skip
    else:
        click.echo(screen.diagnoses(found))
        if loaded is None:
            click.echo("\nno lab.yaml here: memory, vCPUs and sources of a lab were not looked at")
    if status == "fail":
        sys.exit(_HOST_CANNOT)


COMMANDS = (doctor,)

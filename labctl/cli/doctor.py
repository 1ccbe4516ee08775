"""`labctl doctor`: test the host."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from labctl import progress
from labctl.cli.root import JSON, LAB, find_lab, print_json

_HOST_CANNOT = 3


@click.command()
@LAB
@JSON
def doctor(lab_path: Path | None, as_json: bool) -> None:
    """Test this host's requirements and suggest fixes.

    Boots probe guests without a kernel, compiles a program, writes to the state
    folder and adds up the memory for the guests of each experiment. Without a
    lab.yaml, checks only the host. Changes nothing.

    \b
    ok    tested and works
    warn  the lab works, but results are less reliable or builds take longer
    fail  the lab cannot work without it (exit status 3)
    """  # noqa: D301 - click wants the character itself
    from labctl.doctor.diagnosis import worst
    from labctl.doctor.host_tests import HostTests
    from labctl.host import identity
    from labctl.host.facts import read_facts
    from labctl.lab import load
    from labctl.lab.state import USUAL_NAME

    path = lab_path or find_lab()
    # Without the check against this host's memory: the doctor reports that itself.
    loaded = load.load(path) if path else None
    state = loaded.state if loaded else Path.cwd() / USUAL_NAME
    with progress.Testing() as testing:
        tests = HostTests(lab=loaded, state=state, facts=read_facts(), progress=testing.trying)
        found = list(tests.diagnoses())
    status = worst(found)
    if as_json:
        print_json(
            {"schema": 1, "lab": str(path) if path else None,
             "host": identity.describe().as_dict(), "status": status,
             "diagnoses": [one.document() for one in found]}
        )  # fmt: skip
    else:
        click.echo(progress.diagnoses(found))
        if loaded is None:
            click.echo("\nno lab.yaml found: memory, vCPUs and sources of a lab were not checked")
    if status == "fail":
        sys.exit(_HOST_CANNOT)


COMMANDS = (doctor,)

"""Exit statuses, and the public errors behind them."""

from __future__ import annotations

import inspect
import re

from commands import commands
from page import first_line, table

from labctl import errors
from labctl.cli import ending, labctl


def exit_status() -> str:
    """Return the page on exit statuses."""
    rows = [
        ("0", "Success."),
        *(
            (str(one.exit_status), meaning)
            for one, meaning in (
                (errors.LabError, "labctl found a problem: a regression, a failed check, a crashed "
                 "guest, a failed build."),
                (errors.UserError, "Invalid input: lab.yaml, an argument, a patch that does not "
                 "apply."),
                (errors.HostError, "Unsuitable host: a missing tool, not enough memory, a full "
                 "disk."),
            )
        ),
        (str(ending._INTERNAL), "Fault of labctl. The message names a file with the traceback; "
         "`LABCTL_TRACEBACK=1` prints it."),
        (str(ending._HUNG_UP), "Ended by a hang-up (SIGHUP)."),
        (str(ending._INTERRUPTED), "Ended by Ctrl-C (SIGINT)."),
        ("143", "Ended by SIGTERM."),
    ]  # fmt: skip
    text = "# Exit status\n\n" + table(("status", "meaning"), rows)
    text += "\n## Status 1 by command\n\n"
    said = []
    for names, command, _ in commands(labctl, ("labctl",), None):
        whole = " ".join((command.help or "").replace("\b", " ").split())
        found = re.findall(r"Exit status .*?\.(?= |$)", whole)
        if found and len(names) > 1:
            said.append((f"`{' '.join(names)}`", " ".join(found)))
    text += table(("command", "exit status"), said)
    text += (
        "\n## Errors in Python\n\n`labctl.errors` is public, for `pytest.raises` in tests with "
        "the [pytest fixtures](pytest.md).\n\n"
    )
    classes = [
        one
        for one in vars(errors).values()
        if inspect.isclass(one) and issubclass(one, errors.LabError)
    ]
    found = [
        (f"`{one.__name__}`", f"`{one.__mro__[1].__name__}`", str(one.exit_status),
         first_line(one.__doc__))
        for one in classes
    ]  # fmt: skip
    return text + table(("error", "is a", "exit status", "meaning"), found)

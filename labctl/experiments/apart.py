"""Run a pattern of lab.yaml in a process of its own.

`re` keeps Python's lock while it matches. Outside the main thread, where no signal can stop
it, only the end of its process does.
"""

from __future__ import annotations

import json
import sys

from labctl import proc
from labctl.errors import BadOutput, CommandError

# Of the host's clock, and for a busy host: the process limits its own CPU time.
_WALL_FACTOR = 20
_START_SECONDS = 30.0
_SCRIPT = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from labctl.experiments import parse
print(parse.answer(sys.stdin.read()))
"""


def last_match(text: str, name: str, parse: str, unit: str | None, *, cpu_seconds: float) -> str:
    """Return what `parse.last_match` returns.

    Raises:
        BadOutput: as there.
    """
    request = json.dumps([text, name, parse, unit, cpu_seconds])
    try:
        done = proc.run(
            [sys.executable, "-I", "-c", _SCRIPT, json.dumps(sys.path)],
            stdin=request.encode(),
            timeout_seconds=_START_SECONDS + _WALL_FACTOR * cpu_seconds,
            is_output_logged=False,
        )
    except CommandError as error:
        raise BadOutput(f"{name}: the match of {parse!r} failed: {error.what[-200:]}") from error
    found, why = json.loads(done.text)
    if why is not None:
        raise BadOutput(why)
    return str(found)

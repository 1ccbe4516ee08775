"""Run labctl, or pytest with its plugin, with short deadlines; write its peak memory to a file.

python played.py FOLDER labctl run e
python played.py FOLDER pytest ...
"""

import sys
from pathlib import Path

import held

SECONDS = 0.4


def main():
    folder, program, *words = sys.argv[1:]
    _shorten(Path(folder))
    sys.argv = [program, *words]
    try:
        if program == "pytest":
            import pytest

            sys.exit(pytest.main(words))
        from labctl.cli import main as labctl

        labctl()
    finally:
        (Path(folder) / "peak").write_text(str(held.peak_bytes()))


def _shorten(folder):
    """Shorten what the command line does not, and do not wait for measurements of this host."""
    from labctl.experiments import parse
    from labctl.guests import guest
    from labctl.host import lock
    from labctl.transports import command, serial
    from labctl.transports.ssh import transport

    lock._OF_ROOT, lock._OF_ALL = folder, ()
    guest._SILENCE_SECONDS = 3.0
    serial._KILL_SECONDS = serial._GREETING_SECONDS = transport._KILL_SECONDS = SECONDS
    transport._CONNECT_SECONDS = parse._MATCH_SECONDS = SECONDS
    command._COPY_SECONDS = 3 * SECONDS


main()

"""Run labctl, or copy files out of a guest, with short deadlines; write the peak of memory.

python played.py FOLDER labctl run e
python played.py FOLDER copy
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
        if program == "copy":
            sys.exit(_copy(Path(".labctl/copy").absolute()))
        from labctl.cli import main as labctl

        labctl()
    finally:
        (Path(folder) / "peak").write_text(str(held.peak_bytes()))


def _copy(folder):
    """Copy files out of the hostile guest; return 1 if a copy succeeds or leaves a part."""
    from labctl.errors import GuestError
    from labctl.guests.guest import Guest
    from labctl.guests.prepare import prepare
    from labctl.lab.load import load

    lab = load(Path("lab.yaml"))
    prepared = prepare(lab, ["hostile"], lambda _: None)
    folder.mkdir()
    copy = folder / "copy"
    copy.write_bytes(b"as before")
    for get in (lambda guest: guest.get("/file"), lambda guest: guest.get_file("/file", copy)):
        spec = prepared.spec(
            "hostile", name="hostile", folder=folder / "guest", topology=lab.guests["one"]
        )
        with Guest(spec) as guest:
            guest.wait_ready(60)
            try:
                get(guest)
            except GuestError as error:
                print(error.fault or error.status)
            else:
                return 1
    is_as_before = copy.read_bytes() == b"as before"
    return int(not is_as_before or any(".tmp" in path.name for path in folder.iterdir()))


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

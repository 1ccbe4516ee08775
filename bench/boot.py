"""Boot to ready through QEMU, against `vng --exec true`: the ratio of their times.

Both boot the same image on the same topology under the same accelerator, one after
the other, several times; the two ways alternate, so that the host's drift meets them
alike. vng's time is the whole command's, ours ends when the guest says it is ready.
Target: at most 0.5.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from labctl import proc
from labctl.guests import virtme
from labctl.guests.guest import Guest
from labctl.guests.prepare import prepare
from labctl.lab import load

ROOT = Path(__file__).parent.parent
TARGET = 0.5
SECONDS = 600


def by_qemu(spec):
    """Return the seconds from nothing to a guest that is ready: its agent waits for commands."""
    began = time.monotonic()
    with Guest(spec) as guest:
        guest.wait_ready(SECONDS)
        return time.monotonic() - began


def vng_command(spec, *more):
    """Return vng's words for the same guest as its users start it: without what we add."""
    words = virtme.command(spec)
    plain = [w for w in words[1 : words.index("--exec")] if not w.startswith("--rodir=")]
    return [virtme.find(), *plain, *more, "--exec", "true"]


def vng(spec, *more):
    """Run vng; return the seconds, and what it and the guest's console said."""
    path = os.pathsep.join([str(Path(virtme.find()).parent), os.environ["PATH"]])
    words = vng_command(spec, *more)
    # Of a vng that hangs, the whole group is ended, with its QEMU.
    done = proc.run(words, cwd=spec.folder, env={"PATH": path}, timeout_seconds=SECONDS,
                    check=False)  # fmt: skip
    # On a host without udev it says 255 of a command that ended well.
    assert done.status in (0, 255), done.stderr[-2000:]
    return done.seconds, done.stdout + done.stderr


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lab", type=Path, default=ROOT / "lab.yaml")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    lab = load(asked.lab)
    # The image is built for vng; ours boots it too.
    lab = lab.model_copy(
        update={"defaults": lab.defaults.model_copy(update={"launcher": "virtme-ng"})}
    )
    prepared = prepare(lab, ["stock"], lambda _: None)
    with tempfile.TemporaryDirectory() as folder:
        spec = prepared.spec(
            "stock", name="stock", folder=Path(folder), topology=lab.guests["numa4"]
        )
        said = vng(spec, "--verbose")[1]
        assert b"exited with code 0" in said, said[-2000:]  # it does reach the command
    ours, theirs = [], []
    for number in range(asked.rounds):
        with tempfile.TemporaryDirectory() as folder:
            spec = prepared.spec(
                "stock", name="stock", folder=Path(folder), topology=lab.guests["numa4"]
            )
            ours.append(by_qemu(replace(spec, launcher="qemu")))
            theirs.append(vng(spec)[0])
        print(f"round {number + 1}: qemu {ours[-1]:.2f} s, vng {theirs[-1]:.2f} s", flush=True)
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    print(f"boot through qemu / vng --exec true: {ratio:.2f} (target {TARGET}, {prepared.accel})")
    return 0 if ratio <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())

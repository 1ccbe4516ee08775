"""Ratio of boot times: labctl's QEMU launcher until ready / `vng --exec true`.

Both boot the same image on the same topology under the same accelerator, in turn. The
order alternates between rounds, so that drift of the host affects both. The time of vng
is that of the whole command; the time of labctl ends when the guest is ready. The ratio
is the geometric mean over rounds, with Student's t interval of the logarithms. Goal:
at most 0.35.
"""

import argparse
import math
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from figure import Figure, report

from labctl import proc
from labctl.guests import virtme
from labctl.guests.guest import Guest
from labctl.guests.prepare import prepare
from labctl.lab.load import load
from labctl.stats.paired import paired

ROOT = Path(__file__).parent.parent
GOAL = 0.35
SECONDS = 600
CONFIDENCE = 0.95


def by_qemu(spec):
    """Return the seconds from the start until the guest's agent waits for commands."""
    began = time.monotonic()
    with Guest(spec) as guest:
        guest.wait_ready(SECONDS)
        return time.monotonic() - began


def vng_command(spec, command):
    """Return the words of vng for the same guest, without the options that labctl adds."""
    words = virtme.command(spec)
    plain = [w for w in words[1 : words.index("--exec")] if not w.startswith("--rodir=")]
    return [virtme.find(), *plain, "--exec", command]


def vng(spec, command="true"):
    """Run vng; return the seconds and the output, including the guest's console."""
    path = os.pathsep.join([str(Path(virtme.find()).parent), os.environ["PATH"]])
    words = vng_command(spec, command)
    # On a timeout, proc.run kills the whole process group, including QEMU.
    done = proc.run(words, cwd=spec.folder, env={"PATH": path}, timeout_seconds=SECONDS,
                    check=False)  # fmt: skip
    # On a host without udev, vng returns 255 for a successful command.
    assert done.status in (0, 255), done.stderr[-2000:]
    return done.seconds, done.stdout + done.stderr


def spec_in(prepared, folder):
    topology = prepared.lab.guests["numa4"]
    return prepared.spec("stock", name="stock", folder=Path(folder), topology=topology)


def measured(prepared, number):
    """Boot both ways, one after the other; return the ratio of the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        spec = spec_in(prepared, folder)
        ways = {
            "qemu": lambda: by_qemu(replace(spec, launcher="qemu")),
            "vng": lambda: vng(spec)[0],
        }
        order = sorted(ways, reverse=number % 2 == 1)
        seconds = {way: ways[way]() for way in order}
    print(
        f"round {number + 1}: qemu {seconds['qemu']:.2f} s, vng {seconds['vng']:.2f} s", flush=True
    )
    return seconds["qemu"] / seconds["vng"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lab", type=Path, default=ROOT / "lab.yaml")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    if asked.rounds < 2:
        parser.error("--rounds: expected at least 2")
    lab = load(asked.lab)
    # An image built for vng also boots with our launcher.
    lab = lab.model_copy(
        update={"defaults": lab.defaults.model_copy(update={"launcher": "virtme-ng"})}
    )
    prepared = prepare(lab, ["stock"], lambda _: None)
    with tempfile.TemporaryDirectory() as folder:
        said = vng(spec_in(prepared, folder), "echo $((6 * 7)) answers")[1]
        assert b"42 answers" in said, said[-2000:]  # vng does run its command
    logs = [math.log(measured(prepared, number)) for number in range(asked.rounds)]
    found = paired(logs, confidence=CONFIDENCE, margin=0.0)
    low, high = found.ci
    spread = f"{100 * CONFIDENCE:g} % CI {low:.2f} to {high:.2f}, {found.blocks} rounds"
    return int(
        not report(
            Figure(name="boot until ready / vng --exec true", value=found.ratio, goal=GOAL,
                   spread=f"{spread}, {prepared.accel}")
        )
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())

"""Boot to ready through QEMU, against `vng --exec true`: the ratio of their times.

Both boot the same image on the same topology under the same accelerator, one after
the other, several times; the two ways alternate, so that the host's drift meets them
alike. vng's time is the whole command's, ours ends when the guest takes commands.
Target: at most 0.5.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from labctl.guests import virtme
from labctl.guests.guest import Guest
from labctl.guests.prepare import prepare
from labctl.lab import load

ROOT = Path(__file__).parent.parent
TARGET = 0.5
SECONDS = 600


def by_qemu(spec):
    """Return the seconds from nothing to a guest that has answered a command."""
    began = time.monotonic()
    with Guest(spec) as guest:
        guest.wait_ready(SECONDS)
        guest.run(["true"], timeout_seconds=SECONDS)
        return time.monotonic() - began


def by_vng(spec):
    """Return the seconds that vng needs for the same, as its users call it."""
    words = virtme.command(spec)
    at = words.index("--exec")
    # Neither our programs nor our ports: plain vng on this machine.
    plain = [w for w in words[1:at] if not w.startswith("--rodir=")]
    vng = virtme.find()
    path = os.pathsep.join([str(Path(vng).parent), os.environ["PATH"]])
    began = time.monotonic()
    subprocess.run([vng, *plain, "--exec", "true"], check=True, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=spec.folder,
                   env={**os.environ, "PATH": path}, timeout=SECONDS)  # fmt: skip
    return time.monotonic() - began


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
    qemu, vng = [], []
    for number in range(asked.rounds):
        with tempfile.TemporaryDirectory() as folder:
            spec = prepared.spec(
                "stock", name="stock", folder=Path(folder), topology=lab.guests["numa4"]
            )
            qemu.append(by_qemu(replace(spec, launcher="qemu")))
            vng.append(by_vng(spec))
        print(f"round {number + 1}: qemu {qemu[-1]:.2f} s, vng {vng[-1]:.2f} s", flush=True)
    ratio = statistics.median(a / b for a, b in zip(qemu, vng, strict=True))
    print(f"boot through qemu / vng --exec true: {ratio:.2f} (target {TARGET}, {prepared.accel})")
    return 0 if ratio <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())

"""Which accelerator works here: KVM is one that booted a probe guest, not a device node."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

from labctl.errors import GuestError, HostError
from labctl.guests.guest import Guest, GuestSpec
from labctl.host import Host
from labctl.lab_models import Topology

PROBE_SECONDS = 5.0
_PROBE_TOPOLOGY = Topology(nodes=1, cpus_per_node=1, memory_per_node=512 * 2**20)


def choose(asked: str, spec: GuestSpec, *, host: Host, cache: Path) -> str:
    """Return "kvm" or "tcg".

    `asked` is lab.yaml's `accel`; for "auto" a one-node guest of `spec`'s image and
    initramfs boots under KVM with a deadline of five seconds. The answer is kept
    in `cache` for this boot of this host.

    Raises:
        HostError: KVM was asked for and its probe guest did not come up.
    """
    if asked == "tcg":
        return "tcg"
    key = f"{host.boot_id} {host.qemu}"
    known = _cached(cache, key)
    reason = known if known is not None else _probe(spec)
    if known is None:
        _remember(cache, key, reason)
    if not reason:
        return "kvm"
    if asked == "kvm":
        raise HostError(
            f"KVM does not work on this host: {reason}",
            hint="`accel: auto` takes TCG where KVM does not boot a guest",
        )
    return "tcg"


def expected(asked: str, *, host: Host, cache: Path) -> str:
    """Return what `choose` will say if it was asked before, else `asked`; boots nothing."""
    if asked == "tcg":
        return "tcg"
    known = _cached(cache, f"{host.boot_id} {host.qemu}")
    return asked if known is None else "tcg" if known else "kvm"


def _probe(spec: GuestSpec) -> str:
    """Return an empty text if a KVM guest reached its init, or why it did not."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "/dev/kvm cannot be opened"
    folder = spec.folder / "probe"
    probe = replace(spec, name="probe", accel="kvm", topology=_PROBE_TOPOLOGY, folder=folder)
    try:
        with Guest(probe) as guest:
            guest.wait_ready(PROBE_SECONDS)
    except GuestError as error:
        return f"the probe guest {error.what}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return ""


def _cached(cache: Path, key: str) -> str | None:
    try:
        content = json.loads(cache.read_text())
        return str(content["reason"]) if content["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(cache: Path, key: str, reason: str) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text(json.dumps({"key": key, "reason": reason}) + "\n")

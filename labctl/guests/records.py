"""Records of the guests kept by `labctl up`, each in the guest's folder.

A record is written before its QEMU is started, and is replaced atomically. A damaged
record only shows that there is a guest.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from labctl import files, process_table
from labctl.errors import UserError
from labctl.guests import qemu
from labctl.guests.disks import Disk
from labctl.guests.qemu import GuestSpec
from labctl.kernels.build import Image
from labctl.lab.limits import GuestLimits
from labctl.lab.state import PAUSED
from labctl.lab.topology import Topology

RECORD = "guest.json"
_TRACES = {RECORD, qemu.CONSOLE_LOG, qemu.QEMU_LOG, qemu.COMMAND}


@dataclass(frozen=True, slots=True)
class Record:
    """A guest: pid and start time of its QEMU, None if not yet known, and its spec.

    `spec` is None if the record is damaged.
    """

    pid: int | None = None
    started_ticks: int | None = None
    spec: GuestSpec | None = None

    def machine(self) -> process_table.Found | None:
        """Return the recorded QEMU process, None if it does not run."""
        if self.pid is None or self.started_ticks is None:
            return None
        found = process_table.Found(self.pid, self.started_ticks)
        return found if found.poll() is None else None


def read(folder: Path) -> Record | None:
    """Return the record in a guest's folder, None if there is none."""
    path = folder / RECORD
    if not os.path.lexists(path):
        return None
    content: dict[str, Any] = files.read_json(path)
    pid, ticks = _number(content.get("pid")), _number(content.get("started_ticks"))
    try:
        # The folder may have been moved while the guest runs.
        spec = replace(_spec_from_json(content["spec"]), folder=folder)
    except (KeyError, TypeError, ValueError, AttributeError):
        return Record(pid, ticks)
    return Record(pid, ticks, spec)


def check_own(folder: Path) -> None:
    """Check that a folder may be cleared for a guest: it is empty or a guest's folder.

    Raises:
        UserError: it contains files, but none that identifies a guest's folder.
    """
    try:
        names = set(os.listdir(folder))  # noqa: PTH208 - the names only
    except FileNotFoundError:
        return
    except NotADirectoryError:
        names = {""}
    if names and names.isdisjoint(_TRACES):
        raise UserError(
            "contains files that labctl did not create", where=str(folder), hint="move it elsewhere"
        )


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def write(folder: Path, record: Record) -> None:
    """Replace the record of a guest."""
    assert record.spec is not None
    content = {
        "pid": record.pid,
        "started_ticks": record.started_ticks,
        "spec": _spec_as_json(record.spec),
    }
    _write(folder / RECORD, content)


def _write(path: Path, content: object) -> None:
    # No guest outlives a crash of the host, so its record need not either.
    files.write_json(path, content, is_lasting=False)


def remove(folder: Path) -> None:
    """Remove the record of a guest; its logs stay."""
    (folder / RECORD).unlink(missing_ok=True)
    (folder / PAUSED).unlink(missing_ok=True)


def note_paused(folder: Path) -> None:
    """Record, before a guest is paused, that this process will resume it."""
    mine = os.getpid()
    _write(folder / PAUSED, {"pid": mine, "started_ticks": process_table.started_ticks(mine)})


def note_resumed(folder: Path) -> None:
    """Record that a guest was resumed."""
    (folder / PAUSED).unlink(missing_ok=True)


def is_forsaken(folder: Path) -> bool:
    """Return whether a guest was paused by a process that exited without resuming it."""
    path = folder / PAUSED
    if not os.path.lexists(path):
        return False
    by = files.read_json(path)
    pid, ticks = by.get("pid"), by.get("started_ticks")
    return not (isinstance(pid, int) and isinstance(ticks, int)) or (
        process_table.started_ticks(pid) != ticks
    )


def noted(guests: Path) -> list[Path]:
    """Return the folders of the guests that are recorded as paused."""
    return [path.parent for path in sorted(guests.glob(f"*/{PAUSED}"))]


def _spec_as_json(spec: GuestSpec) -> dict[str, Any]:
    image = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(spec.image).items()}
    return {
        "name": spec.name,
        "image": image,
        "topology": spec.topology.model_dump(mode="json"),
        "initramfs": str(spec.initramfs),
        "accel": spec.accel,
        "folder": str(spec.folder),
        "command_line": spec.command_line,
        "launcher": spec.launcher,
        "programs": None if spec.programs is None else str(spec.programs),
        "transport": spec.transport,
        "ssh_key": None if spec.ssh_key is None else str(spec.ssh_key),
        "limits": spec.limits.model_dump(),
        "disks": [[str(disk.path), disk.digest, disk.stamp] for disk in spec.disks],
        "one_thread": spec.one_thread,
    }


def _spec_from_json(data: dict[str, Any]) -> GuestSpec:
    image = dict(data["image"])
    image["bzimage"] = Path(image["bzimage"])
    image["config"] = Path(image["config"]) if image["config"] else None
    image["patch_hashes"] = tuple(image["patch_hashes"])
    return GuestSpec(
        name=data["name"],
        image=Image(**image),
        topology=Topology.model_validate(data["topology"]),
        initramfs=Path(data["initramfs"]),
        accel=data["accel"],
        folder=Path(data["folder"]),
        command_line=data["command_line"],
        launcher=data.get("launcher", "qemu"),
        programs=Path(data["programs"]) if data.get("programs") else None,
        transport=data.get("transport", "serial"),
        ssh_key=Path(data["ssh_key"]) if data.get("ssh_key") else None,
        limits=GuestLimits.model_validate(data.get("limits", {})),
        disks=tuple(Disk(Path(path), *rest) for path, *rest in data.get("disks", ())),
        one_thread=data.get("one_thread", False),
    )

"""Guests that outlive a command: `labctl up` starts them, `labctl down` ends them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from labctl import proc
from labctl.errors import GuestError, HostError, UserError
from labctl.guests import launchers, qemu
from labctl.guests.guest import Guest, GuestSpec, State, prepare_folder
from labctl.kernels.build import Image
from labctl.lab_models import Topology
from labctl.transports.console import Console

_RECORD = "guest.json"
_UNCHANGED = "unchanged"


class Fleet:
    """The guests under one folder; each has a folder of its own with a record of its process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Return the guests that have a record, running or not."""
        return sorted(record.parent.name for record in self.folder.glob(f"*/{_RECORD}"))

    def spec_folder(self, name: str) -> Path:
        """Return where a guest of this name keeps its logs and sockets."""
        return self.folder / name

    def up(self, specs: Sequence[GuestSpec], deadline_seconds: float) -> dict[str, str]:
        """Make these guests run side by side, as their specs say; return when all are ready.

        Returns by their names what was done: `started`, `unchanged`, or `restarted`
        and why, when what runs is not what the spec says. If one does not come up,
        those that this call started are ended again.

        Raises:
            GuestError: a guest did not come up.
            HostError: an image or the initramfs is damaged.
        """
        done = {spec.name: self._to_do(spec) for spec in specs}
        to_start = [spec for spec in specs if done[spec.name] != _UNCHANGED]
        for spec in to_start:
            spec.check_files()  # before one that runs is ended for it
        started: list[Guest] = []
        try:
            for spec in to_start:
                if self.running(spec.name):
                    self.down(spec.name)
                guest = Guest(spec)
                started.append(guest)  # before it runs: a signal may come in between
                self.start(guest)
            for guest in started:
                guest.wait_ready(deadline_seconds)
        except BaseException:
            for guest in started:
                if guest.spec.name in self.names():
                    self.down(guest.spec.name, keep_logs=True)
            raise
        finally:
            for guest in started:
                guest.detach()
        return done

    def _to_do(self, spec: GuestSpec) -> str:
        if not self.running(spec.name):
            return "started"
        before = _spec_from_json(self._record(spec.name)["spec"])
        # Where it is on the host is not on record; what asks for it is the topology.
        before = replace(before, placement=spec.placement)
        if before == spec:
            return _UNCHANGED
        if before.image.hash != spec.image.hash:
            return "restarted: its kernel changed"
        names = (each.name for each in fields(spec))
        changed = [name for name in names if getattr(before, name) != getattr(spec, name)]
        return f"restarted: {', '.join(changed)} changed"

    def start(self, guest: Guest) -> None:
        """Start a guest that outlives this process; its folder must be one of the fleet's."""
        spec = guest.spec
        shutil.rmtree(spec.folder, ignore_errors=True)
        prepare_folder(spec)

        def record(pid: int) -> None:
            ticks = proc.started_ticks(pid)
            content = {"pid": pid, "started_ticks": ticks, "spec": _spec_as_json(spec)}
            (spec.folder / _RECORD).write_text(json.dumps(content, indent=1) + "\n")

        argv, log = launchers.argv(spec), spec.folder / qemu.QEMU_LOG
        machine = proc.launch(argv, log=log, record=record, cwd=spec.folder)
        guest.attach(machine)

    def _record(self, name: str) -> dict[str, Any]:
        path = self.folder / name / _RECORD
        try:
            content: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError as error:
            known = ", ".join(self.names()) or "none"
            raise UserError(
                f"no guest {name} is up (up: {known})", hint="`labctl up` starts the lab's guests"
            ) from error
        except ValueError as error:
            raise HostError(f"{path} is damaged", hint="remove the folder it is in") from error
        return content

    def _machine(self, record: dict[str, Any]) -> proc.Found:
        return proc.Found(int(record["pid"]), record["started_ticks"])

    def running(self, name: str) -> bool:
        """Return whether a guest's QEMU runs."""
        return name in self.names() and self._machine(self._record(name)).poll() is None

    @contextlib.contextmanager
    def guest(
        self, name: str, *, patience_seconds: float = qemu.PATIENCE_SECONDS
    ) -> Iterator[Guest]:
        """Attach to a running guest; one labctl at a time holds its command line.

        With little patience, a guest that does not answer is given up sooner.

        Raises:
            UserError: it is not up, or another labctl talks to it.
        """
        record = self._record(name)
        spec = _spec_from_json(record["spec"])
        machine = self._machine(record)
        if machine.poll() is not None:
            raise UserError(
                f"the guest {name} has ended; its console is {spec.folder / qemu.CONSOLE_LOG}",
                hint="`labctl down` clears it away, `labctl up` starts it again",
            )
        with _exclusive(spec.folder / _RECORD, name):
            guest = Guest(spec).attach(machine)
            guest.be_patient(patience_seconds)
            try:
                guest.state = self._state(guest)
                yield guest
            finally:
                guest.detach()

    def _state(self, guest: Guest) -> State:
        if guest.console.panic():
            return State.CRASHED
        if guest.console.boot_id is None:
            return State.BOOTING
        status = guest.qmp_status()
        return State.PAUSED if status == "paused" else State.READY

    def status(self) -> list[dict[str, Any]]:
        """Return one row a guest: name, state, pid, kernel, image, accelerator, complaints."""
        rows = []
        for name in self.names():
            record = self._record(name)
            spec = _spec_from_json(record["spec"])
            console = Console(spec.folder / qemu.CONSOLE_LOG)
            console.poll()
            state = State.GONE.value
            if self._machine(record).poll() is None:
                try:
                    with self.guest(name) as guest:
                        state = guest.state.value
                except GuestError:
                    state = State.HUNG.value
                except UserError:
                    state = State.BUSY.value
            rows.append(
                {
                    "name": name,
                    "state": state,
                    "pid": record["pid"],
                    "kernel": spec.image.kernel,
                    "release": spec.image.release,
                    "image": spec.image.hash,
                    "accel": spec.accel,
                    "boot_id": console.boot_id,
                    "complaints": [c.text.strip() for c in console.complaints],
                    "console": str(console.path),
                }
            )
        return rows

    def down(self, name: str, *, keep_logs: bool = False) -> None:
        """End a guest and clear its record away; its folder too unless `keep_logs`."""
        self._machine(self._record(name)).end()
        if keep_logs:
            (self.folder / name / _RECORD).unlink(missing_ok=True)
        else:
            shutil.rmtree(self.folder / name, ignore_errors=True)

    @contextlib.contextmanager
    def paused(self) -> Iterator[list[str]]:
        """Pause every running guest for the length of the block; yield their names."""
        stopped = []
        try:
            for name in self.names():
                with contextlib.suppress(UserError, GuestError), self.guest(name) as guest:
                    if guest.state is State.READY:
                        guest.pause()
                        stopped.append(name)
            yield stopped
        finally:
            for name in stopped:
                with contextlib.suppress(UserError, GuestError), self.guest(name) as guest:
                    guest.resume()


@contextlib.contextmanager
def _exclusive(path: Path, name: str) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for attempt in range(10):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if attempt == 9:
                    raise UserError(f"another labctl is talking to {name}") from error
                time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)


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
    )

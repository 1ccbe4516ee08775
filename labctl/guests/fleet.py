"""The guests that `labctl up` starts and `labctl down` stops."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from labctl import files, proc, process_table
from labctl.errors import GuestError, LabError, UserError
from labctl.guests import box, gdb, launchers, processes, qemu, records
from labctl.guests.folder import prepare_folder
from labctl.guests.guest import Guest, GuestSpec, State
from labctl.guests.locks import command_port_lock, fleet_lock
from labctl.guests.records import Record
from labctl.transports.console import Console

UNCHANGED = "unchanged"
# Of `recover`, which must not wait for a hung guest.
_RECOVER_SECONDS = 1.0


class Fleet:
    """The guests under one folder; each has a subfolder with a record of its process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Return the guests that have a record or a QEMU, running or not."""
        recorded = {record.parent.name for record in self.folder.glob(f"*/{records.RECORD}")}
        return sorted(recorded | processes.of(self.folder).keys())

    def spec_folder(self, name: str) -> Path:
        """Return the folder of a guest's logs and sockets.

        Raises:
            UserError: the name is not valid for a guest.
        """
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise UserError(f"invalid guest name {name!r}", hint="`labctl status` lists guests")
        return self.folder / name

    def up(self, specs: Sequence[GuestSpec], deadline_seconds: float) -> dict[str, str]:
        """Start guests, restart those whose spec changed, and wait until all are ready.

        Returns the action for each name: `started`, `unchanged`, or `restarted` with the
        reason. If one guest fails to boot, the guests started by this call are stopped.

        Raises:
            GuestError: a guest failed to boot.
            HostError: an image or the initramfs is damaged, or the lock timed out.
            UserError: a guest's folder contains files that labctl did not create.
        """
        begun: list[Guest] = []
        attached: list[Guest] = []
        ours: dict[str, Record | None] = {}
        try:
            with fleet_lock(self.folder):
                done = {spec.name: self._to_do(spec) for spec in specs}
                self._begin([spec for spec in specs if done[spec.name] != UNCHANGED], begun)
                ours = {guest.name: records.read(guest.spec.folder) for guest in begun}
                for spec in specs:
                    if done[spec.name] == UNCHANGED:
                        attached += self._booting(spec)  # another labctl has just started it
            for guest in (*begun, *attached):
                guest.wait_ready(deadline_seconds)
        except BaseException:
            self._end_if(ours)
            raise
        finally:
            for guest in (*begun, *attached):
                guest.detach()
        return done

    def _begin(self, specs: Sequence[GuestSpec], begun: list[Guest]) -> None:
        """Start all guests or none; append the started guests to `begun`."""
        for spec in specs:
            spec.check_files()  # before a running guest is stopped
            records.check_own(spec.folder)
        try:
            for spec in specs:
                self._end(spec.name)
                guest = Guest(spec)
                begun.append(guest)  # first, since a signal may interrupt the start
                self._start(guest)
        except BaseException:
            for guest in begun:
                self._end(guest.name, keep_logs=True)
            raise

    def _booting(self, spec: GuestSpec) -> list[Guest]:
        """Return the guest, attached, if it runs and is still booting."""
        machines = self._machines(spec.name)
        console = Console(spec.folder / qemu.CONSOLE_LOG)
        console.poll()
        if not machines or console.boot_id or console.panic():
            return []
        return [Guest(spec).attach(machines[0])]

    def _end_if(self, ours: Mapping[str, Record | None]) -> None:
        """Stop guests, except those that another labctl has restarted since."""
        if not ours:
            return
        with fleet_lock(self.folder):
            for name, record in ours.items():
                if records.read(self.spec_folder(name)) == record:
                    self._end(name, keep_logs=True)

    def _to_do(self, spec: GuestSpec) -> str:
        if not self.running(spec.name):
            return "started"
        record = records.read(self.spec_folder(spec.name))
        if record is None or record.spec is None:
            return "restarted: its record was damaged"
        # The record has no placement: it follows from the topology.
        before = replace(record.spec, placement=spec.placement)
        if before == spec:
            return UNCHANGED
        if before.image.hash != spec.image.hash:
            return "restarted: its kernel changed"
        names = (each.name for each in fields(spec) if each.compare)
        changed = [name for name in names if getattr(before, name) != getattr(spec, name)]
        return f"restarted: {', '.join(changed)} changed"

    def start(self, guest: Guest) -> None:
        """Start a guest that outlives this process; stop a running one of the same name."""
        with fleet_lock(self.folder):
            records.check_own(guest.spec.folder)
            self._end(guest.name)
            self._start(guest)

    def _start(self, guest: Guest) -> None:
        spec = guest.spec
        files.remove(spec.folder)
        prepare_folder(spec)
        argv, log = launchers.argv(spec), spec.folder / qemu.QEMU_LOG
        # Write a record without a pid first, so that QEMU can be found if this process
        # is killed now.
        records.write(spec.folder, Record(spec=spec))

        def record(pid: int) -> None:
            records.write(spec.folder, Record(pid, process_table.started_ticks(pid), spec))
            box.limit_guest(pid, spec)

        mark = {processes.MARK: spec.name}
        try:
            machine = proc.launch(argv, log=log, record=record, cwd=spec.folder, env=mark)
        except BaseException:
            records.remove(spec.folder)
            raise
        guest.attach(machine)

    def _recorded(self, name: str) -> Record:
        """Return the record of a guest; raises UserError if there is none."""
        record = records.read(self.spec_folder(name))
        if record is not None:
            return record
        if name in self.names():
            return Record()
        known = ", ".join(self.names()) or "none"
        raise UserError(
            f"guest {name} is not running (running: {known})", hint="start it with `labctl up`"
        )

    def _machines(self, name: str) -> list[process_table.Found]:
        """Return the QEMU of a guest if it runs; without a valid record, all candidates."""
        record = records.read(self.spec_folder(name))
        machine = record.machine() if record else None
        return [machine] if machine else processes.of(self.folder).get(name, [])

    def running(self, name: str) -> bool:
        """Return whether a guest's QEMU runs."""
        return bool(self._machines(name))

    @contextlib.contextmanager
    def guest(
        self, name: str, *, patience_seconds: float = qemu.PATIENCE_SECONDS
    ) -> Iterator[Guest]:
        """Attach to a running guest, for one labctl process at a time.

        `patience_seconds` limits the wait for a guest that does not respond.

        Raises:
            UserError: the guest is not running or in use, or its record is damaged.
        """
        folder, spec = self.spec_folder(name), self._recorded(name).spec
        machines = self._machines(name)
        if not machines:
            raise UserError(
                f"guest {name} has exited; its console log is {folder / qemu.CONSOLE_LOG}",
                hint="`labctl down` removes it, `labctl up` restarts it",
            )
        if spec is None:
            raise UserError(
                f"the record of guest {name} is damaged",
                where=str(folder / records.RECORD),
                hint=f"`labctl up {name}` restarts it, `labctl down {name}` stops it",
            )
        with command_port_lock(folder, name):
            guest = Guest(spec).attach(machines[0])
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

    def status(self, ready: Collection[str] = ()) -> list[dict[str, Any]]:
        """Return a row per guest: name, state, pid, kernel, image, accelerator, complaints.

        A guest with a damaged record has state `unknown` and empty fields. Guests in
        `ready` are reported as ready without a QMP query.
        """
        return [self._row(name, is_ready=name in ready) for name in self.names()]

    def _row(self, name: str, *, is_ready: bool) -> dict[str, Any]:
        folder = self.spec_folder(name)
        record = records.read(folder) or Record()
        spec, machines = record.spec, self._machines(name)
        console = Console(folder / qemu.CONSOLE_LOG)
        console.poll()
        state = State.READY if is_ready and machines else self._state_of(name, spec, machines)
        return {
            "name": name,
            "state": state.value,
            "pid": machines[0].pid if machines else record.pid,
            "kernel": spec.image.kernel if spec else "",
            "release": spec.image.release if spec else "",
            "image": spec.image.hash if spec else "",
            "accel": spec.accel if spec else "",
            "boot_id": console.boot_id,
            "complaints": [c.text.strip() for c in console.complaints],
            "console": str(console.path),
        }

    def _state_of(
        self, name: str, spec: GuestSpec | None, machines: Sequence[process_table.Found]
    ) -> State:
        if not machines:
            return State.GONE
        if spec is None:
            return State.UNKNOWN
        try:
            with self.guest(name) as guest:
                return guest.state
        except GuestError:
            return State.HUNG
        except UserError:
            return State.BUSY

    def end(self, name: str) -> None:
        """Stop a guest's QEMU, and remove nothing.

        Raises:
            UserError: there is no such guest.
        """
        self._end_machines(name, self._recorded(name))

    def _end_machines(self, name: str, record: Record | None) -> None:
        machine = record.machine() if record else None
        for found in ([machine] if machine else []) + processes.of(self.folder).get(name, []):
            found.end()

    def down(self, name: str, *, keep_logs: bool = False) -> None:
        """Stop a guest and remove its record; its folder too unless `keep_logs`.

        Raises:
            UserError: there is no such guest.
            HostError: the lock timed out, or the folder cannot be removed.
        """
        self._recorded(name)
        with fleet_lock(self.folder):
            self._end(name, keep_logs=keep_logs)

    def _end(self, name: str, *, keep_logs: bool = False) -> None:
        folder = self.spec_folder(name)
        self._end_machines(name, records.read(folder))
        if keep_logs:
            records.remove(folder)
        else:
            files.remove(folder)

    @contextlib.contextmanager
    def paused(self) -> Iterator[list[str]]:
        """Pause every running guest inside the `with` block; yield their names.

        If this process is killed, the next labctl resumes them (`recover`).
        """
        self.recover()
        stopped: list[str] = []
        try:
            for name in self.names():
                with contextlib.suppress(UserError, GuestError), self.guest(name) as guest:
                    if guest.state is State.READY:
                        stopped.append(name)
                        records.note_paused(guest.spec.folder)
                        guest.pause()
            yield stopped
        finally:
            for name in stopped:
                with contextlib.suppress(UserError, GuestError), self.guest(name) as guest:
                    guest.resume()
                    records.note_resumed(guest.spec.folder)

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Record inside the `with` block that a guest may be paused, for example by gdb.

        Afterwards, also after an error, the guest is resumed and its gdb server stopped.
        """
        records.note_paused(self.spec_folder(name))
        try:
            yield
        finally:
            self._let_go(name)

    def _let_go(self, name: str) -> None:
        with contextlib.suppress(LabError), self.guest(name) as guest:
            _resume(guest)

    def recover(self) -> None:
        """Resume the guests that a killed labctl had paused."""
        for folder in records.noted(self.folder):
            if not records.is_forsaken(folder):
                continue
            if not self.running(folder.name):
                records.note_resumed(folder)
                continue
            with (
                contextlib.suppress(LabError),
                self.guest(folder.name, patience_seconds=_RECOVER_SECONDS) as guest,
            ):
                if records.is_forsaken(folder):  # not paused again by another process
                    _resume(guest)


def _resume(guest: Guest) -> None:
    gdb.stop(guest)
    records.note_resumed(guest.spec.folder)

"""The workers of a scheduler: who joined, who is gone, and what each waits for."""

from __future__ import annotations

import contextlib
import queue
import secrets
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from labctl.errors import LabError
from labctl.scheduler.client import Connection, Future
from labctl.scheduler.task import HostReport

_LOOK_SECONDS = 1.0

Life = Generator[Future | None, Any, None]


class LeftOut(Exception):
    """A host is not used, and why."""


class Gone(Exception):
    """A worker was cut off, or its work was cancelled."""


class Ended(Gone):
    """A worker died or left."""


@dataclass(slots=True, eq=False)
class Host:
    """A worker, and the part that it does. `life` is its course, `future` what that waits for."""

    address: str
    name: str
    last_seen: float
    changed_at: float
    life: Life | None = None
    future: Future | None = None
    part: str = ""
    report: HostReport | None = None
    left_out: str = ""
    has: set[str] = field(default_factory=set)
    is_used: bool = False  # no other worker of the same host is
    is_told_busy: bool = False  # that another measurement runs there


@dataclass(slots=True)
class Hosts:
    """All workers that offer the resource; `course` returns the life of one.

    A life is a generator that yields what it waits for, None for the next turn. It gets the
    result, or `Gone`. A worker without a heartbeat for `patience_seconds` counts as cut off.
    """

    connection: Connection
    warning: Callable[[str], None]
    patience_seconds: float
    course: Callable[[Host], Life]
    event: Callable[[Host, Mapping[str, Any]], None]
    token: str = field(default_factory=lambda: secrets.token_hex(4))
    _known: dict[str, Host] = field(default_factory=dict)
    _events: queue.SimpleQueue[tuple[str, Any]] = field(default_factory=queue.SimpleQueue)
    _calls: int = 0
    _looked_at: float | None = None

    @property
    def topic(self) -> str:
        """The topic of what workers report."""
        return f"labctl-{self.token}"

    @property
    def every(self) -> list[Host]:
        """All workers, the earliest first."""
        return list(self._known.values())

    def begin(self) -> None:
        """Receive what workers report."""
        self.connection.subscribe(self.topic, lambda event: self._events.put(("event", event)))

    def call(self, host: Host, function: Callable[..., object], *args: object) -> Future:
        """Call a function on a worker; `next_key` was the key of this call."""
        key = self.next_key
        self._calls += 1
        return self.connection.call(host.address, function, *args, key=key)

    @property
    def next_key(self) -> str:
        """The key of the next call."""
        return f"{self.topic}-{self._calls}"

    def turn(self) -> None:
        """Look who is there, let hosts that wait continue, and handle one event."""
        now = time.monotonic()
        if self._looked_at is None or now - self._looked_at >= _LOOK_SECONDS:
            self._look(now)
            self._looked_at = now
        for host in self.every:
            if host.life is not None and host.future is None:
                self._advance(host)
        with contextlib.suppress(queue.Empty):
            kind, content = self._events.get(timeout=_LOOK_SECONDS)
            key = content if kind == "done" else content.get("key")
            for host in self.every:
                if host.future is not None and host.future.key == key:
                    if kind == "done":
                        self._finish(host, host.future)
                    else:
                        self.event(host, content)

    def cancel(self) -> None:
        """End what all hosts do; each begins its course anew with the next turn."""
        for host in self.every:
            if host.future is not None:
                host.future.cancel()
                host.future = None
            if host.life is not None:
                host.life.close()
                host.life, host.is_used = self.course(host), False

    def _look(self, now: float) -> None:
        """Add workers that joined, and drop those that left or are silent."""
        present = {one.address: one for one in self.connection.workers() if one.offers}
        for address, host in list(self._known.items()):
            if address not in present:
                del self._known[address]
                self._drop(host, "left the scheduler", Ended)
            elif present[address].last_seen != host.last_seen:
                host.last_seen, host.changed_at = present[address].last_seen, now
            elif now - host.changed_at > self.patience_seconds:
                self._drop(host, f"sent nothing for {self.patience_seconds:g} s")
        for address, found in present.items():
            if address not in self._known:
                self._known[address] = Host(address, found.name, found.last_seen, now)
            host = self._known[address]
            if host.life is None and not host.left_out and host.changed_at == now:
                host.life, host.report = self.course(host), None

    def _drop(self, host: Host, why: str, kind: type[Gone] = Gone) -> None:
        """End the course of a host; another one takes its block."""
        if host.life is None:
            return
        if host.part:
            self.warning(f"worker {host.name}: {why}; {host.part} goes to another worker")
        self._advance(host, error=kind(why))

    def _advance(self, host: Host, result: object = None, error: Exception | None = None) -> None:
        """Advance the course of a host until it waits or ends."""
        assert host.life is not None
        if host.future is not None:
            host.future.cancel()
            host.future = None
        try:
            host.future = host.life.send(result) if error is None else host.life.throw(error)
        except (StopIteration, Gone):
            host.life, host.is_used = None, False
        except LeftOut as reason:
            host.life, host.is_used, host.left_out = None, False, str(reason)
            self.warning(f"worker {host.name} is not used: {reason}")
        if host.future is not None:
            host.future.add_done_callback(lambda done: self._events.put(("done", done.key)))

    def _finish(self, host: Host, future: Future) -> None:
        """Give a host the result of its call."""
        try:
            is_lost = future.status in ("cancelled", "lost")
            result = None if is_lost else future.result(timeout=self.patience_seconds)
        except TimeoutError:
            self._drop(host, "its result did not arrive")
        except Exception as error:  # whatever the worker raised
            self._advance(host, error=LeftOut(_reason(error)))
        else:
            if is_lost:
                self._drop(host, "its work was cancelled")
            else:
                self._advance(host, result)


def _reason(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"labctl cannot be imported there: {error}"
    return error.what if isinstance(error, LabError) else f"{type(error).__name__}: {error}"

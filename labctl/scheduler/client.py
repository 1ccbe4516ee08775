"""The connection to a Dask scheduler: its workers, and calls of functions on them."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

from labctl.errors import HostError, UserError
from labctl.scheduler.address import address_of, is_encrypted

RESOURCE = "hypervisor"
_SECONDS = 30.0
_ANSWER_SECONDS = 10.0
# What Dask writes before the message of the system.
_CLASSES = re.compile(r"^in <[^>]*>: \w+: ")
_START = "start workers with `labctl worker`, or with `dask worker --resources hypervisor=1`"


class Future(Protocol):
    """The result of a call, once it is there."""

    key: str
    status: str

    def result(self, timeout: float | None = None) -> Any: ...  # noqa: ANN401

    def cancel(self) -> None: ...

    def add_done_callback(self, fn: Callable[[Any], None]) -> None: ...


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker as the scheduler sees it; `last_seen` changes with each of its heartbeats."""

    address: str
    name: str
    offers: bool  # the resource `hypervisor`
    last_seen: float


class Connection:
    """A connection to the scheduler; see `connected`. `again` is the hint if that is lost."""

    def __init__(self, address: str, client: Any, again: str | None = None) -> None:  # noqa: ANN401
        self.address = address
        self._again = again
        self._client = client

    def workers(self) -> list[WorkerInfo]:
        """Return all workers; raise HostError if the scheduler is gone."""
        try:
            found = self._client.sync(self._client.scheduler.identity, callback_timeout=_SECONDS)
        except Exception as error:  # comm errors of several libraries
            raise HostError(
                f"lost the scheduler at {self.address}: {str(error) or type(error).__name__}",
                hint=self._again,
            ) from error
        return [
            WorkerInfo(
                address,
                str(one["name"]),
                one.get("resources", {}).get(RESOURCE, 0) >= 1,
                float(one["last_seen"]),
            )
            for address, one in found["workers"].items()
        ]

    def call(self, worker: str, function: Callable[..., object], *args: object, key: str) -> Future:
        """Call a function on a worker, while it does nothing else."""
        found: Future = self._client.submit(
            function,
            *args,
            key=key,
            workers=[worker],
            allow_other_workers=False,
            resources={RESOURCE: 1},
            retries=0,
            pure=False,
        )
        return found

    def call_at_once(
        self, workers: Sequence[str], function: Callable[[], object]
    ) -> dict[str, Any]:
        """Call a quick function on workers beside what they do; return results by address.

        Workers that do not answer are missing.
        """
        found: dict[str, Any] = {}

        def run(worker: str) -> None:
            with contextlib.suppress(Exception):  # of several libraries, and of unpickling
                found.update(self._client.run(function, workers=[worker]))

        # Dask has no deadline for this.
        threads = [Thread(target=run, args=(one,), daemon=True) for one in workers]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + _ANSWER_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return dict(found)

    def subscribe(self, topic: str, handler: Callable[[Mapping[str, Any]], None]) -> None:
        """Call `handler` in another thread with each event of a topic."""
        self._client.subscribe_topic(topic, lambda event: handler(event[1]))


@contextlib.contextmanager
def connected(given: str, folder: Path = Path(), again: str | None = None) -> Iterator[Connection]:
    """Connect to the scheduler in `given`, an address or a scheduler file.

    `again` says how to continue after it is lost.

    Raises:
        UserError: the address is invalid, or not safe.
        HostError: distributed is not installed, or there is no scheduler.
    """
    address = address_of(given, folder)
    distributed = imported()
    security = security_of(address)
    with contextlib.ExitStack() as stack:
        try:
            client = distributed.Client(
                address, security=security, timeout=_SECONDS, set_as_default=False
            )
        except (OSError, TimeoutError, ValueError, RuntimeError) as error:
            why = _CLASSES.sub("", str(error.__cause__ or error)) or type(error).__name__
            raise HostError(
                f"cannot connect to the scheduler at {address}: {why}",
                hint="start it with `dask scheduler`; with TLS, both need certificates of the "
                "same authority",
            ) from error
        stack.callback(client.close, timeout=_SECONDS)
        yield Connection(address, client, again)


def imported() -> Any:  # noqa: ANN401
    """Return the module distributed; raise HostError if it is not installed."""
    try:
        import dask
        import distributed
    except ImportError as error:
        raise HostError(
            f"distributed cannot be imported: {error}", hint="pip install 'labctl[dask]'"
        ) from error
    # Losses of workers are reported by labctl.
    for name in [one for one in logging.root.manager.loggerDict if one.startswith("distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # A profile of each worker's threads, 100 times a second, would disturb measurements.
    dask.config.set({"distributed.worker.profile.enabled": False})
    return distributed


def security_of(address: str) -> Any:  # noqa: ANN401
    """Return Dask's security for an address; None without TLS.

    Raises:
        UserError: the address needs TLS, and Dask's configuration has no certificates.
    """
    from distributed.security import Security

    if not is_encrypted(address):
        return None
    security: Any = Security(require_encryption=True)  # type: ignore[no-untyped-call]
    if not security.tls_ca_file:
        raise UserError(
            f"no certificates for {address}",
            hint="set distributed.comm.tls in ~/.config/dask/tls.yaml; "
            "docs/howto/scheduler.md describes how",
        )
    return security


def no_workers(found: list[WorkerInfo]) -> str:
    """Return why a scheduler has no worker to measure on."""
    if not found:
        return f"no workers: {_START}"
    return f"none of {len(found)} workers offers the resource {RESOURCE}: {_START}"

"""A worker process: it offers this host to a scheduler until it is ended."""

from __future__ import annotations

from typing import Any

from labctl.scheduler.client import RESOURCE, imported, security_of
from labctl.scheduler.place import PLACE

_CONNECT_SECONDS = 60.0


async def serve(address: str, name: str) -> None:
    """Work for the scheduler at an address, which was checked, until it ends the worker.

    Raises:
        HostError: distributed is not installed.
        UserError: Dask's configuration has no certificates.
    """
    distributed = imported()
    PLACE.name = name
    PLACE.tidy()
    worker: Any = distributed.Worker(
        address,
        name=name,
        nthreads=1,
        resources={RESOURCE: 1},
        security=security_of(address),
        memory_limit=0,  # guests are not in this process
        dashboard=False,
        death_timeout=_CONNECT_SECONDS,
    )
    async with worker:
        await worker.finished()

"""Asynchronous calls awaited one at a time, to a deadline, in steps that lose no signal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from labctl.signals import STEP_SECONDS

Result = TypeVar("Result")

_CANCEL_SECONDS = 1.0


class Loop:
    """An event loop that only works inside `run`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def run(self, coroutine: Coroutine[Any, Any, Result], deadline: float) -> Result:
        """Return the coroutine's result; raises TimeoutError at `deadline` (monotonic)."""
        return self._loop.run_until_complete(_until(coroutine, deadline))

    def close(self) -> None:
        """Cancel all running tasks; safe to call twice."""
        if self._loop.is_closed():
            return
        try:
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            if left:
                self._loop.run_until_complete(asyncio.wait(left, timeout=_CANCEL_SECONDS))
        finally:
            self._loop.close()


async def _until(coroutine: Coroutine[Any, Any, Result], deadline: float) -> Result:
    task = asyncio.ensure_future(coroutine)
    while not task.done():
        left_seconds = deadline - time.monotonic()
        if left_seconds <= 0:
            task.cancel()
            await asyncio.wait({task}, timeout=_CANCEL_SECONDS)
            raise TimeoutError
        await asyncio.wait({task}, timeout=min(STEP_SECONDS, left_seconds))
    return task.result()

"""Blocking calls in a thread, so that the caller can watch and abandon them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Call(Generic[Result]):
    """A function running in its own daemon thread; `done` is set when it returns or raises.

    An abandoned call may keep running; it does not keep the program from exiting.
    """

    def __init__(self, function: Callable[[], Result]) -> None:
        self.done = threading.Event()
        self._function = function
        self._results: list[Result] = []
        self._error: BaseException | None = None
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        try:
            self._results.append(self._function())
        except BaseException as error:
            self._error = error
        self.done.set()

    def result(self) -> Result:
        """Return the function's result or raise its exception; call it only when `done`."""
        if self._error is not None:
            raise self._error
        return self._results[0]

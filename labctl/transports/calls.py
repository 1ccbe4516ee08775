"""A call that waits for somebody else, made so that it can be watched and given up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Call(Generic[Result]):
    """A function at work in a thread of its own; `done` is set when it returned or raised.

    The thread does not keep the program from ending: a call that is given up may
    go on, and nobody hears of its end.
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
        """Return what the function returned, or raise what it raised; only when it is done."""
        if self._error is not None:
            raise self._error
        return self._results[0]

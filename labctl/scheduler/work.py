"""`Work`: what the hosts of a scheduler do together, one part on one host at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from labctl import files
from labctl.errors import BadOutput, HostError
from labctl.scheduler.task import HostReport, Shipped

Part = TypeVar("Part")
Found = TypeVar("Found", contravariant=True)

# Of the workers that took a part: it may be what ends them.
_LOSSES = 3
_LOGS = ("console.log", "command.txt")


class Work(Protocol[Part, Found]):
    """Parts for hosts, such as blocks, and their results. A part that is given back is next."""

    @property
    def files(self) -> Mapping[str, Shipped]:
        """The files that hosts need, by what they are for."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        ...

    def take(self) -> Part | None:
        """Return the next part, None if there is none for now."""
        ...

    def title(self, part: Part) -> str:
        """Return what a part is called, such as "block 3"."""
        ...

    def call(self, part: Part, topic: str, key: str) -> tuple[Callable[[Any], object], object]:
        """Return the function that does a part on a worker, and its argument."""
        ...

    def keep(self, part: Part, result: Found, report: HostReport) -> None:
        """Keep the result of a part; raise BadOutput if it is damaged."""
        ...

    def give_back(self, part: Part) -> None:
        """Let another worker do a part that its worker did not."""
        ...

    def lose(self, part: Part) -> None:
        """Let another worker do a part whose worker died; raise HostError if several did."""
        ...

    def tell(self, host: str, event: Mapping[str, Any], hosts: int) -> None:
        """Report the progress of a part on one of `hosts`."""
        ...


@dataclass(slots=True)
class Losses:
    """How many workers died with each part; `again` says how to continue a command."""

    again: str
    _of: Counter[int] = field(default_factory=Counter)

    def add(self, number: int, what: str) -> None:
        """Count a worker that died while it did `what`; raise HostError if several did."""
        self._of[number] += 1
        if self._of[number] >= _LOSSES:
            raise HostError(
                f"{_LOSSES} workers died while they {what}",
                hint=f"check the memory of their hosts, then {self.again}",
            )


def keep_logs(place: Path, logs: Mapping[str, bytes]) -> None:
    """Store the logs of guests in a folder.

    Raises:
        BadOutput: a path is not that of a guest's log.
        HostError: the disk is full or fails.
    """
    for path, content in logs.items():
        folder, _, rest = path.partition("/")
        guest, _, name = rest.partition("/")
        if folder != "guests" or guest in ("", ".", "..") or name not in _LOGS:
            raise BadOutput(f"unexpected path of a log: {path!r}")
        own = place / folder / guest
        try:
            own.mkdir(parents=True, exist_ok=True)
            files.replace(own / name, content)
        except OSError as error:
            what = f"cannot write log: {error.strerror or error}"
            raise HostError(what, where=str(own / name)) from error

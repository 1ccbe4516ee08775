"""`Engine`: what measures the blocks of a run on other hosts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from labctl.experiments.runner import Runner
from labctl.guests.prepare import Prepared
from labctl.runs.folder import RunFolder


class Engine(Protocol):
    """What measures the blocks of a run on other hosts: see `labctl.scheduler`."""

    @property
    def facts(self) -> Mapping[str, Mapping[str, str | int | bool]]:
        """Facts about the hosts that were used, by id."""
        ...

    def choose(self, asked: str) -> str:
        """Return the accelerator of a run; `asked` may be "auto"."""
        ...

    def run(self, runner: Runner, prepared: Prepared, folder: RunFolder) -> None:
        """Measure the missing blocks of an experiment."""
        ...

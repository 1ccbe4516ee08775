"""The lab.yaml of `labctl try`: two kernels from git, one guest, one workload."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from labctl import units
from labctl.lab.metrics import WALL_TIME, is_freebench
from labctl.lab.shelf import SHELF
from labctl.lab.types import LONGEST_NAME
from labctl.printable import printable
from labctl.trial.revisions import Range
from labctl.trial.shape import Shape

EXPERIMENT = "try"
GUEST = "try"
# Repetitions of one boot differ more than boots do. In the same time, ten short ones give an
# interval half as wide as three of 1 GiB.
_MAX_SIZE_BYTES = 256 * units.MIB
_SHORT_REPETITIONS, _REPETITIONS = 10, 3
_MAX_THREADS = 4
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What to compare and how; `command` replaces the operation if it is not empty.

    `operation` is the name of a ready workload.
    `metric` is a field of the command's output, by default the time that it takes.
    `config` is a .config to start from.
    """

    revisions: Range
    shape: Shape
    operation: str = "munmap"
    command: tuple[str, ...] = ()
    metric: str = ""
    better: str = ""
    config: Path | None = None

    def kernels(self) -> tuple[str, str]:
        """Return the names of the two kernels in the lab: base and topic."""
        base, topic = self.revisions.base, self.revisions.topic
        is_named = not base.commit.startswith(base.name)
        names = _safe(base.name if is_named else "base", "base"), _safe(topic.name, "topic")
        return names if names[0] != names[1] else ("base", "topic")

    def workload(self) -> str:
        """Return the name of the workload in the lab."""
        return _safe(Path(self.command[0]).name, "command") if self.command else self.operation

    def document(self, state: Path) -> dict[str, Any]:
        """Return the content of lab.yaml with this state folder."""
        base, topic = self.kernels()
        shape, revisions = self.shape, self.revisions
        config = {"config": str(self.config)} if self.config else {}
        source = f"git:{revisions.repository}@"
        return {
            "version": 1,
            "state": str(state),
            "guests": {
                GUEST: {
                    "nodes": shape.nodes,
                    "cpus_per_node": shape.cpus_per_node,
                    "memory_per_node": units.format_size(shape.memory_per_node),
                }
            },
            "kernels": {
                base: {"source": source + revisions.base.commit, **config},
                topic: {"source": source + revisions.topic.commit, **config},
            },
            "workloads": {self.workload(): self._workload()},
            "experiments": {
                EXPERIMENT: {
                    "workload": self.workload(),
                    "kernels": [base, topic],
                    "statistics": {
                        "blocks": {"min": 6, "max": 40},
                        "repetitions": _SHORT_REPETITIONS if self._is_short else _REPETITIONS,
                        "stop_at_half_width": "1%",
                    },
                }
            },
        }

    @property
    def _is_short(self) -> bool:
        """Whether the workload is one of freebench, whose size this module selects."""
        command = str(SHELF[self.operation].workload.get("command", ""))
        return not self.command and is_freebench(command)

    def _workload(self) -> dict[str, Any]:
        if self.command:
            better = {"better": self.better} if self.better else {}
            metric = self.metric or WALL_TIME
            return {"command": shlex.join(self.command), "metric": metric, **better}
        if not self._is_short:
            return {"use": self.operation}
        size = min(_MAX_SIZE_BYTES, self.shape.memory_bytes // 2)
        threads = min(_MAX_THREADS, self.shape.nodes * self.shape.cpus_per_node)
        parameters = {
            "size": units.format_size(size),
            "placement": "interleave",
            "threads": threads,
        }
        return {"use": self.operation, "parameters": parameters}

    def text(self, state: Path, command_line: str) -> str:
        """Return lab.yaml as text, with the command that wrote it in a comment."""
        revisions = self.revisions
        head = [
            f"# Written by `{printable(command_line)}`.",
            f"# `labctl run {EXPERIMENT}` measures the same again.",
            f"# base:  {printable(str(revisions.base))}",
            f"# topic: {printable(str(revisions.topic))}",
        ]
        body = yaml.safe_dump(self.document(state), sort_keys=False, allow_unicode=True, width=96)
        return "\n".join(head) + "\n" + body


def _safe(text: str, other: str) -> str:
    """Return a text as a name of lab.yaml, `other` if nothing of it is left."""
    name = _UNSAFE.sub("-", text).strip("-._")[:LONGEST_NAME]
    return name or other

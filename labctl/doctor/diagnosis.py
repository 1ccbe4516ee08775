"""A diagnosis: one line of the doctor, with a fix. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]
_WORSE: tuple[Status, ...] = ("ok", "warn", "fail")


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The result of one test.

    `warn`: the lab works, but results are less reliable or it takes longer;
    `fail`: the lab cannot work without it. `mend` is the command that fixes it, or
    an instruction if no command can.
    """

    name: str
    status: Status
    what: str
    mend: str | None = None

    def document(self) -> dict[str, str | None]:
        return asdict(self)


def ok(name: str, what: str) -> Diagnosis:
    return Diagnosis(name, "ok", what)


def worst(diagnoses: Iterable[Diagnosis]) -> Status:
    return max((one.status for one in diagnoses), key=_WORSE.index, default="ok")

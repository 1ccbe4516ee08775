"""One line of the doctor: what was found, and what mends it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]
_WORSE: tuple[Status, ...] = ("ok", "warn", "fail")


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found of one thing.

    `warn`: the lab works, and its figures are worth less, or it takes longer;
    `fail`: the lab needs it and it is not there. `mend` is the command that mends it,
    or what to do if no command can.
    """

    name: str
    status: Status
    what: str
    mend: str | None = None

    def document(self) -> dict[str, str | None]:
        """Return the diagnosis as JSON values."""
        return asdict(self)


def ok(name: str, what: str) -> Diagnosis:
    """Return a diagnosis of a thing that is well."""
    return Diagnosis(name, "ok", what)


def worst(diagnoses: Iterable[Diagnosis]) -> Status:
    """Return the worst status among them."""
    return max((one.status for one in diagnoses), key=_WORSE.index, default="ok")

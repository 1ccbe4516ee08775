"""The figures of the fuzzed parsers: kept in figures.json, and written to the page."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import reliability
from tabulate import tabulate

_FOLDER = Path(__file__).parent
_TEXT = """\
## Parsers

Each parser of labctl's input gets mutations of its corpus: formats as programs write them, small
seeds of their features, and what earlier failed. Most inputs are short, of some hundred bytes;
single ones have up to 32 KiB. For a tenth of the time it gets long repetitions, up to 1 MiB,
whose time must grow linearly. It must return or raise one of labctl's errors, in at most 20 s and
2 GiB. Written by `tox -e fuzz -- --write`; do not edit.

"""
_TAIL = """
- **inputs**: mutated inputs, of one or several runs with other random numbers and the same code.
- **repetitions**: units repeated to each length from 8 KiB to 1 MiB, or until one takes 4 s.
- **time**: elapsed time of the parser's processes.
- **slowest**: CPU time of the slowest input, without repetitions.
- **findings**: kinds of exceptions that are not errors of labctl, and repetitions whose time does \
not grow linearly.
- **commit**: the code that was tested. With other code, a parser starts again at zero.

The goal is 10^6 inputs for each parser. A parser with fewer inputs was stopped before; a run
of the same code with the same seed adds the missing ones.
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """What became of one parser."""

    name: str
    inputs: int = 0
    repetitions: int = 0
    seconds: float = 0.0
    slowest_seconds: float = 0.0
    findings: tuple[str, ...] = ()

    def plus(self, other: Figures) -> Figures:
        """Return the sum of the figures of two parts."""
        return Figures(
            self.name,
            self.inputs + other.inputs,
            self.repetitions + other.repetitions,
            self.seconds + other.seconds,
            max(self.slowest_seconds, other.slowest_seconds),
            tuple(dict.fromkeys((*self.findings, *other.findings))),
        )

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.inputs} inputs, {self.seconds:.0f} s, "
            f"slowest {self.slowest_seconds:.3f} s, {len(self.findings)} findings"
        )


@dataclass(frozen=True, slots=True)
class Row:
    """Figures with what they are of: figures of other code or another seed are not added."""

    figures: Figures
    seed: int
    code: str
    commit: str


class Record:
    """The rows of the page; `put` replaces one and writes the page."""

    def __init__(self, seed: int) -> None:
        self._rows = _read()
        self._new = Row(Figures(""), seed, _code(), reliability.commit())

    def before(self, name: str) -> Figures:
        """Return the figures of earlier runs that a run goes on from."""
        row = self._rows.get(name)
        same = row is not None and (row.seed, row.code) == (self._new.seed, self._new.code)
        return row.figures if row is not None and same else Figures(name)

    def put(self, figures: Figures) -> None:
        """Replace the figures of a parser in the file and on the page."""
        self._rows[figures.name] = replace(self._new, figures=figures)
        rows = [self._rows[name] for name in sorted(self._rows)]
        text = msgspec.json.format(msgspec.json.encode(rows), indent=1)
        reliability.FIGURES.write_bytes(text + b"\n")
        reliability.put("fuzz", section(rows))


def section(rows: list[Row]) -> str:
    """Return the figures as they stand on the page."""
    table = [
        [
            row.figures.name,
            row.figures.inputs,
            row.figures.repetitions,
            f"{row.figures.seconds:.0f} s",
            f"{row.figures.slowest_seconds:.2f} s",
            len(row.figures.findings),
            row.commit,
        ]
        for row in rows
    ]
    all_of = [row.figures for row in rows]
    sums = ["**all**", sum(one.inputs for one in all_of), sum(one.repetitions for one in all_of)]
    sums += [f"{sum(one.seconds for one in all_of):.0f} s", ""]
    sums += [sum(len(one.findings) for one in all_of), ""]
    heads = ["parser", "inputs", "repetitions", "time", "slowest", "findings", "commit"]
    seeds = ", ".join(sorted({str(row.seed) for row in rows}))
    where = f"Made with seed {seeds} on {reliability.host()}."
    return f"{_TEXT}{where}\n\n{tabulate([*table, sums], heads, 'github')}\n{_TAIL}"


def _read() -> dict[str, Row]:
    if not reliability.FIGURES.exists():
        return {}
    rows = msgspec.json.decode(reliability.FIGURES.read_bytes(), type=list[Row])
    return {row.figures.name: row for row in rows}


def _code() -> str:
    """Return the hash of labctl and of this suite."""
    digest = hashlib.sha256()
    root = _FOLDER.parents[1]
    files = [*(root / "labctl").rglob("*.py"), *_FOLDER.glob("*.py"), *_FOLDER.glob("corpus/*/*")]
    for path in sorted(files):
        data = path.read_bytes()
        digest.update(f"{path.relative_to(root)} {len(data)}\n".encode() + data)
    return digest.hexdigest()[:16]

"""Store samples on disk: one JSON object per line, append only."""

from __future__ import annotations

import errno
from operator import attrgetter
from pathlib import Path
from typing import NoReturn

from labctl.errors import HostError, UserError
from labctl.runs import jsonl
from labctl.runs.sample import Key, Sample, Shared, parse, parse_valid, sealed, share

_GROUP_OF = attrgetter("experiment", "block", "cell", "warmup", "attempt")


class Store:
    """The samples of one run, in `folder`/samples.jsonl.

    `torn` describes the incomplete last line, once `samples` has ignored one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "samples.jsonl"
        self.torn = ""
        self._checked_bytes = -1  # the file is known to have complete lines up to here

    def append(self, sample: Sample) -> None:
        """Append a sample and sync it to disk.

        Raises HostError if the disk is full or fails (the file is then unchanged),
        BadOutput for a sample that cannot be written as JSON.
        """
        line = sealed(sample)
        try:
            self._checked_bytes = jsonl.append(self.path, line, self._checked_bytes)
        except OSError as error:
            raise HostError(
                f"cannot write sample: {error.strerror or error}",
                where=str(self.path),
                hint="free disk space, then continue with `labctl run --resume`"
                if error.errno in (errno.ENOSPC, errno.EDQUOT)
                else None,
            ) from error

    def samples(self) -> list[Sample]:
        """Return all samples in the order written, without an incomplete last line.

        Raises UserError with file and line for an invalid line or a duplicate sample.
        """
        samples: list[Sample] = []
        self.torn = ""
        size = 0
        seen: dict[tuple[object, ...], set[int]] = {}
        shared: Shared = {}
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(jsonl.whole_lines(file), start=1):
                    size += len(line)
                    sample = parse_valid(line) or parse(line, f"{self.path}:{number}")
                    sample = share(sample, shared)
                    group = _GROUP_OF(sample)
                    numbers = seen.get(group)
                    if numbers is None:
                        numbers = seen[group] = set()
                    elif sample.repetition in numbers:
                        self._refuse_twice(samples, sample, number)
                    numbers.add(sample.repetition)
                    samples.append(sample)
                if size < file.tell():
                    self.torn = (
                        f"{self.path}:{len(samples) + 1}: last line is incomplete "
                        f"({file.tell() - size} bytes) and ignored: the run or the host "
                        "stopped while writing it"
                    )
        except FileNotFoundError:
            return []
        except OSError as error:
            raise HostError(f"cannot read file: {error.strerror}", where=str(self.path)) from error
        return samples

    def _refuse_twice(self, samples: list[Sample], sample: Sample, number: int) -> NoReturn:
        first = next(n for n, each in enumerate(samples, start=1) if each.key == sample.key)
        raise UserError(
            f"duplicate of the sample in line {first}: experiment "
            f"{sample.experiment}, block {sample.block}, cell {sample.cell}, "
            f"{'warm-up' if sample.warmup else 'repetition'} {sample.repetition}",
            where=f"{self.path}:{number}",
            hint="remove one of the two lines: labctl does not know which is valid",
        )

    def keys(self) -> set[Key]:
        """Return the keys of all samples, of any status."""
        return {sample.key for sample in self.samples()}

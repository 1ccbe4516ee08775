"""Store samples on disk: one JSON object per line, append only."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import NoReturn

from labctl import files
from labctl.errors import HostError, UserError
from labctl.runs import jsonl
from labctl.runs.sample import Key, Sample, Shared, parse, parse_valid, sealed, share

_GROUP_OF = attrgetter("experiment", "block", "cell", "warmup", "attempt")


class Store:
    """The samples of one run, in `folder`/samples.jsonl.

    `torn` describes the incomplete last line, once `samples` has ignored one. A store that is
    kept, such as that of a runner, reads each line once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "samples.jsonl"
        self._pending = folder / "samples.pending"
        self.torn = ""
        self._checked_bytes = -1  # the file is known to have complete lines up to here
        self._forget()

    def _forget(self) -> None:
        """Read the file from its beginning the next time."""
        self._read_bytes = 0
        self._samples: list[Sample] = []
        self._seen: dict[tuple[object, ...], set[int]] = {}
        self._shared: Shared = {}

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

    def append_block(self, samples: Sequence[Sample]) -> None:
        """Append samples, after a crash all of them or none; raises as `append` does.

        After a crash, `recover` completes them.
        """
        try:
            files.replace(self._pending, b"".join(map(sealed, samples)))
            for sample in samples:
                self.append(sample)
            files.remove(self._pending)
        except OSError as error:
            what = f"cannot write samples: {error.strerror or error}"
            raise HostError(what, where=str(self._pending)) from error

    def recover(self) -> None:
        """Complete the samples whose `append_block` was interrupted by a crash."""
        try:
            lines = self._pending.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return
        except OSError as error:
            what = f"cannot read file: {error.strerror}"
            raise HostError(what, where=str(self._pending)) from error
        known = self.keys()
        for number, line in enumerate(lines, start=1):
            sample = parse(line, f"{self._pending}:{number}")
            if sample.key not in known:
                self.append(sample)
        files.remove(self._pending)

    def samples(self) -> list[Sample]:
        """Return all samples in the order written, without an incomplete last line.

        Only lines since the last call are read. Raises UserError with file and line for an
        invalid line or a duplicate sample.
        """
        self.torn = ""
        try:
            with self.path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self._read_bytes:
                    self._forget()
                file.seek(self._read_bytes)
                for line in jsonl.whole_lines(file):
                    self._add(line)
                if self._read_bytes < file.tell():
                    self.torn = (
                        f"{self.path}:{len(self._samples) + 1}: last line is incomplete "
                        f"({file.tell() - self._read_bytes} bytes) and ignored: the run or the "
                        "host stopped while writing it"
                    )
        except FileNotFoundError:
            self._forget()
        except OSError as error:
            raise HostError(f"cannot read file: {error.strerror}", where=str(self.path)) from error
        return list(self._samples)

    def _add(self, line: bytes) -> None:
        number = len(self._samples) + 1
        sample = share(parse_valid(line) or parse(line, f"{self.path}:{number}"), self._shared)
        group = _GROUP_OF(sample)
        numbers = self._seen.get(group)
        if numbers is None:
            numbers = self._seen[group] = set()
        elif sample.repetition in numbers:
            self._refuse_twice(sample, number)
        numbers.add(sample.repetition)
        self._samples.append(sample)
        self._read_bytes += len(line)

    def _refuse_twice(self, sample: Sample, number: int) -> NoReturn:
        samples = enumerate(self._samples, start=1)
        first = next(n for n, each in samples if each.key == sample.key)
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

"""Feed mutated inputs to the parsers of labctl, and report each exception that is no LabError.

    python tests/fuzz --inputs 1000000 [--parser mbox] [--seed 1] [--seconds 60] [--jobs 2]
    python tests/fuzz --inputs 1000000 --minutes 60 --write

Each finding is written to `--found`, by default a new folder below /tmp. Every five hundredth
input, later every ten thousandth, is a long repetition: its time must grow linearly with its
length. With `--atheris`, the inputs of one parser are chosen by the coverage of labctl's code
(`pip install -e '.[fuzz]'`). With `--write`, the figures go to docs/explanation/reliability.md.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import growth
import mutate
import parsers
import reliability
from tabulate import tabulate

_LONGEST_SECONDS = 20.0
# A repetition takes as long as hundreds of other inputs.
_REPEATED_EACH, _LATER_EACH, _LATER = 500, 10_000, 50_000
_TEXT = """\
## Parsers

Each parser of labctl's input gets mutations of its corpus and of what earlier failed, and long
repetitions whose time must grow linearly. It must return or raise one of labctl's errors, in at
most 20 s and 2 GiB. Written by `tox -e fuzz -- --write`; do not edit.

"""
_TAIL = """
- **slowest**: CPU time of the slowest input, without repetitions.
- **findings**: kinds of exceptions that are not errors of labctl, and repetitions whose time does \
not grow linearly.

The goal is 10^6 inputs for each parser. A parser with fewer inputs reached the time limit.
"""
_MOST_MEMORY_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """What became of one parser."""

    name: str
    inputs: int
    seconds: float
    slowest_seconds: float
    findings: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.inputs} inputs, {self.seconds:.0f} s, "
            f"slowest {self.slowest_seconds:.3f} s, {len(self.findings)} findings"
        )


class _TooLong(Exception):
    """One input took longer than any may."""


def _expired(*_: object) -> None:
    raise _TooLong(f"one input took more than {_LONGEST_SECONDS:g} s of CPU time")


def main() -> int:
    """Return 1 if there are findings."""
    options = _options()
    names = options.parser or list(parsers.PARSERS)
    found = Path(options.found or tempfile.mkdtemp(prefix="labctl-fuzz-found-"))
    found.mkdir(parents=True, exist_ok=True)
    if options.atheris:
        return _by_coverage(names[0], options)
    began = time.monotonic()
    if options.minutes:
        options.seconds = 60 * options.minutes * options.jobs / len(names)
    done = []
    for each in _all(names, options, found):
        print(each, flush=True)
        done.append(each)
    findings = sum(len(each.findings) for each in done)
    print(f"{findings} findings" + (f" in {found}" if findings else ""))
    if options.write:
        words = reliability.command("tests/fuzz", sys.argv[1:])
        where = reliability.where(words, time.monotonic() - began, options.seed)
        reliability.put("fuzz", section(done, where))
    return 1 if findings else 0


def _all(names: list[str], options: argparse.Namespace, found: Path) -> Iterator[Fuzzed]:
    """Fuzz each parser in a process of its own, some of them at the same time."""
    context = multiprocessing.get_context("fork")
    with context.Pool(options.jobs, maxtasksperchild=1) as pool:
        one = partial(_fuzz, options=options, found=found)
        yield from pool.imap_unordered(one, names, chunksize=1)


def section(done: list[Fuzzed], where: str) -> str:
    """Return the figures as they stand on the page."""
    rows = [
        [one.name, one.inputs, f"{one.slowest_seconds:.2f} s", len(one.findings)]
        for one in sorted(done, key=lambda one: one.name)
    ]
    sums = ["**all**", sum(one.inputs for one in done), "", sum(len(one.findings) for one in done)]
    table = tabulate([*rows, sums], ["parser", "inputs", "slowest", "findings"], "github")
    return f"{_TEXT}{where}\n\n{table}\n{_TAIL}"


def _options() -> argparse.Namespace:
    reader = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    reader.add_argument("--inputs", type=int, default=10_000, help="Inputs per parser.")
    reader.add_argument("--seconds", type=float, help="Time limit per parser.")
    reader.add_argument("--minutes", type=float, help="Time limit in all, shared equally.")
    reader.add_argument("--jobs", type=int, default=1, help="Parsers at the same time.")
    reader.add_argument("--seed", type=int, default=1, help="Seed of the inputs.")
    reader.add_argument("--parser", action="append", choices=list(parsers.PARSERS))
    reader.add_argument("--found", help="Folder for inputs that failed.")
    reader.add_argument("--atheris", action="store_true", help="Choose inputs by coverage.")
    reader.add_argument("--write", action="store_true", help="Write the figures to docs/.")
    options = reader.parse_args()
    if options.write and (options.parser or options.atheris):
        reader.error("--write: conflicts with --parser and --atheris")
    return options


def _fuzz(name: str, options: argparse.Namespace, found: Path) -> Fuzzed:
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY_BYTES, _MOST_MEMORY_BYTES))
    signal.signal(signal.SIGPROF, _expired)
    source = random.Random(f"{options.seed} {name}")
    parser, seeds = parsers.PARSERS[name], parsers.seeds(name)
    began, kinds, number = time.monotonic(), dict[str, None](), 0
    slowest = 0.0
    while number < options.inputs:
        if options.seconds and time.monotonic() - began > options.seconds:
            break
        number += 1
        is_repeated = number % (_REPEATED_EACH if number <= _LATER else _LATER_EACH) == 0
        data = b"" if is_repeated else mutate.mutated(seeds, source)
        signal.setitimer(signal.ITIMER_PROF, _LONGEST_SECONDS)
        start = time.process_time()
        try:
            if is_repeated:
                parts = mutate.repeated(seeds, source)
                data = b"%s|%s|%s" % parts
                growth.check(parser, *parts)
            else:
                parser(data)
        except Exception as error:
            kind = _kind(error)
            if kind not in kinds:
                kinds[kind] = None
                path = found / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
                path.write_bytes(data)
                print(f"{name}: {kind}\n  {path}", flush=True)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        if not is_repeated:
            slowest = max(slowest, time.process_time() - start)
    return Fuzzed(name, number, time.monotonic() - began, slowest, tuple(kinds))


def _kind(error: BaseException) -> str:
    """Return the type of an exception and where in labctl it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/labctl/" in frame.filename]
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in own]
    text = "" if isinstance(error, _TooLong) else f": {str(error)[:100]!r}"
    if isinstance(error, growth.NotLinear):
        return f"{type(error).__name__}{text}"
    return f"{type(error).__name__}{text} at {' < '.join(places[:-4:-1])}"


def _by_coverage(name: str, options: argparse.Namespace) -> int:
    import atheris

    with atheris.instrument_imports(include=["labctl"]):
        for module in [one for one in sys.modules if one.partition(".")[0] == "labctl"]:
            del sys.modules[module]
        del sys.modules["parsers"]
        import parsers as instrumented
    parser = instrumented.PARSERS[name]
    words = [sys.argv[0], f"-runs={options.inputs}", f"-seed={options.seed}"]
    if options.seconds:
        words.append(f"-max_total_time={options.seconds:.0f}")
    scratch = tempfile.mkdtemp(prefix="labctl-fuzz-corpus-")
    atheris.Setup([*words, scratch, str(parsers.CORPUS / name)], parser)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())

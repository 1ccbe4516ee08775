"""Feed mutated inputs to the parsers of labctl, and report each exception that is no LabError.

    python tests/fuzz --inputs 1000000 [--parser mbox] [--seed 1] [--seconds 60] [--jobs 2]
    python tests/fuzz --inputs 1000000 --minutes 60 --jobs 2 --write

Each finding is written to `--found`, by default a new folder below /tmp. Up to a tenth of the
time is spent on long repetitions: their time must grow linearly with their length. With
`--atheris`, the inputs of one parser are chosen by the coverage of labctl's code
(`pip install -e '.[fuzz]'`). With `--write`, the figures go to docs/explanation/reliability.md,
and a later run with the same code and seed only adds the inputs that are missing.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import itertools
import multiprocessing
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import cast

sys.path.append(str(Path(__file__).parents[1]))

import fuzz_figures
import growth
import mutate
import parsers
from fuzz_figures import Figures

_LONGEST_SECONDS = 20.0
_MOST_MEMORY_BYTES = 2 << 30
# A part has random numbers of its own, so that parts run in any order.
_PART = 50_000
# A repetition takes as long as thousands of other inputs.
_REPEATED_SHARE, _REPEATED_EACH = 0.1, 500


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
    record = fuzz_figures.Record(options.seed) if options.write else None
    done = {name: record.before(name) if record else Figures(name) for name in names}
    for one in _all(list(_parts(done, options.inputs)), options, found):
        done[one.name] = done[one.name].plus(one)
        if record and one.inputs:
            record.put(done[one.name])
        if done[one.name].inputs >= options.inputs:
            print(done[one.name], flush=True)
    for one in done.values():
        if one.inputs < options.inputs:
            print(one, flush=True)
    findings = sum(len(each.findings) for each in done.values())
    print(f"{findings} findings" + (f" in {found}" if findings else ""))
    return 1 if findings else 0


@dataclass(frozen=True, slots=True)
class _Part:
    name: str
    first: int
    inputs: int


def _parts(done: dict[str, Figures], inputs: int) -> Iterator[_Part]:
    """Yield the parts that are missing, in turn over the parsers."""
    for start in range(0, inputs, _PART):
        for name, one in done.items():
            first, end = max(start, one.inputs), min(start + _PART, inputs)
            if first < end:
                yield _Part(name, first, end - first)


def _all(parts: list[_Part], options: argparse.Namespace, found: Path) -> Iterator[Figures]:
    """Fuzz each part in a process of its own, some of them at the same time.

    multiprocessing.Pool would fork in a thread: its child keeps the pipe that a `subprocess.Popen`
    of another thread reads to the end, and that call never returns.
    """
    end = time.monotonic() + 60 * options.minutes if options.minutes else float("inf")
    gc.freeze()
    context = multiprocessing.get_context("fork")
    running: dict[Connection, BaseProcess] = {}
    waiting = iter(parts)
    while True:
        for part in itertools.islice(waiting, options.jobs - len(running)):
            reader, writer = context.Pipe(duplex=False)
            process = context.Process(target=_send, args=(writer, part, options, found, end))
            process.daemon = True
            process.start()
            writer.close()
            running[reader] = process
        if not running:
            return
        for each in wait(list(running)):
            reader = cast("Connection", each)
            process = running.pop(reader)
            try:
                yield reader.recv()
            except EOFError:
                process.join()
                sys.exit(f"a process of the fuzzer ended with {process.exitcode}")
            reader.close()
            process.join()


def _send(
    writer: Connection, part: _Part, options: argparse.Namespace, found: Path, end: float
) -> None:
    writer.send(_fuzz(part, options, found, end))


def _options() -> argparse.Namespace:
    reader = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    reader.add_argument("--inputs", type=int, default=10_000, help="Inputs per parser.")
    reader.add_argument("--seconds", type=float, help=f"Time limit per {_PART} inputs.")
    reader.add_argument("--minutes", type=float, help="Time limit in all.")
    reader.add_argument("--jobs", type=int, default=1, help="Processes at the same time.")
    reader.add_argument("--seed", type=int, default=1, help="Seed of the inputs.")
    reader.add_argument("--parser", action="append", choices=list(parsers.PARSERS))
    reader.add_argument("--found", help="Folder for inputs that failed.")
    reader.add_argument("--atheris", action="store_true", help="Choose inputs by coverage.")
    reader.add_argument("--write", action="store_true", help="Add the figures to docs/.")
    options = reader.parse_args()
    if options.write and options.atheris:
        reader.error("--write: conflicts with --atheris")
    return options


class _Fuzzer:
    """Calls one parser, and writes down each kind of failure once."""

    def __init__(self, name: str, found: Path) -> None:
        self.kinds: dict[str, None] = {}
        self._name, self._found = name, found

    def call(self, parse: Callable[[], object], data: bytes) -> float:
        """Return the CPU time in seconds."""
        signal.setitimer(signal.ITIMER_PROF, _LONGEST_SECONDS)
        start = time.process_time()
        try:
            parse()
        except Exception as error:
            self._note(_kind(error), data)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        return time.process_time() - start

    def _note(self, kind: str, data: bytes) -> None:
        if kind not in self.kinds:
            self.kinds[kind] = None
            path = self._found / f"{self._name}-{hashlib.sha256(data).hexdigest()[:12]}"
            path.write_bytes(data)
            print(f"{self._name}: {kind}\n  {path}", flush=True)


def _fuzz(part: _Part, options: argparse.Namespace, found: Path, end: float) -> Figures:
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY_BYTES, _MOST_MEMORY_BYTES))
    signal.signal(signal.SIGPROF, _expired)
    source, units = (
        random.Random(f"{options.seed} {part.name} {part.first} {use}")
        for use in ("inputs", "repetitions")
    )
    parser, seeds = parsers.PARSERS[part.name], parsers.seeds(part.name)
    fuzzer = _Fuzzer(part.name, found)
    began, number, repetitions, slowest, repeating = time.monotonic(), 0, 0, 0.0, 0.0
    end = min(end, began + options.seconds) if options.seconds else end
    while number < part.inputs and time.monotonic() < end:
        data = mutate.mutated(seeds, source)
        slowest = max(slowest, fuzzer.call(partial(parser, data), data))
        number += 1
        share = _REPEATED_SHARE * (time.monotonic() - began)
        if number % _REPEATED_EACH == 0 and repeating < share:
            of = mutate.repeated(seeds, units)
            check = partial(growth.check, parser, *of)
            start = time.monotonic()
            fuzzer.call(check, b"%s|%s|%s" % of)
            repeating += time.monotonic() - start
            repetitions += 1
    seconds = time.monotonic() - began
    return Figures(part.name, number, repetitions, seconds, slowest, tuple(fuzzer.kinds))


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

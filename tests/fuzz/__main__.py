"""Feed mutated inputs to the parsers of labctl, and report each exception that is no LabError.

    python tests/fuzz --inputs 1000000 [--parser mbox] [--seed 1] [--seconds 60]

Each finding is written to `--found`, by default a new folder below /tmp. Every five hundredth
input is a long repetition: its time must grow linearly with its length. With `--atheris`,
the inputs of one parser are chosen by the coverage of labctl's code (`pip install atheris`).
"""

from __future__ import annotations

import argparse
import hashlib
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import growth
import mutate
import parsers

_LONGEST_SECONDS = 20.0
_REPEATED_EACH = 500
_MOST_MEMORY_BYTES = 2 << 30


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
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY_BYTES, _MOST_MEMORY_BYTES))
    signal.signal(signal.SIGPROF, _expired)
    findings = 0
    for name in names:
        findings += _fuzz(name, options, found)
    print(f"{findings} findings" + (f" in {found}" if findings else ""))
    return 1 if findings else 0


def _options() -> argparse.Namespace:
    reader = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    reader.add_argument("--inputs", type=int, default=10_000, help="Inputs per parser.")
    reader.add_argument("--seconds", type=float, help="Time limit per parser.")
    reader.add_argument("--seed", type=int, default=1, help="Seed of the inputs.")
    reader.add_argument("--parser", action="append", choices=list(parsers.PARSERS))
    reader.add_argument("--found", help="Folder for inputs that failed.")
    reader.add_argument("--atheris", action="store_true", help="Choose inputs by coverage.")
    return reader.parse_args()


def _fuzz(name: str, options: argparse.Namespace, found: Path) -> int:
    source = random.Random(f"{options.seed} {name}")
    parser, seeds = parsers.PARSERS[name], parsers.seeds(name)
    began, kinds, number = time.monotonic(), set[str](), 0
    slowest = 0.0
    for number in range(1, options.inputs + 1):
        if options.seconds and time.monotonic() - began > options.seconds:
            break
        is_repeated = number % _REPEATED_EACH == 0
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
                kinds.add(kind)
                path = found / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
                path.write_bytes(data)
                print(f"{name}: {kind}\n  {path}", flush=True)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        if not is_repeated:
            slowest = max(slowest, time.process_time() - start)
    seconds = time.monotonic() - began
    print(
        f"{name}: {number} inputs, {seconds:.0f} s, slowest {slowest:.3f} s, {len(kinds)} findings",
        flush=True,
    )
    return len(kinds)


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

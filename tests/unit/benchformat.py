"""A strict reader of Go's benchmark format, for tests: where benchstat would complain, it does.

By the text of the format (golang.org/design/14313-benchmark-format, and Unit lines as
golang.org/x/perf/benchfmt documents them): no registry in reach has benchstat itself.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    name: str  # without Benchmark, settings and processors
    settings: dict
    processors: int | None
    iterations: int
    values: dict  # unit -> value
    config: dict


KEY_VALUE = re.compile(r"([a-z][^\sA-Z:]*):(?:[ \t]+(.*))?")


def read(text):
    """Return results and the metadata of units; raises ValueError with the line."""
    assert text.endswith("\n"), "the last line is torn"
    config, units, results = {}, {}, []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("Benchmark"):
            results.append(_result(line, dict(config), number))
        elif line.split()[:1] == ["Unit"]:
            _unit(line, units, number)
        elif found := KEY_VALUE.fullmatch(line):
            if found[2]:
                config[found[1]] = found[2]
            else:
                config.pop(found[1], None)
        elif line.strip():
            raise ValueError(f"line {number} would be passed over: {line!r}")
    return results, units


def _result(line, config, number):
    name, iterations, *pairs = line.removeprefix("Benchmark").split()
    if not pairs or len(pairs) % 2:
        raise ValueError(f"line {number}: values and units do not pair")
    if not re.fullmatch(r"[1-9]\d*", iterations):
        raise ValueError(f"line {number}: iterations {iterations!r}")
    if not name or name[0].islower():
        raise ValueError(f"line {number}: after Benchmark comes no lower-case letter")
    processors = re.search(r"-(\d+)$", name)
    if processors:
        name = name[: processors.start()]
    base, *parts = name.split("/")
    settings = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not (key and equals):
            raise ValueError(f"line {number}: /{part} is no key=value")
        settings[key] = value
    values = {unit: float(value) for value, unit in zip(pairs[::2], pairs[1::2], strict=True)}
    own = int(processors[1]) if processors else None
    return Result(base, settings, own, int(iterations), values, config)


def _unit(line, units, number):
    _, unit, *pairs = line.split()
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise ValueError(f"line {number}: expected key=value")
        if units.setdefault((unit, key), value) != value:
            raise ValueError(f"line {number}: {key} of {unit} is set to two values")

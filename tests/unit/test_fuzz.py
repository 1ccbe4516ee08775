"""No input makes a parser raise anything but a LabError, or take more than linear time.

The long form is `tox -e fuzz`, or `python tests/fuzz` for one parser.
"""

import random
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parents[1] / "fuzz"))

import growth
import mutate
import parsers

EXAMPLES = 40
SLOW = {"lab.yaml": 8, "mbox": 20, "console": 20, "proc": 20}
MOST_BYTES = 2 << 30
NAMES = list(parsers.PARSERS)
UNITS = [
    pytest.param(name, *units, id=f"{name}-{number}")
    for name, parser in parsers.PARSERS.items()
    for number, units in enumerate(parser.repeated)
]


@pytest.fixture(autouse=True)
def little_memory():
    """A parser that takes all memory fails, and does not end other programs."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = 4096 * int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("name", NAMES)
def test_the_corpus_is_parsed_or_refused(name):
    seeds = parsers.seeds(name)
    assert seeds
    for data in seeds:
        parsers.PARSERS[name](data)


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_input_is_parsed_or_refused(name):
    seeds = parsers.seeds(name)

    @settings(
        max_examples=SLOW.get(name, EXAMPLES),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**32), st.binary(max_size=200))
    def check(seed, data):
        parsers.PARSERS[name](mutate.mutated(seeds, random.Random(seed)))
        parsers.PARSERS[name](data)

    check()


@pytest.mark.parametrize(("name", "before", "unit", "after"), UNITS)
def test_the_time_grows_with_the_length(name, before, unit, after):
    growth.check(parsers.PARSERS[name], before, unit, after)


def test_a_quadratic_parser_is_found(monkeypatch):
    def quadratic(data):
        return len(data) ** 2 / 2**34

    def linear(data):
        return len(data) / 2**18

    monkeypatch.setattr(growth, "_seconds", lambda parser, data: parser(data))
    growth.check(linear, b"", b"xy", b"")
    with pytest.raises(growth.NotLinear, match="half of it"):
        growth.check(quadratic, b"", b"xy", b"")


def test_the_command_line_counts_inputs_of_parsers(tmp_path):
    argv = [sys.executable, Path(parsers.__file__).parent, "--inputs", "3", "--found", tmp_path]
    argv += ["--parser", "output", "--parser", "pattern"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    for name in ("output", "pattern"):
        assert re.search(rf"^{name}: 3 inputs, .* 0 findings$", done.stdout, re.MULTILINE)

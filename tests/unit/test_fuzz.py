"""No input makes a parser raise anything but a LabError, or take more than linear time.

The long form is `tox -e fuzz`, or `python tests/fuzz` for one parser.
"""

import json
import random
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "fuzz")]

import fuzz_figures
import growth
import mutate
import parsers
import reliability
from fuzz_figures import Figures

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


def test_figures_of_the_same_code_and_seed_are_added(tmp_path, monkeypatch):
    monkeypatch.setattr(reliability, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(reliability, "FIGURES", tmp_path / "figures.json")
    monkeypatch.setattr(reliability, "commit", lambda: "0123456789ab")
    (tmp_path / "page.md").write_text("# Page\n")
    first = Figures("mbox", 10, 1, 2.0, 0.5, ("KeyError",))
    fuzz_figures.Record(7).put(first)
    record = fuzz_figures.Record(7)
    assert record.before("mbox") == first
    assert record.before("diff") == Figures("diff")
    record.put(record.before("mbox").plus(Figures("mbox", 5, 0, 1.0, 0.7, ("KeyError", "OSError"))))
    row = r"\| mbox +\| +15 \| +1 \| 3 s +\| 0.70 s +\| +2 \| 0123456789ab"
    assert re.search(row, (tmp_path / "page.md").read_text())
    assert fuzz_figures.Record(8).before("mbox") == Figures("mbox")
    monkeypatch.setattr(fuzz_figures, "_code", lambda: "other")
    assert fuzz_figures.Record(7).before("mbox") == Figures("mbox")


_COMMAND = f"""
import os, sys; from pathlib import Path
sys.path[:0] = [{str(Path(parsers.__file__).parent)!r}, {str(Path(parsers.__file__).parents[1])!r}]
import mutate, reliability, runpy
reliability.PAGE, reliability.FIGURES = Path("page.md"), Path("figures.json")
reliability.commit = lambda: "0123456789ab"
if sys.argv[1] == "dies":
    mutate.mutated = lambda *_: os._exit(3)
sys.argv = ["fuzz", "--write", "--parser", "output", "--found", "found", "--inputs", sys.argv[2]]
runpy.run_path({str(Path(parsers.__file__).parent)!r}, run_name="__main__")
"""


def _fuzz(folder, *words):
    (folder / "page.md").write_text("# Page\n")
    argv = [sys.executable, "-c", _COMMAND, *words]
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=250)


def test_the_command_line_adds_the_inputs_that_are_missing(tmp_path):
    for inputs in ("3", "8"):
        assert _fuzz(tmp_path, "lives", inputs).returncode == 0
        [row] = json.loads((tmp_path / "figures.json").read_text())
        assert row["figures"]["inputs"] == int(inputs)


def test_a_process_that_dies_ends_the_command(tmp_path):
    done = _fuzz(tmp_path, "dies", "3")
    assert (done.returncode, done.stderr) == (1, "a process of the fuzzer ended with 3\n")

"""Metrics of programs that print no JSON: patterns, paths, units, run time."""

import json

import pytest
import yaml

from labctl.errors import BadOutput, ConfigError
from labctl.experiments.repetition import value_of
from labctl.lab.load import load
from labctl.lab.models import Workload
from labctl.transports import Outcome

SYSBENCH = """\
transferred 100 MiB
102400.00 MiB transferred (8123.45 MiB/sec)
General statistics:
    total time:                          3.25s
    avg latency (ms): 0.25
"""
FIO = json.dumps({"jobs": [{"read": {"iops": 1500.5, "lat": "12 us"}}]}, indent=1)


def workload(**keys):
    return Workload(name="mine", command="mybench", **keys)


def metric(text, **entry):
    keys = {"speed_rate": {**entry, "better": "higher"}}
    return value_of(Outcome("", 0, text.encode(), b"", 10.0), workload(metrics=keys), "speed_rate")


def outcome(status=0, stdout=b"", stderr=b"", seconds=2.5):
    return Outcome("mybench", status, stdout, stderr, seconds)


@pytest.fixture
def lab(tmp_path):
    """Return a function that loads a lab with one workload."""

    def write(experiment=None, **keys):
        content = {
            "guests": {"numa": {"nodes": 2, "cpus_per_node": 1, "memory_per_node": "512MiB"}},
            "kernels": {"stock": {"source": "debian:linux-source-6.1"}},
            "workloads": {"mine": {"command": "mybench", **keys}},
            "experiments": {
                "one": {"workload": "mine", "kernels": ["stock"], **(experiment or {})}
            },
        }
        path = tmp_path / "lab.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return load(path)

    return write


@pytest.mark.parametrize(
    ("text", "entry", "value"),
    [
        (SYSBENCH, {"parse": r"\((\S+) MiB/sec\)", "unit": "MiB/s"}, 8123.45 * 1.048576),
        (SYSBENCH, {"parse": r"\(([^)]+)\)"}, None),
        (SYSBENCH, {"parse": r"transferred \((.*)\)"}, 8123.45 * 1.048576),
        (SYSBENCH, {"parse": r"total time:\s+(.*)"}, 3.25),
        ("rate: 1\nrate: 2 rate: 3\n", {"parse": r"rate: (\d)"}, 3.0),
        (FIO, {"parse": "$.jobs[0].read.iops"}, 1500.5),
        (FIO, {"parse": "$.jobs[-1].read.lat"}, 12e-6),
        ('[{}, {"rate": 5}]\n', {"parse": "$[1].rate", "unit": "kops/s"}, 5000.0),
    ],
)
def test_a_metric_is_found_in_any_output(text, entry, value):
    if value is None:
        with pytest.raises(BadOutput, match="known unit or none, got 'ms'"):
            metric(text, **entry)
        return
    found, measurements = metric(text, **entry)
    assert found == pytest.approx(value)
    assert measurements == {"speed_rate": found}


@pytest.mark.parametrize(
    ("text", "entry", "what"),
    [
        ("nothing\n", {"parse": r"rate: (\d+)"}, "no line of the output matches .*nothing"),
        ("", {"parse": r"rate: (\d+)"}, "it is empty"),
        ("rate: 1,5\n", {"parse": r"rate: (.*)"}, "expected one number .* got '1,5'"),
        ("rate: 5 MB/s\n", {"parse": r"rate: (.*)", "unit": "GB/s"}, "`unit:` is GB/s"),
        ("rate: 0\n", {"parse": r"rate: (.*)"}, "expected a number above 0"),
        ("plain\n", {"parse": "$.rate"}, "printed no JSON"),
        (FIO, {"parse": "$.jobs[1].read"}, "1 is missing"),
        (FIO, {"parse": "$.jobs[0].write"}, "'write' is missing"),
        (FIO, {"parse": "$.jobs[0].read"}, "expected a number at"),
    ],
)
def test_a_metric_that_is_not_there_is_a_failed_sample(text, entry, what):
    with pytest.raises(BadOutput, match=what):
        metric(text, **entry)


@pytest.mark.parametrize(
    ("text", "parse", "unit", "what"),
    [
        ("rate 12,345 ops/s", r"rate ([0-9.]+)", None, "matched only '12' of '12,345': thousands"),
        ("rate 12,345 ops/s", r"rate ([0-9.]+).* ops", "ops/s", "only '12' of '12,345'"),
        ("rate 12,345 ops/s", r"([0-9.]+) ops", "ops/s", "only '345' of '12,345'"),
        ("rate 12,345 ops/s", r"rate (.*)", None, "got '12,345 ops/s' .*print 12345 or 12.345"),
        ("rate 1.234,5", r"rate ([0-9.]+)", None, r"only '1.234' of '1.234,5': .*print 1234.5"),
        ("rate 1,234,567.5", r"rate (\S+)", None, "thousands separators: print 1234567.5"),
        ("rate 0,25", r"rate (\S+)", None, "decimal comma: print 0.25, for example with LC_ALL=C"),
        ("rate 12\u202f345", r"rate ([0-9]+)", None, "matched only '12'"),
        ("rate 12 345", r"rate ([0-9]+)", None, "only '12' of '12 345': thousands .* print 12345"),
        ("rate 12 345.5 ms", r"rate ([0-9]+)", "ms", "only '12' of '12 345.5': .*print 12345.5"),
        ("rate 1 234 567", r"([0-9]+)$", None, "only '567' of '1 234 567'"),
        ("rate 12 345 ops/s", r"([0-9.]+) ops", "ops/s", "only '345' of '12 345'"),
        ("rate 12 345", r"rate (.*)", None, "got '12 345' .*thousands separators: print 12345"),
        ("rate 12k", r"rate ([0-9]+)", "ops/s", "only '12' of '12k': unknown unit 'k'"),
        ("rate 12.5", r"rate ([0-9]+)", None, "only '12' of '12.5'"),
        ("rate 1e6", r"rate ([0-9]+)", None, "only '1' of '1e6'"),
        ("rate -3", r"([0-9]+)$", None, "only '3' of '-3'"),
        ("rate 3GB/s", r"rate ([0-9]+)", "MB/s", "'3GB/s' has the unit GB/s, but `unit:` is MB/s"),
        ("rate 3 GB/s", r"rate ([0-9]+)", "MB/s", "'3 GB/s' has the unit GB/s"),
        ("rate 3 GB/s", r"rate ([0-9]+) GB", "MB/s", "'3 GB/s' has the unit GB/s"),
        ("rate 3 GB/s", r"rate ([0-9]+)", None, "only '3' of '3 GB/s': add `unit: GB/s`, or match"),
    ],
)
def test_a_number_that_goes_on_is_never_cut(text, parse, unit, what):
    with pytest.raises(BadOutput, match=f"speed_rate: .*{what}"):
        metric(f"{text}\n", parse=parse, unit=unit)


@pytest.mark.parametrize(
    ("text", "parse", "unit", "value"),
    [
        ("rate 12,345,6", r"rate ([0-9.]+),", None, 12.0),
        ("7,345", r"^[0-9]+,([0-9]+)$", None, 345.0),
        ("cpu 12 345 678", r"^cpu +([0-9]+) ", None, 12.0),
        ("cpu 12 345 678", r"^cpu +[0-9]+ ([0-9]+) [0-9]+$", None, 345.0),
        ("cpu 12 3456", r"^cpu ([0-9]+)", None, 12.0),
        ("run 1.5 345", r"([0-9]+)$", None, 345.0),
        ("run1: 1234 345", r"([0-9]+)$", None, 345.0),
        ("2026-11-27 12:30:05 345", r"([0-9]+)$", None, 345.0),
        ("run1 345", r"([0-9]+)$", None, 345.0),
        ("rate 12k", r"rate ([0-9]+)k", "kops/s", 12000.0),
        ("rate 3 GB/s", r"rate ([0-9]+) GB/s", None, 3.0),
        ("rate 3 GB/s", r"rate ([0-9]+)", "GByte/s", None),
        ("rate 3 GB/s", r"rate ([0-9]+)", "GB/s", 3000.0),
        ("rate 3, min 2", r"rate ([0-9]+)", None, 3.0),
        ("rate 3 min 2 max 5", r"rate ([0-9]+)", "ops/s", 3.0),
        ("rate 3 (5 runs)", r"rate ([0-9]+)", "ops/s", 3.0),
        ("rate=3;x=5", r"rate=([0-9]+)", None, 3.0),
    ],
)
def test_what_a_pattern_requires_beside_its_number_is_intended(text, parse, unit, value):
    assert metric(f"{text}\n", parse=parse, unit=unit)[0] == pytest.approx(value or 3000.0)


def test_a_very_long_line_is_not_searched_to_its_end():
    with pytest.raises(BadOutput, match="no line of the output matches"):
        metric("x" * 100_000 + " rate: 5\n", parse=r"rate: (\d+)")


def test_all_metrics_of_a_workload_are_kept():
    entries = {
        "copy_rate": {"parse": r"copy (\S+)", "unit": "MB/s", "better": "higher"},
        "tail_latency": {"parse": r"p99 (\S+)", "unit": "us"},
        "absent_rate": {"parse": r"absent (\S+)", "better": "lower"},
    }
    mine = workload(metrics=entries)
    assert mine.metric == "copy_rate"
    value, measurements = value_of(outcome(stdout=b"copy 5\np99 12\n"), mine, "tail_latency")
    assert value == pytest.approx(12e-6)
    assert measurements == {"copy_rate": 5.0, "tail_latency": value}


def test_the_run_time_is_a_metric_of_a_program_that_prints_nothing():
    value, measurements = value_of(outcome(), workload(metric="wall_time"), "wall_time")
    assert value == 2.5
    assert measurements == {"wall_time": 2.5}


@pytest.mark.parametrize(
    ("ended", "what"),
    [
        (outcome(3, stderr=b"no memory\n"), "workload exited with status 3: no memory"),
        (outcome(1), "workload exited with status 1: it printed nothing"),
        (outcome(139), r"workload exited with status 139 \(SIGSEGV\): it printed nothing"),
        (outcome(137, stdout=b"half\n"), r"\(SIGKILL\), perhaps by the kernel's OOM killer.*half"),
    ],
)
def test_how_a_command_failed_is_reported(ended, what):
    with pytest.raises(BadOutput, match=what):
        value_of(ended, workload(metric="wall_time"), "wall_time")


def test_metrics_of_one_workload_have_their_own_direction(lab):
    entries = {
        "copy_rate": {"parse": r"copy (\S+)", "better": "higher"},
        "fault_rate": {"parse": r"faults (\S+)", "better": "lower"},
        "tail_latency": {"parse": r"p99 (\S+)", "unit": "us"},
    }
    assert lab(metrics=entries).better_of("one") == "higher"
    assert lab({"metric": "fault_rate"}, metrics=entries).better_of("one") == "lower"
    assert lab({"metric": "tail_latency"}, metrics=entries).better_of("one") == "lower"
    assert lab(metric="wall_time").better_of("one") == "lower"


@pytest.mark.parametrize(
    ("entry", "line", "what"),
    [
        ({"parse": "rate: ("}, "parse:", "invalid regular expression"),
        ({"parse": "rate: .*"}, "parse:", "expected one group, got 0"),
        ({"parse": "(a)(b)"}, "parse:", "expected one group, got 2"),
        ({"parse": "$rate"}, "parse:", "invalid path in JSON"),
        ({"parse": "(.*)", "unit": "furlong"}, "unit:", "unknown unit"),
        ({"parse": "(.*)", "unit": "us"}, "unit:", "us is a unit of time, but the metric's name"),
        ({"parse": "(.*)", "better": None}, "speed_rate:", "direction of metric"),
    ],
)
def test_a_wrong_metric_is_reported_with_its_line(lab, tmp_path, entry, line, what):
    keys = {"better": "higher", **entry}
    keys = {name: value for name, value in keys.items() if value is not None}
    with pytest.raises(ConfigError) as caught:
        lab(metrics={"speed_rate": keys})
    (problem,) = caught.value.problems
    assert what in problem.what
    assert line in (tmp_path / "lab.yaml").read_text().splitlines()[problem.line - 1]


def test_the_name_of_the_run_time_is_reserved(lab):
    with pytest.raises(ConfigError, match="wall_time is the run time of the command"):
        lab(metrics={"wall_time": {"parse": "(.*)"}})

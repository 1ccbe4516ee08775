import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.errors import BadOutput
from labctl.experiments.output import measure


@pytest.mark.parametrize(
    ("text", "metric", "value"),
    [
        ('{"elapsed": 2.5}', "elapsed", 2.5),
        ('{"elapsed_nanoseconds": 1500000000}', "elapsed", 1.5),
        ('{"elapsed_ms": 20}', "elapsed", 0.02),
        ('{"elapsed_msec": 20}', "elapsed", 0.02),
        ('{"elapsed_nanoseconds": 2000000000}', "elapsed_nanoseconds", 2.0),
        ('noise\n{"elapsed": 1}\nmore\n{"elapsed": 2}\n', "elapsed", 2.0),
        ("elapsed: 12.5 ms\n", "elapsed", 0.0125),
        ("warm elapsed=3\nelapsed=4\n", "elapsed", 4.0),
        ("Throughput: 812.5 MB\n", "Throughput", 812.5),
        ("starting\n3.25\n", "elapsed", 3.25),
    ],
)
def test_a_number_is_found(text, metric, value):
    assert measure(text, metric)[0].value == pytest.approx(value)


@pytest.mark.parametrize(
    ("message", "value"),
    [
        ("980 msec", 0.98),
        ("980msec", 0.98),
        ("12.5 \u00b5s", 12.5e-6),
        ("12.5\u03bcs", 12.5e-6),
        ("7 usec", 7e-6),
        ("7 nsecs", 7e-9),
        ("7 Seconds", 7.0),
        ("1.5 min", 90.0),
        ("2 h", 7200.0),
        ("5e3 ns", 5e-6),
        ("4.s", 4.0),
        ("12.5 ms.", 0.0125),
        ("12.5 ms, user: 3 s", 0.0125),
        ("3 user=1", 3.0),
        ("3, user=1", 3.0),
        ("12.5 ms (3 runs)", 0.0125),
        ("12.5 (ms)", 0.0125),
        ("12.5 [ms]", 0.0125),
        ("12.5 ms \u00b1 3%", 0.0125),
        ("12.5 ms +- 3%", 0.0125),
        ("12.5 ms # warm", 0.0125),
        ("12.5 ms\r", 0.0125),
        ("12.5 us/op", 12.5e-6),
        ("900 MB/s", 900.0),
        ("1.1 GB/s", 1100.0),
        ("1 MiB/sec", 1.048576),
        ("9.4 Gbits/sec", 9400.0),
        ("12.5 kops/s", 12500.0),
        ("7 /s", 7.0),
        ("9.4 Gbps", 9400.0),
        ("940 MBps", 940.0),
        ("12345678.9 lps (10.0 s, 7 samples)", 12345678.9),
        ("12.5 kmsgs/s", 12500.0),
        ("35 cycles/op", 35.0),
        ("55 %", 55.0),
        ("55%", 55.0),
    ],
)
def test_a_quantity_is_a_number_and_a_known_unit(message, value):
    assert measure(f"x_total: {message}\n", "x_total")[0].value == pytest.approx(value)


@pytest.mark.parametrize(
    "message",
    ["402,5 ms", "402,5", "1,234,567 ns", "1.234.567 ns", "1'234 ns", "1_234 ns", "402 500 ns",
     "402\u202f500 ns", "402, 500 ns", "1m2.5s", "1 m 2 s", "1 min 2 s", "1 min, 2 s", "1h 2min",
     "0:05.25", "5:03", "5e", "5e ms", "0x10", "10 Ms", "10 MS", "12 fortnights", "12 to 15 ms",
     "12-15 ms", "12 - 15 ms", "3 x 4 ms", "3*4", "4 ms * 3", "1/3 s", "12 MB / s", "12 MB per min",
     "12 MB/min", "12.3k", "nan", "inf", "N/A", "-", "--5", "= 5", "\u0661\u0662", "\uff11\uff12",
     "1.2.3", "5 ops/s/s", "5 ns/fortnight", "twelve", "~5", "<5", "\x1b[1m5\x1b[0m", "5 ms 6",
     "9" * 20_000, "9" * 20_000 + "x", "5" + " " * 20_000 + "fortnights", "5 m" + "s" * 20_000],
)  # fmt: skip
def test_anything_else_is_refused_with_what_was_seen(message):
    with pytest.raises(BadOutput, match=r"elapsed: expected one number .*got '") as caught:
        measure(f"elapsed: 5 s\nelapsed: {message}\n", "elapsed")
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()
    seen = " ".join(message.split())[:20].replace("\x1b", "?")
    assert seen in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"level": "info", "msg": "x"}\nelapsed: 12.5 ms',
            "no top-level key 'elapsed' (keys: 'lev",
        ),
        ('{"results": {"elapsed": 1}}', "no top-level key 'elapsed' (keys: 'results')"),
        ("{}\nelapsed: 5", "no top-level key 'elapsed' (it is empty)"),
        ('{"elapsed": "1.5"}', """elapsed: expected a JSON number, got '"1.5"'"""),
        ('{"elapsed": null}', "elapsed: expected a JSON number, got 'null'"),
    ],
)
def test_a_missing_key_is_reported_for_its_object(text, message):
    """The text may well have printed it elsewhere."""
    with pytest.raises(BadOutput) as caught:
        measure(text, "elapsed")
    assert message in str(caught.value)


def test_a_sum_over_threads_may_have_a_name_that_is_no_time():
    with pytest.raises(BadOutput, match="a sum over threads, use a metric name that is not a time"):
        measure("wait_time: 7 s", "wait_time", took_seconds=1.8, cpus=4)
    assert measure("wait_total: 7", "wait_total", took_seconds=1.8, cpus=4)[0].value == 7


def test_a_throughput_is_not_read_up_to_its_comma():
    with pytest.raises(BadOutput, match="'12,345 ops/s'"):
        measure("throughput 12,345 ops/s", "throughput")


@pytest.mark.parametrize(
    "text",
    ["max-elapsed: 9", "run --elapsed 9", "elapsed time since the start", "1,234", "1,5\n\n"],
)
def test_another_name_or_part_of_a_number_is_none(text):
    with pytest.raises(BadOutput, match="did not print 'elapsed'"):
        measure(text, "elapsed")


@pytest.mark.parametrize(
    "text",
    ["", "done", '{"other": 1}', '{"elapsed": "1"}', '{"elapsed": true}', '{"elapsed": 0}',
     '{"elapsed": -1}', '{"elapsed": NaN}', '{"elapsed": Infinity}', "unelapsed=3 x",
     '{"elapsed": null, "elapsed_ns": 5}', '{"elapsed": "12.5 ms"}', '{"elapsed": [1]}',
     '{"elapsed": 1} done', '{"elapsed": 1}{"elapsed": 2}', 'result: {"elapsed": 1}',
     '[\n{"elapsed": 1},\n{"elapsed": 2}\n]', '{"elapsed_min": 3}'],
)  # fmt: skip
def test_no_number_is_an_error_that_says_so(text):
    with pytest.raises(BadOutput, match="elapsed"):
        measure(text, "elapsed")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{\n  "elapsed": 5\n}\n', 5),
        ('start\n  {\n  "elapsed":\n 5, "s": "{[\\"" }\nend {\n', 5),
        ('{\n "runs": [\n  {"elapsed": 5}\n ],\n "elapsed": 7\n}', 7),
        ('{\n "elapsed": 1\n}\n{\n "elapsed": 2\n}', 2),
        ('{broken\n[====>  \n it\'s "\n{"elapsed": 2}\nfoo() {\n', 2),
        ('{"elapsed": 2, "big": 18446744073709551615}\r\n', 2),
        ('{"elapsed": 2, "text": "\\ud83d\\ude00"}', 2),
    ],
)
def test_an_object_may_have_several_lines(text, value):
    assert measure(text, "elapsed")[0].value == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"elapsed": 1, "x": NaN}', "NaN"),
        ('{"elapsed": 1, "x": -Infinity}', "-Infinity"),
        ('{"elapsed": 1e999}', "too large"),
        ('{"elapsed": ' + "9" * 400 + "}", "64 bits"),
        ('{"elapsed": 1, "x": ' + "9" * 20_000 + "}", "64 bits"),
        ('{"elapsed": 1, "x": ' + "[" * 3000 + "]" * 3000 + "}", "nested 3001 deep"),
        ('{"elapsed": 1, "x": ' + '{"x": ' * 3000 + "1" + "}" * 3001, "nested 3001 deep"),
        ('{"elapsed": 1, "x": ' + "[" * 3000, "not closed"),
        ('{"elapsed": 1, "elapsed": 2}', "duplicate key 'elapsed'"),
        ('{"elapsed": 1, "x": {"a": 1, "a": 2}}', "duplicate key 'a'"),
        ('{"elapsed": 1, "x": "\\ud800"}', "surrogate"),
        ('{"elapsed": 1}\n{"elapsed": 2,}', "line 2 is malformed"),
        ('{\n "a": {"elapsed": 1},\n "elapsed": 2,\n}', "malformed in line 4"),
        ('{\n "runs": [\n  {"elapsed": 5},\n', "line 1 is not closed"),
        ('{"elapsed": 1, "x": "' + "y" * 2**20 + '"}', "longer than 1 MiB"),
        ("{\"elapsed\": 1, 'x': 2}", "malformed"),
        ('{"elapsed": 01}', "malformed"),
    ],
)
def test_an_object_that_cannot_be_a_result_is_bad_output(text, why):
    with pytest.raises(BadOutput, match=why) as caught:
        measure(text, "elapsed")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "metric", "cpus"),
    [
        ("elapsed: 980", "elapsed", 4),
        ("980", "elapsed", 4),
        ('{"elapsed": 980}', "elapsed", 4),
        ('{"populate_ms": 1900}', "populate", 4),
        ("wait_time = 1.9 s", "wait_time", 4),
        ('{"cpu_ms": 8000}', "cpu", 4),
    ],
)
def test_a_time_above_the_command_s_own_is_refused_with_both(text, metric, cpus):
    with pytest.raises(BadOutput, match=r"longer than the command.* ran \(1.8 s\)"):
        measure(text, metric, took_seconds=1.8, cpus=cpus)


@pytest.mark.parametrize(
    ("text", "metric", "cpus", "took"),
    [
        ("elapsed: 1.8001", "elapsed", 4, 1.8),
        ("elapsed: 10 ms", "elapsed", 4, 0.0),  # by ticks of 10 ms
        ('{"cpu_ms": 7000}', "cpu", 4, 1.8),
        ('{"cpu_ms": 70000}', "cpu", None, 1.8),
        ('{"task_clock_ms": 7000}', "task_clock", 4, 1.8),
        ("throughput: 812", "throughput", 4, 1.8),
        ('{"ops_s": 812}', "ops", 4, 1.8),
        ('{"ops_s": 812}', "ops_s", 4, 1.8),
        ("time_percent: 55", "time_percent", 4, 1.8),
        ("elapsed: 55 %", "elapsed", 4, 1.8),
        ("score\n980", "score", 4, 1.8),
    ],
)
def test_what_is_no_time_or_no_longer_is_taken(text, metric, cpus, took):
    assert measure(text, metric, took_seconds=took, cpus=cpus)[0].value > 0


def seconds(text):
    """Return the CPU time of reading a text, the least of three."""
    taken = []
    for _ in range(3):
        began = time.process_time()
        with pytest.raises(BadOutput):
            measure(text, "elapsed")
        taken.append(time.process_time() - began)
    return min(taken)


@pytest.mark.parametrize(
    ("begin", "part", "end"),
    [
        ("noise\n", "9", "x"),
        ("elapsed: ", "9", "x"),
        ("", "elapsed ", ""),
        ("", "elapsed: x ", ""),
        ("elapsed:", "  ", ""),
        ("", "{\n", ""),
        ("", '{"a":\n', ""),
        ("", '{"', ""),
        ("", '{"a": 1},\n', ""),
        ("", '{\n"\\', ""),
        ("{", "  ", ""),
        ("", "[]", '\n{"a":['),
        ("", "{]", '\n{"a": 1}'),
    ],
)
def test_the_time_grows_with_the_text_only(begin, part, end):
    """Of a number of 20 000 digits at the end, an earlier form took 21 s, of twice that 116 s."""
    short, long = (seconds(begin + part * count + end) for count in (2_000, 16_000))
    assert long < 30 * short + 0.1


def test_output_that_is_too_long_is_refused():
    with pytest.raises(BadOutput, match="9 MiB"):
        measure("x" * 9 * 2**20, "elapsed")


@given(st.text())
def test_any_output_is_a_number_or_an_error(text):
    try:
        value, _ = measure(text, "elapsed")
    except BadOutput:
        return
    assert value.value > 0


@given(st.text(alphabet='{}[]",:\\\n elapsd1.e-0', max_size=60))
def test_anything_like_json_is_a_number_or_an_error(text):
    try:
        value, _ = measure(text, "elapsed")
    except BadOutput:
        return
    assert value.value > 0

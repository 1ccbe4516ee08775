from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_time import assert_linear

from labctl.errors import ConfigError, Problem, UserError
from labctl.lab import tabs, template
from labctl.lab.load import Experiment, Lab, Topology, check_host, load
from labctl.units import GIB, MIB

CHECKOUT = Path(__file__).parents[2]

HEAD = """\
version: 1
guests:
  numa4: {nodes: 4, memory_per_node: 1GiB}
kernels:
  stock: {source: debian:linux-source-6.1}
  patched: {base: stock, series: patches/good}
"""  # six lines; what a test adds starts in line 7
BODY = """\
tunables:
  max_active: {file: /tunable, kernels: [patched]}
  thp: {file: /thp}
workloads:
  free: {command: freebench, parameters: {op: free, size: 3GiB}, metric: elapsed}
"""
EXPERIMENT = "experiments:\n  one: {workload: free, kernels: [stock, patched]}\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lab")
    for name, text in {
        "guest/kconfig/base.config": "CONFIG_NUMA=y\n",
        "guest/kconfig/debug.config": "CONFIG_KASAN=y\n",
        "guest/kconfig/poison.config": "CONFIG_PAGE_POISONING=y\n",
        "guest/kconfig/no-numa.config": "CONFIG_NUMA=n\n",
        "guest/kconfig/no-smp.config": "CONFIG_SMP=n\n",
        "guest/kconfig/32-bit.config": "CONFIG_64BIT=n\n",
        "more.config": "",
        "patches/good/series": "# first things first\n\na.patch -p1 # why\nb.patch\n",
        "patches/good/a.patch": "",
        "patches/good/b.patch": "",
        "patches/node-grouped-free/6.1/series": "a.patch\n",
        "patches/node-grouped-free/6.1/a.patch": "",
        "patches/parallel-free/6.1/series": "a.patch\n",
        "patches/parallel-free/6.1/a.patch": "",
        "patches/parallel-unmap/6.1/series": "a.patch\n",
        "patches/parallel-unmap/6.1/a.patch": "",
        "patches/torn/series": "a.patch\nlost.patch\n",
        "patches/torn/a.patch": "",
        "patches/empty/series": "# nothing yet\n",
        "patches/fuzzy/series": "# why\na.patch -F3\n",
        "patches/unlisted/a.patch": "",
        "tree/Makefile": "",
        "bzImage": "",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def read(folder: Path, text: str, memory: int | None = None) -> Lab:
    path = folder / "lab.yaml"
    path.write_bytes(text.encode())
    return load(path, host_memory_bytes=memory)


def mistakes(folder: Path, text: str, memory: int | None = None) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        read(folder, text, memory)
    return caught.value.problems


def mistake(folder: Path, text: str, memory: int | None = None) -> Problem:
    """Return the only mistake of a text: one mistake must be exactly one problem."""
    problems = mistakes(folder, text, memory)
    assert len(problems) == 1, "\n".join(map(str, problems))
    return problems[0]


# --- what a good file means ---


def test_the_lab_of_this_repository_loads() -> None:
    lab = load(CHECKOUT / "lab.yaml")
    assert list(lab.kernels) == ["stock", "node-grouped-free", "parallel-free", "parallel-unmap"]
    assert lab.guests["numa4"] == Topology(
        nodes=4, cpus_per_node=1, memory_per_node=1536 * MIB, distances={"remote": 21}
    )
    assert {"headline", "max-active", "threshold", "smoke"} <= set(lab.experiments)
    assert lab.experiments["max-active"].matrix == {"max_active": (1, 2, 4, 8, 16, 32)}
    assert lab.resolve_statistics("smoke").blocks.min == 8
    assert lab.resolve_statistics("smoke").repetitions == 1
    assert lab.resolve_statistics("smoke").minimum_effect == 0.02
    assert lab.resolve_statistics("threshold") == lab.statistics


def test_a_kernel_inherits_unset_keys_from_its_base(folder: Path) -> None:
    lab = read(
        folder,
        """\
kernels:
  a: {source: dir:tree, kconfig: [guest/kconfig/base.config], command_line: quiet}
  b: {base: a, series: patches/good, kconfig: [more.config]}
  c: {base: b, command_line: ""}
  d: {source: image:bzImage}
""",
    )
    b, c = lab.kernels["b"], lab.kernels["c"]
    assert lab.kernels["a"].source == b.source == f"dir:{folder}/tree"
    assert b.kconfig == (folder / "guest/kconfig/base.config", folder / "more.config")
    assert (b.base, b.command_line, b.series) == ("a", "quiet", str(folder / "patches/good"))
    assert (c.command_line, c.series, c.kconfig) == ("", b.series, b.kconfig)
    assert lab.kernels["d"].source == f"image:{folder}/bzImage"


def test_a_configuration_is_inherited_and_completed_for_guests(folder: Path) -> None:
    (folder / ".config").write_text("CONFIG_NUMA=y\n")
    lab = read(
        folder,
        """\
kernels:
  a: {source: dir:tree, config: .config}
  b: {base: a, kconfig: [more.config]}
  c: {base: b, config: x86_64_defconfig}
  d: {source: dir:tree, config: running}
""",
    )
    a, b, c = (lab.kernels[name] for name in "abc")
    assert a.config == b.config == f"{folder}/.config"
    assert [path.name for path in a.kconfig] == ["guest.config"]
    assert [path.name for path in b.kconfig] == ["guest.config", "more.config"]
    assert (c.config, c.kconfig) == ("x86_64_defconfig", b.kconfig)
    assert lab.kernels["d"].config == "running"


def test_make_variables_are_inherited_one_by_one(folder: Path) -> None:
    lab = read(
        folder,
        """\
kernels:
  a: {source: dir:tree, make: {KCFLAGS: -O3, W: 1}, localversion: -a}
  b: {base: a, make: {W: 2, KCPPFLAGS: 16Ki}, compiler: clang-19}
  c: {base: b, compiler: clang, localversion: ""}
  d: {base: b, compiler: gcc}
  e: {base: b, compiler: gcc-12}
""",
    )
    assert [lab.kernels[name].make for name in "abcde"] == [
        {"KCFLAGS": "-O3", "W": "1", "LOCALVERSION": "-a"},
        {"KCFLAGS": "-O3", "W": "2", "KCPPFLAGS": "16Ki", "LLVM": "-19", "LOCALVERSION": "-a"},
        {"KCFLAGS": "-O3", "W": "2", "KCPPFLAGS": "16Ki", "LLVM": "1"},
        {"KCFLAGS": "-O3", "W": "2", "KCPPFLAGS": "16Ki", "LOCALVERSION": "-a"},
        {"KCFLAGS": "-O3", "W": "2", "KCPPFLAGS": "16Ki", "CC": "gcc-12", "LOCALVERSION": "-a"},
    ]


def test_values_keep_their_text_unless_their_type_says_otherwise(folder: Path) -> None:
    lab = read(
        folder,
        """\
kernels:
  6.10: {source: debian:linux-source-6.1}
  off: {base: 6.10}
tunables:
  tunable: {file: /tunable}
  other: {file: /other}
workloads:
  free: {command: freebench, timeout: 5min, parameters: {op: off, size: 3GiB, at: 1:30, n: 16Ki}}
experiments:
  one:
    workload: free
    kernels: [6.10, off]
    set: {other: "16Ki"}
    matrix: {tunable: [yes, 0.5, 007, 4, 64Ki, -1]}
""",
    )
    one = lab.experiments["one"]
    assert one.kernels == ("6.10", "off")
    assert lab.workloads["free"].parameters == {
        "op": "off", "size": 3 * GIB, "at": "1:30", "n": 16384,
    }  # fmt: skip
    assert lab.workloads["free"].timeout == 300.0
    assert one.set == {"other": "16Ki"}
    assert one.matrix["tunable"] == ("yes", 0.5, "007", 4, 65536, -1)
    assert [type(value) for value in one.matrix["tunable"]] == [str, float, str, int, int, int]


def test_a_baseline_is_the_first_kernel_or_joins_them(folder: Path) -> None:
    text = HEAD + BODY + "experiments:\n"
    text += "  one: {workload: free, kernels: [stock, patched]}\n"
    text += "  two: {workload: free, kernels: [patched], baseline: stock}\n"
    text += "  three: {workload: free, kernels: [stock, patched], baseline: patched}\n"
    lab = read(folder, text)
    found = {name: (one.baseline, one.kernels) for name, one in lab.experiments.items()}
    assert found == {
        "one": ("stock", ("stock", "patched")),
        "two": ("stock", ("stock", "patched")),
        "three": ("patched", ("stock", "patched")),
    }
    data = {"name": "x", "workload": "w", "kernels": ("a", "b")}
    assert Experiment.model_validate(data).baseline == "a"


def test_statistics_are_overridden_key_by_key(folder: Path) -> None:
    text = HEAD + BODY
    text += "statistics: {confidence: 99%, blocks: {min: 10}, repetitions: 5}\n"
    text += "experiments:\n  one: {workload: free, kernels: [stock], statistics: "
    text += "{blocks: {max: 12}, stop_at_half_width: none, minimum_effect: 0.05}}\n"
    lab = read(folder, text)
    mine = lab.resolve_statistics("one")
    assert (mine.confidence, mine.repetitions, mine.warmup) == (0.99, 5, 1)
    assert (mine.blocks.min, mine.blocks.max) == (10, 12)
    assert mine.stop_at_half_width is None
    assert mine.minimum_effect == 0.05
    assert lab.statistics.stop_at_half_width == 0.03
    assert lab.statistics.blocks.max == 30


def test_a_workload_becomes_an_argument_vector(folder: Path) -> None:
    text = HEAD + "workloads:\n  w: {command: freebench -v 'a b', parameters: "
    text += "{size: 3GiB, free_all: 0.5}}\n"
    workload = read(folder, text).workloads["w"]
    head = ["freebench", "-v", "a b"]
    assert workload.argv() == [*head, "--size", "3221225472", "--free-all", "0.5"]
    assert workload.argv({"size": 5}) == [*head, "--size", "5", "--free-all", "0.5"]


def test_distances(folder: Path) -> None:
    text = "kernels: {s: {source: image:bzImage}}\nguests:\n"
    text += "  a: {nodes: 2, distances: {matrix: [[10, 30], [25, 10]]}}\n"
    text += "  b: {nodes: 2, distances: {remote: 21}}\ndefaults: {guest: b}\n"
    lab = read(folder, text)
    a, b = lab.guests["a"].distances, lab.guests["b"].distances
    assert [a.distance(i, j) for i in (0, 1) for j in (0, 1)] == [10, 30, 25, 10]
    assert [b.distance(i, j) for i in (0, 1) for j in (0, 1)] == [10, 21, 21, 10]


def test_the_only_guest_is_the_default_guest(folder: Path) -> None:
    lab = read(folder, "guests: {mine: {nodes: 1}}\nkernels: {s: {source: image:bzImage}}\n")
    assert lab.defaults.guest == "mine"


def test_anchors_aliases_and_merge_keys_are_filled_in(folder: Path) -> None:
    text = HEAD + BODY + "experiments:\n"
    text += "  one: &one {workload: free, kernels: [stock], set: &quiet {thp: never}}\n"
    text += "  two: {workload: free, kernels: [patched], set: *quiet}\n"
    text += "  three: {<<: *one, kernels: [patched]}\n"
    lab = read(folder, text)
    assert lab.experiments["two"].set == {"thp": "never"}
    assert lab.experiments["three"].set == {"thp": "never"}
    assert lab.experiments["three"].kernels == ("patched",)


def test_what_a_mapping_says_itself_wins_over_what_it_merges(folder: Path) -> None:
    text = HEAD + BODY + "experiments:\n"
    text += "  one: &one {workload: free, kernels: [stock], set: {thp: never}}\n"
    text += "  two: &two {<<: *one, set: {thp: always}}\n"
    text += "  three: {<<: *two, kernels: [patched]}\n"
    assert read(folder, text).experiments["three"].set == {"thp": "always"}


@pytest.mark.parametrize("ending", ["\r\n", "\n"])
def test_line_endings_and_a_byte_order_mark_do_no_harm(folder: Path, ending: str) -> None:
    text = "\ufeff" + (HEAD + BODY + EXPERIMENT).replace("\n", ending)
    assert read(folder, text).experiments["one"].workload == "free"
    problem = mistake(folder, text.replace("nodes: 4", "nodes: x"))
    assert (problem.line, problem.column) == (3, 18)


# --- all mistakes at once ---

TWELVE = """\
version: 1
guests:
  numa4: {nodes: 4, memory_per_node: 900GiB}
  small:
    nodes: [4]
    memory_per_node: 3 elephants
kernels:
  stock: {source: debian:linux-source-6.1, kconfig: [guest/kconfig/base.config]}
  patched: {base: stock, series: patches/torn}
  left: {base: right}
  right: {base: left}
tunables:
  max_active: {file: /tunable, kernels: [patchd]}
  thp:
TAB file: /thp
workloads:
  free: {command: freebench, parameters: {op: free, size: 3GiB}, metric: elapsed}
experiments:
  headline:
    workload: free
    kernels: [stock, paralel]
    set: {thp: never}
    baselin: stock
  matrix:
    workload: free
    kernels: [patched]
    kernels: [patched]
    baseline: stock
    matrix: {max_active: []}
statistics:
  repetitions: -3
"""
TWELVE_PLACES = [
    (3, "guests.numa4.memory_per_node", "need"),
    (5, "guests.small.nodes[0]", "mapping"),
    (6, "guests.small.memory_per_node", "expected a size"),
    (9, "kernels.patched.series", "lost.patch"),
    (10, "kernels.left.base", "cycle"),
    (13, "tunables.max_active.kernels[0]", "no kernel 'patchd'"),
    (15, "", "tab"),
    (21, "experiments.headline.kernels[1]", "no kernel 'paralel'"),
    (23, "experiments.headline.baselin", "unknown key"),
    (27, "experiments.matrix.kernels", "duplicate"),
    (29, "experiments.matrix.matrix.max_active", "empty"),
    (31, "statistics.repetitions", "at least 1"),
]


@pytest.mark.parametrize("indent", ["\t", "\t\t", "  \t", "\t  ", " \t "])
def test_twelve_mistakes_are_twelve_problems_with_their_lines(folder: Path, indent: str) -> None:
    problems = mistakes(folder, TWELVE.replace("TAB ", indent), memory=23 * GIB)
    assert [(one.line, one.key) for one in problems] == [place[:2] for place in TWELVE_PLACES]
    for problem, (_, _, word) in zip(problems, TWELVE_PLACES, strict=True):
        assert word in problem.what
        assert problem.hint or problem.line == 31
    hints = [one.hint or "" for one in problems]
    assert "did you mean patched?" in hints[5]
    assert "did you mean baseline?" in hints[8]


def test_the_error_reads_as_a_compiler_does(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(folder, TWELVE.replace("TAB ", "    "))
    assert caught.value.exit_status == 2
    first, *_, last = str(caught.value).splitlines()
    assert first.startswith(f"{folder}/lab.yaml:5:13: guests.small.nodes[0]: expected")
    assert last == "10 errors in the lab file"


# --- one mistake, one problem ---

ONE = [
    # addition to the head, or a replacement in it; line; part of the key; words; part of the hint
    ("statistics: {confidense: 0.9}", 7, "statistics.confidense", "unknown", "confidence?"),
    ("statistic: {confidence: 0.9}", 7, "statistic", "unknown", "statistics?"),
    ("zebra: 1", 7, "zebra", "unknown", "known keys: version"),
    ("version: 2", 7, "version", "duplicate", "remove"),
    ("statistics: {confidence: 5}", 7, "confidence", "less than 1", ""),
    ("statistics: {confidence: high}", 7, "confidence", "expected a share", "2% or 0.02"),
    ("statistics: {blocks: {min: 1}}", 7, "blocks.min", "at least 2", ""),
    ("statistics: {blocks: {min: 9, max: 8}}", 7, "blocks.min", "minimum of 9", ""),
    ("statistics: {blocks: {max: 6}}", 7, "blocks.max", "minimum of 8", "defaults are 8 and 30"),
    ("statistics: {blocks: 6}", 7, "statistics.blocks", "expected a mapping", "blocks"),
    ("statistics: {repetitions: 0}", 7, "repetitions", "at least 1", ""),
    ("statistics: {warmup: -1}", 7, "warmup", "at least 0", ""),
    ("statistics: {minimum_effect: 0}", 7, "minimum_effect", "more than 0", ""),
    ("statistics: [a]", 7, "statistics", "expected a mapping", ""),
    ("defaults: {accel: kwm}", 7, "defaults.accel", "auto, kvm or tcg", "kvm?"),
    ("defaults: {launcher: virtme}", 7, "defaults.launcher", "qemu or virtme-ng", "virtme-ng?"),
    ("targets: {box: {host: a}}", 7, "targets.box.kind", "missing", ""),
    ("targets: {box: {kind: telnet, host: a}}", 7, "targets.box.kind", "ssh", ""),
    ("targets: {box: {kind: ssh}}", 7, "targets.box.host", "missing", ""),
    ("targets: {box: {kind: ssh, host: a b}}", 7, "targets.box.host", "", ""),
    ("targets: {box: {kind: ssh, host: a, port: 0}}", 7, "targets.box.port", "1", ""),
    ("targets: {box: {kind: ssh, host: a, key: no}}", 7, "targets.box.key", "not exist", "folder"),
    ("targets: {box: {kind: ssh, host: a, host_key: x}}", 7, "targets.box.host_key", "invalid host",
     "ssh-keyscan"),
    ("targets: {box: {kind: ssh, host: a, hots: b}}", 7, "targets.box.hots", "unknown", "host?"),
    ("defaults: {launcher: }", 7, "defaults.launcher", "has no value", ""),
    ("defaults: {guest: numa5}", 7, "defaults.guest", "no guest 'numa5'", "numa4?"),
    ("tunables: {a: {}}", 7, "tunables.a", "neither", "file:"),
    ("tunables: {a: {file: /a, parameter: b}}", 7, "tunables.a.parameter", "conflicts", ""),
    ("tunables: {a: {file: relative}}", 7, "tunables.a.file", "invalid value", "absolute"),
    ("tunables: {a: {file: /a, kernels: []}}", 7, "tunables.a.kernels", "empty", ""),
    ("tunables: {a: {file: /a, kernels: stock}}", 7, "kernels", "a list", "[stock]"),
    ("tunables: {a: {fil: /a}}", 7, "tunables.a.fil", "unknown", "file?"),
    ("tunables: {a b: {file: /a}}", 7, "tunables.a b", "not a valid name", "letters"),
    (f"tunables: {{{'k' * 300}: {{file: /a}}}}", 7, f"tunables.{'k' * 300}", "too long", "300 ch"),
    ("workloads: {w: {timeout: 5min}}", 7, "workloads.w", "got none", "freebench"),
    ("workloads: {w: {comand: x}}", 7, "workloads.w.comand", "unknown", "command?"),
    ("workloads: {w: {command: ''}}", 7, "workloads.w.command", "empty", ""),
    ('workloads: {w: {command: "a \'b"}}', 7, "command", "split into words", "quote"),
    ("workloads: {w: {command: a, timeout: 1:30}}", 7, "timeout", "expected a duration", "5min"),
    ("workloads: {w: {command: a, timeout: 0}}", 7, "timeout", "more than 0", ""),
    ("workloads: {w: {command: a, parameters: {size: 3GB}}}", 7, "size", "a size", "3GiB?"),
    ("workloads: {w: {command: a, parameters: {size: big}}}", 7, "size", "expected a size", "3GiB"),
    ("workloads: {w: {command: a, parameters: {size: -3GiB}}}", 7, "size", "more than 0", ""),
    ("workloads: {w: {command: a, parameters: {n: [1]}}}", 7, "n", "one value", ""),
    ("workloads: {w: {command: a, parameters: {n: }}}", 7, "parameters.n", "has no value", ""),
    ("tunables: {n: {file: /n}}\nworkloads: {w: {command: a, parameters: {n: 1}}}", 7,
     "tunables.n", "name conflicts with a parameter of the workload w", "rename"),
    ("a: [1, 2", 7, "", "invalid YAML", "close the `[`"),
    ("a: 'x", 7, "", "invalid YAML", "closing quote"),
    ("a: b: c", 7, "", "invalid YAML", "indentation"),
    ("   indented: 1", 7, "", "invalid YAML", ""),
    ("a: *nothing", 7, "", "invalid YAML", ""),
    ("a: @x", 7, "", "invalid YAML", "quote"),
    ("---\nversion: 1", 7, "", "invalid YAML", "one document"),
    ("defaults: !!python/object:os.system {}", 7, "defaults", "tag", "remove"),
    ("defaults: &d {guest: numa4, a: *d}", 7, "defaults.a", "contains itself", ""),
    ("[a, b]: 1", 7, "", "one word", ""),
    ("x: \x07", 7, "", "U+0007", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "key", "what", "hint"), ONE, ids=[one[0] for one in ONE])
def test_one_mistake(folder: Path, text: str, line: int, key: str, what: str, hint: str) -> None:
    problem = mistake(folder, HEAD + text + "\n")
    if key == "defaults.a":  # the unknown key itself is where the anchor ends in itself
        assert "contains itself" in problem.what
    assert (problem.line, problem.key.endswith(key)) == (line, True), problem
    assert what in problem.what
    assert hint in (problem.hint or "")


IN_PLACEMENTS = [
    ("prealloc: maybe", "prealloc", "expected true or false", ""),
    ("hugepages: 4MiB", "hugepages", "2MiB, 1GiB or none, got 4MiB", ""),
    ("hugepages: big", "hugepages", "expected a size", ""),
    ("hugepages: 1GiB, memory_per_node: 1536MiB", "hugepages", "not a multiple", "2GiB"),
    ("host_nodes: all", "host_nodes", "a list of numbers, got the text 'all'", "[0, 1]"),
    ("host_nodes: [-1]", "host_nodes", "counted from 0", "[0, 1]"),
    ("pin: 3", "pin", "a list of numbers", "[0, 1]"),
    ("pin: [a]", "pin", "expected a whole number, got 'a'", ""),
    ("pin: [4, 5, 4]", "pin", "duplicate value 4", "remove"),
    ("pin: []", "pin", "at least one", "[0, 1]"),
    ("pined: auto", "pined", "unknown key", "pin?"),
]


@pytest.mark.parametrize(
    ("keys", "key", "what", "hint"), IN_PLACEMENTS, ids=[x[0] for x in IN_PLACEMENTS]
)
def test_a_mistake_in_how_a_guest_is_placed(
    folder: Path, keys: str, key: str, what: str, hint: str
) -> None:
    problem = mistake(folder, HEAD.replace("memory_per_node: 1GiB", keys))
    assert (problem.line, problem.key) == (3, f"guests.numa4.{key}")
    assert what in problem.what
    assert hint in (problem.hint or "")


LISTED = [
    ("[2]", 19, "nodes[0]", "expected a mapping", "[{key: value}]"),
    ("{cpus: 2}", 18, "nodes", "a number or a list of nodes", "[{cpus: 2"),
    ("[]", 18, "nodes", "must not be empty", ""),
    ("[{cpus: 2}]", 19, "nodes[0].memory", "key `memory` is missing", ""),
    ("[{cpus: 2, memory: 1GiB, size: 1}]", 43, "nodes[0].size", "unknown key", "cpus"),
    ("[{cpus: x, memory: 1GiB}]", 26, "nodes[0].cpus", "a whole number, got 'x'", ""),
    ("[{cpus: 256, memory: 1GiB}]", 26, "nodes[0].cpus", "at most 255", ""),
    ("[{cpus: 1, memory: 512}]", 37, "nodes[0].memory", "0, or whole MiB of at least 64", "512MiB"),
    ("[{cpus: 1, memory: 1MiB}]", 37, "nodes[0].memory", "at least 64MiB, got 1MiB", ""),
    ("[{cpus: 1, memory: 1GB}]", 37, "nodes[0].memory", "expected a size", "1GiB"),
    ("[{cpus: 1, memory: 1GiB}, {cpus: 0, memory: 0}]", 44, "nodes[1]", "neither vCPUs nor", "0"),
    ("[{cpus: 1, memory: 0}, {cpus: 0, memory: 1GiB}]", 18, "nodes", "both vCPUs and memory", ""),
    (
        "[{cpus: 0, memory: 1GiB}, {cpus: 1, memory: 1GiB}]",
        *(26, "nodes[0].cpus", "before a node with vCPUs", "after node 1"),
    ),
    ("[{cpus: 1, memory: 1GiB}], cpus_per_node: 2", 45, "cpus_per_node", "conflicts", "remove"),
    ("[{cpus: 1, memory: 1GiB}], memory_per_node: 1GiB", 45, "memory_per_node", "conflicts", ""),
    ("[{cpus: 255, memory: 1GiB}, {cpus: 9, memory: 0}]", 18, "nodes", "264 CPUs", "255"),
    (
        "[{cpus: 1, memory: 1GiB}, {cpus: 0, memory: 64MiB}], hugepages: 1GiB",
        *(82, "hugepages", "nodes[1].memory, 64MiB, is not a multiple", "memory: 1GiB"),
    ),
    (
        "[{cpus: 1, memory: 1GiB}, {cpus: 1, memory: 0}], distances: {matrix: [[10]]}",
        *(87, "distances.matrix", "2 rows of 2", "per node"),
    ),
]


@pytest.mark.parametrize(
    ("nodes", "column", "key", "what", "hint"), LISTED, ids=[x[0] for x in LISTED]
)
def test_a_mistake_in_a_list_of_nodes(
    folder: Path, nodes: str, column: int, key: str, what: str, hint: str
) -> None:
    problem = mistake(folder, HEAD.replace("4, memory_per_node: 1GiB", nodes))
    assert (problem.line, problem.column, problem.key) == (3, column, f"guests.numa4.{key}")
    assert what in problem.what
    assert hint in (problem.hint or "")


IN_PACKAGES = [
    ("sockets: 0", "sockets", "at least 1, got 0", ""),
    ("cores: many", "cores", "a whole number", ""),
    ("threads: 300", "threads", "at most 255", ""),
    (
        "sockets: 3",
        "sockets",
        "3 sockets x 2 cores x 1 thread are 6 CPUs, but the nodes have 8",
        "",
    ),
    ("threads: 16", "threads", "1 socket x 1 core x 16 threads are 16 CPUs", "may be omitted"),
    ("sockets: 1, threads: 2", "sockets", "socket of 8 CPUs is on two nodes", "multiple of"),
    ("cores: 8", "cores", "on two nodes: node 0 has 4", "cores x threads, 8"),
]


@pytest.mark.parametrize(("keys", "key", "what", "hint"), IN_PACKAGES)
def test_a_mistake_in_sockets_cores_and_threads(
    folder: Path, keys: str, key: str, what: str, hint: str
) -> None:
    guest = f"2, cpus_per_node: 4, {keys}"
    problem = mistake(folder, HEAD.replace("4, memory_per_node: 1GiB", guest))
    assert (problem.line, problem.key) == (3, f"guests.numa4.{key}")
    assert what in problem.what
    assert hint in (problem.hint or "")


@pytest.mark.parametrize(
    ("keys", "packages"),
    [
        ("", (2, 4, 1)),
        (", threads: 2", (2, 2, 2)),
        (", sockets: 4", (4, 2, 1)),
        (", cores: 1", (8, 1, 1)),
        (", cores: 1, threads: 2", (4, 1, 2)),
        (", sockets: 2, cores: 2, threads: 2", (2, 2, 2)),
    ],
)
def test_sockets_cores_and_threads_that_are_omitted(folder: Path, keys: str, packages: Any) -> None:
    text = HEAD.replace("4, memory_per_node: 1GiB", f"2, cpus_per_node: 4{keys}")
    guest = read(folder, text).guests["numa4"]
    assert guest.packages == packages
    assert guest.model_dump().keys() >= {"cpus_per_node", "memory_per_node"}
    assert Topology.model_validate(guest.model_dump()) == guest


IN_QEMU = [
    ("-device x", "qemu", "expected a list", "[-device x]"),
    ("[-device x]", "qemu[0]", "option and value are in one item", "[-device, 'x']"),
    ("[disk.img]", "qemu[0]", "expected an option, got 'disk.img'", "virtio-rng-pci"),
    ("[-m, 4G]", "qemu[0]", "-m conflicts with `nodes:`", "remove"),
    ("[-device, x, --smp, 4]", "qemu[2]", "-smp conflicts with `nodes:`", "remove"),
    ("[-numa, 'hmat-lb,x']", "qemu[0]", "-numa conflicts with `nodes:`", ""),
    ("[-object, 'memory-backend-ram,id=x']", "qemu[0]", "memory-backend-ram conflicts", ""),
    ("[-kernel, x]", "qemu[0]", "-kernel conflicts with `kernels:`", ""),
    ("[-append, x]", "qemu[0]", "conflicts with `command_line:`", ""),
    ("[-initrd, x]", "qemu[0]", "conflicts with", ""),
    ("[-machine, q35]", "qemu[0]", "conflicts with `arch:`", ""),
    ("[-M, q35]", "qemu[0]", "conflicts with `arch:`", ""),
    ("[-accel, kvm]", "qemu[0]", "conflicts with `defaults: accel:`", ""),
    ("[-cpu, host]", "qemu[0]", "conflicts with `defaults: accel:`", ""),
    ("[-serial, stdio]", "qemu[0]", "conflicts with labctl", ""),
    ("[-chardev, 'null,id=line']", "qemu[0]", "conflicts with labctl", "use another"),
    ("[-qmp, stdio]", "qemu[0]", "conflicts with labctl", ""),
    ("[-mon, x]", "qemu[0]", "conflicts with labctl", ""),
    ("[-name, x]", "qemu[0]", "conflicts with labctl", ""),
    ("[-sandbox, off]", "qemu[0]", "conflicts with labctl", ""),
    ("[-run-with, 'user=nobody']", "qemu[0]", "denied by the sandbox", "as that user"),
    ("[-netdev, 'bridge,id=n']", "qemu[0]", "starts a program", "script=no"),
    ("[-nic, 'tap,ifname=t,script=no']", "qemu[0]", "starts a program", "downscript=no"),
    ("[-netdev, 'type=tap,id=n,helper=/x']", "qemu[0]", "starts a program", ""),
    ("[-s]", "qemu[0]", "every host of the network", "labctl gdb"),
    ("[-gdb, 'tcp::1234']", "qemu[0]", "every host of the network", ""),
    ("[-display, gtk]", "qemu[0]", "conflicts with labctl", ""),
    ('["-device", "a\\x01"]', "qemu[1]", "printable", ""),
]


@pytest.mark.parametrize(("words", "key", "what", "hint"), IN_QEMU, ids=[x[0] for x in IN_QEMU])
def test_a_mistake_in_arguments_of_qemu(
    folder: Path, words: str, key: str, what: str, hint: str
) -> None:
    problem = mistake(folder, HEAD.replace("memory_per_node: 1GiB", f"qemu: {words}"))
    assert (problem.line, problem.key) == (3, f"guests.numa4.{key}")
    assert problem.column >= 27
    assert what in problem.what
    assert hint in (problem.hint or "")


@pytest.mark.parametrize("option", ["net", "nic", "netdev"])
def test_the_network_is_labctls_with_ssh_only(folder: Path, option: str) -> None:
    text = HEAD.replace("memory_per_node: 1GiB", f"qemu: [-{option}, user]")
    assert read(folder, text).guests["numa4"].qemu == (f"-{option}", "user")
    problem = mistake(folder, text + "defaults: {transport: ssh}\n")
    assert problem.what == f"-{option} conflicts with `defaults: transport: ssh`"


@pytest.mark.parametrize(
    "words",
    [
        "[-netdev, 'tap,id=n,ifname=t,script=no,downscript=no']",
        "[-netdev, 'tap,id=n,fd=3']",
        "[-run-with, async-teardown=on]",
        "[-gdb, 'tcp:127.0.0.1:1234']",
    ],
)
def test_arguments_of_qemu_that_the_sandbox_allows(folder: Path, words: str) -> None:
    text = HEAD.replace("memory_per_node: 1GiB", f"qemu: {words}")
    assert len(read(folder, text).guests["numa4"].qemu) == 2


def test_arguments_of_qemu(folder: Path) -> None:
    words = "[-device, virtio-rng-pci, -object, 'rng-builtin,id=r']"
    guest = read(folder, HEAD.replace("memory_per_node: 1GiB", f"qemu: {words}")).guests["numa4"]
    assert guest.qemu == ("-device", "virtio-rng-pci", "-object", "rng-builtin,id=r")
    assert "qemu" not in Topology().model_dump()


def test_each_node_of_a_list_is_reported(folder: Path) -> None:
    nodes = "[{cpus: 0, memory: 0}, {cpus: 1, memory: 1GiB}, {cpus: 0, memory: 0}]"
    problems = mistakes(folder, HEAD.replace("4, memory_per_node: 1GiB", nodes))
    assert [one.key for one in problems] == ["guests.numa4.nodes[0]", "guests.numa4.nodes[2]"]


def test_nodes_may_differ(folder: Path) -> None:
    nodes = "[{cpus: 2, memory: 2GiB}, {cpus: 1, memory: 0}, {cpus: 0, memory: 4GiB}]"
    guest = read(folder, HEAD.replace("4, memory_per_node: 1GiB", nodes)).guests["numa4"]
    assert (guest.node_count, guest.vcpus, guest.memory_bytes) == (3, 3, 6 * GIB)
    assert guest.cpus == (range(2), range(2, 3), range(3, 3))
    recorded = guest.model_dump(mode="json")
    assert not {"cpus_per_node", "memory_per_node"} & recorded.keys()
    assert Topology.model_validate(recorded) == guest


def test_nodes_in_a_list_must_fit_into_the_host(folder: Path) -> None:
    nodes = "[{cpus: 1, memory: 1GiB}, {cpus: 0, memory: 2GiB}]"
    text = HEAD.replace("4, memory_per_node: 1GiB", nodes) + BODY + EXPERIMENT
    read(folder, text, memory=9 * GIB)
    problem = mistake(folder, text, memory=9 * GIB - 1)
    assert problem.key == "guests.numa4.nodes"
    assert "(1GiB + 2GiB each)" in problem.what
    assert "at most 3071MiB in all fit" in (problem.hint or "")


def test_vng_makes_the_memory_of_its_guests_itself(folder: Path) -> None:
    keys = "defaults: {launcher: virtme-ng}\nguests: {numa4: {prealloc: true}}"
    problem = mistake(
        folder, HEAD.replace("guests:\n  numa4: {nodes: 4, memory_per_node: 1GiB}", keys)
    )
    assert (problem.line, problem.key) == (3, "guests.numa4.prealloc")
    assert "launcher: qemu" in (problem.hint or "")


@pytest.mark.parametrize("key", ["launcher: virtme-ng", "accel: kvm", "accel: auto"])
def test_only_tcg_counts_instructions(folder: Path, key: str) -> None:
    tcg = "" if "accel" in key else ", accel: tcg"
    keys = f"defaults: {{{key}{tcg}}}\nguests: {{numa4: {{icount: true}}}}"
    plain = "guests:\n  numa4: {nodes: 4, memory_per_node: 1GiB}"
    problem = mistake(folder, HEAD.replace(plain, keys))
    assert (problem.line, problem.key) == (3, "guests.numa4.icount")
    assert key in problem.what
    keys = "defaults: {accel: tcg}\nguests: {numa4: {icount: true}}"
    assert read(folder, HEAD.replace(plain, keys)).guests["numa4"].icount


def test_how_a_guest_is_placed(folder: Path) -> None:
    keys = "prealloc: true, hugepages: 2MiB, host_nodes: [0, 1], pin: [2, 3]"
    guest = read(folder, HEAD.replace("memory_per_node: 1GiB", keys)).guests["numa4"]
    assert (guest.prealloc, guest.hugepages) == (True, 2 * MIB)
    assert (guest.host_nodes, guest.pin) == ((0, 1), (2, 3))
    assert Topology.model_validate(guest.model_dump(mode="json")) == guest
    keys = "prealloc: false, hugepages: none, host_nodes: auto, pin: none"
    guest = read(folder, HEAD.replace("memory_per_node: 1GiB", keys)).guests["numa4"]
    assert guest == Topology(host_nodes="auto", pin=None)


IN_KERNELS = [
    ("{source: debian:linux, bas: stock}", "bas", "unknown key"),
    ("{sorce: debian:linux}", "sorce", "unknown key"),
    ("{}", "k", "neither"),
    ("{source: debian:linux, base: stock}", "k.base", "conflicts"),
    ("{base: stok}", "k.base", "no kernel 'stok'"),
    ("{base: k}", "k.base", "k -> k"),
    ("{base: [stock]}", "k.base", "expected text"),
    ("{source: dbian:linux}", "k.source", "not a source"),
    ("{source: svn:linux}", "k.source", "not a source"),
    ("{source: linux}", "k.source", "not a source"),
    ("{source: 'debian:a b'}", "k.source", "not a package"),
    ("{source: 'dir:'}", "k.source", "path is missing"),
    ("{source: dir:nowhere}", "k.source", "does not exist"),
    ("{source: image:nowhere}", "k.source", "does not exist"),
    ("{source: image:bzImage, series: patches/good}", "k.series", "patches cannot be applied"),
    ("{source: debian:linux, kconfig: [nowhere]}", "k.kconfig[0]", "does not exist"),
    ("{source: debian:linux, kconfig: nowhere}", "k.kconfig", "expected a list"),
    ("{source: debian:linux, series: patches/nowhere}", "k.series", "does not exist"),
    ("{source: debian:linux, series: patches/unlisted}", "k.series", "a.patch has no number"),
    ("{source: debian:linux, series: patches/torn}", "k.series", "patch lost.patch"),
    ("{source: debian:linux, series: patches/empty}", "k.series", "names no patch"),
    (
        "{source: debian:linux, series: patches/fuzzy}",
        "k.series",
        "series:2: unsupported option -F3",
    ),
    ("{source: debian:linux, series: " + "x" * 5000 + "}", "k.series", "does not exist"),
    ('{source: debian:linux, series: "a\\0b"}', "k.series", "does not exist"),
    ("{base: patched, series: patches/torn}", "k.series", "patch lost.patch"),
    ("{source: debian:linux, config: nowhere}", "k.config", "file 'nowhere' does not exist"),
    ("{source: debian:linux, config: [defconfig]}", "k.config", "expected text"),
    ("{source: image:bzImage, config: defconfig}", "k.config", "cannot be configured"),
    ("{source: image:bzImage, make: {W: 1}}", "k.make", "cannot be configured"),
    ("{source: debian:linux, make: LLVM=1}", "k.make", "expected a mapping"),
    ("{source: debian:linux, make: {O: /tmp}}", "make.O", "labctl selects the source and"),
    ("{source: debian:linux, make: {ARCH: arm64}}", "make.ARCH", "use `arch:`"),
    ("{source: debian:linux, make: {CROSS_COMPILE: a-}}", "make.CROSS_COMPILE", "use `arch:`"),
    ("{source: debian:linux, make: {M: drivers}}", "make.M", "modules are not built"),
    ("{source: debian:linux, make: {V: 1}}", "make.V", "progress"),
    ("{source: debian:linux, make: {LOCALVERSION: -a}}", "LOCALVERSION", "use `localversion:`"),
    ("{source: debian:linux, make: {KCONFIG_CONFIG: a}}", "KCONFIG_CONFIG", "use `config:`"),
    ("{source: debian:linux, make: {KBUILD_BUILD_USER: a}}", "BUILD_USER", "labctl fixes it"),
    ("{source: debian:linux, make: {-j: 4}}", "make.-j", "is not a name"),
    ("{source: debian:linux, make: {W: [1]}}", "make.W", "expected text"),
    ("{source: debian:linux, make: {KCFLAGS: $(HOME)}}", "make.KCFLAGS", "would expand it"),
    ("{source: debian:linux, make: {LLVM: 1}, compiler: clang-19}", "compiler", "sets LLVM"),
    ("{source: debian:linux, compiler: icc}", "k.compiler", "invalid value 'icc'"),
    ("{source: debian:linux, localversion: a b}", "k.localversion", "invalid value 'a b'"),
    ("text", "k", "expected a mapping"),
    ("", "k", "has no value"),
]


@pytest.mark.parametrize(("kernel", "key", "what"), IN_KERNELS, ids=[x[0][:50] for x in IN_KERNELS])
def test_a_mistake_in_a_kernel_has_no_echo_in_the_experiments(
    folder: Path, kernel: str, key: str, what: str
) -> None:
    text = HEAD + f"  k: {kernel}\n  child: {{base: k, command_line: quiet}}\n" + BODY
    text += "experiments:\n  one: {workload: free, kernels: [stock, k, child], baseline: k}\n"
    problem = mistake(folder, text)
    assert problem.line == 7
    assert problem.key.endswith(key)
    assert what in problem.what


IN_EXPERIMENTS = [
    ("{workload: fre, kernels: [stock]}", "workload", "no workload 'fre'", "free?"),
    ("{workload: fre, kernels: [stock], set: {size: 1GiB}}", "workload", "no workload", "free?"),
    ("{kernels: [stock]}", "workload", "missing", "NAME"),
    ("{workload: free}", "kernels", "missing", "[stock"),
    ("{workload: free, kernels: []}", "kernels", "empty", ""),
    ("{workload: free, kernels: stock}", "kernels", "a list", "[stock]"),
    ("{workload: free, kernels: [stock, stock]}", "kernels[1]", "duplicate", ""),
    ("{workload: free, kernels: [stock], baseline: stok}", "baseline", "no kernel", "stock?"),
    ("{workload: free, kernels: [stock], guest: numa}", "guest", "no guest", "numa4?"),
    ("{workload: free, kernels: [stock], matrix: {}}", "matrix", "empty", "max_active"),
    ("{workload: free, kernels: [stock], matrix: }", "matrix", "has no value", ""),
    ("{workload: free, kernels: [stock], matrix: {thp: []}}", "matrix.thp", "empty", "thp"),
    ("{workload: free, kernels: [stock], matrix: {thp: never}}", "thp", "a list", "[never]"),
    ("{workload: free, kernels: [stock], matrix: {thp: [a, a]}}", "thp[1]", "duplicate", ""),
    ("{workload: free, kernels: [stock], matrix: {thp: [a, ]}, set: {thp: b}}", "set.thp",
     "same key in `matrix`", ""),
    ("{workload: free, kernels: [stock], matrix: {max_activ: [1]}}", "max_activ", "no tunable",
     "max_active?"),
    ("{workload: free, kernels: [patched], set: {max-active: 1}}", "max-active", "no tunable",
     "max_active?"),
    ("{workload: free, kernels: [stock], set: {sise: 1}}", "sise", "parameter of its workload",
     "size?"),
    ("{workload: free, kernels: [stock], matrix: {max_active: [1]}}", "max_active",
     "none of this experiment's kernels", "(patched)"),
    ("{workload: free, kernels: [stock], set: {max_active: 1}}", "set.max_active", "none", ""),
    ("{workload: free, kernels: [stock], matrix: {size: [1GiB, 2GB]}}", "size[1]", "a size",
     "2GiB?"),
    ("{workload: free, kernels: [stock], matrix: {size: [1GiB, lots]}}", "size[1]", "a size",
     "GiB"),
    ("{workload: free, kernels: [stock], set: {thp: ~}}", "set.thp", "has no value", ""),
    ("{workload: free, kernels: [stock], metric: 'a b'}", "metric", "invalid value", ""),
    ("{workload: free, kernels: [stock], statistics: {blocks: {min: 31}}}", "blocks.min",
     "maximum of 30", ""),
    ("{workload: free, kernels: [stock], statistics: {warmups: 1}}", "warmups", "unknown",
     "warmup?"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("experiment", "key", "what", "hint"), IN_EXPERIMENTS, ids=[x[0][:70] for x in IN_EXPERIMENTS]
)
def test_a_mistake_in_an_experiment(
    folder: Path, experiment: str, key: str, what: str, hint: str
) -> None:
    problem = mistake(folder, HEAD + BODY + f"experiments:\n  one: {experiment}\n")
    assert problem.line == 13
    assert problem.key.endswith(key), problem
    assert what in problem.what
    assert hint in (problem.hint or "")


IN_GUESTS = [
    ("{nodes: four}", "nodes", "expected a whole number"),
    ("{nodes: -1}", "nodes", "at least 1, got -1"),
    ("{nodes: 1.5}", "nodes", "expected a whole number"),
    ("{memory_per_node: 1536}", "memory_per_node", "at least 64MiB"),
    ("{memory_per_node: 100000000}", "memory_per_node", "a multiple of 1MiB"),
    ("{memory_per_node: -1GiB}", "memory_per_node", "at least 64MiB"),
    ("{distances: {remote: 5}}", "distances.remote", "at least 10"),
    ("{distances: {remote: 255}}", "distances.remote", "at most 254"),
    ("{nodes: 2, distances: {matrix: [[10, 20]]}}", "matrix", "2 rows of 2"),
    ("{nodes: 2, distances: {matrix: [[10, 20], [20]]}}", "matrix", "2 rows of 2"),
    ("{nodes: 2, distances: {matrix: [[10, 20], [20, 11]]}}", "matrix[1][1]", "expected 10"),
    ("{nodes: 2, distances: {matrix: [[10, x], [20, 10]]}}", "matrix[0][1]", "whole number"),
    ("{nodes: 1, distances: {remote: 20, matrix: [[10]]}}", "remote", "conflicts with `matrix:`"),
    ("{distances: {remote: 10}}", "distances.remote", "at least 11, got 10"),
    ("{nodes: 2, distances: {matrix: [[10, 20], [10, 10]]}}", "matrix[1][0]", "at least 11"),
    ("{nodes: 64, cpus_per_node: 4, memory_per_node: 64MiB}", "cpus_per_node", "at most 255"),
    ("{nodes: 50, cpus_per_node: 5, memory_per_node: 64MiB}", "cpus_per_node", "APIC ID 396"),
    ("{nodes: 129}", "nodes", "at most 128, got 129"),
    ("{cpu: 1}", "cpu", "unknown key"),
    ("{nodes: 2, latency: 80ns}", "latency", "expected a list with the latency"),
    ("{nodes: 2, latency: [80ns]}", "latency", "expected 2 values, got 1"),
    ("{nodes: 2, latency: [80, 80ns]}", "latency[0]", "expected a latency, got '80'"),
    ("{nodes: 2, latency: [[80ns, 90ns]]}", "latency", "expected 2 rows, got 1"),
    ("{nodes: 2, latency: [[80ns, 90ns], [80ns]]}", "latency[1]", "expected 2 values, got 1"),
    ("{nodes: 2, latency: [80ns, 66us]}", "latency[1]", "whole number of ns from 1 to 65534"),
    ("{nodes: 2, latency: [80ns, 0.5ns]}", "latency[1]", "whole number of ns"),
    ("{nodes: 2, latency: [[80ns, 90ns], 1ns]}", "latency[1]", "expected a list"),
    ("{nodes: 1, latency: []}", "latency", "got an empty list"),
    ("{nodes: 2, bandwidth: [1GiB, 8GiB/s]}", "bandwidth[0]", "expected a bandwidth, got '1GiB'"),
    ("{nodes: 2, bandwidth: [1GB/s, 8GiB/s]}", "bandwidth[0]", "expected a bandwidth, got '1GB/s'"),
    ("{nodes: 2, bandwidth: [1KiB/s, 8GiB/s]}", "bandwidth[0]", "expected whole MiB/s"),
    ("{nodes: 2, bandwidth: [99GiB/s, 1MiB/s]}", "bandwidth", "more than 65534 times 1MiB/s"),
    ("{swap: 1GiB}", "swap", "expected `zram:` or `disk:`, got the text '1GiB'"),
    ("{swap: {}}", "swap", "expected `zram:` or `disk:`, got neither"),
    ("{swap: {disk: 512}}", "swap.disk", "expected whole MiB, at least 1MiB, got 512"),
    ("{swap: {file: 1GiB}}", "swap.file", "unknown key"),
    ("{disks: 1GiB}", "disks", "expected a list"),
    ("{disks: [1GiB, 1KiB]}", "disks[1]", "expected whole MiB"),
    ("{nodes: 1, hotplug: 1GiB}", "hotplug", "unknown key"),
    ("{nodes: [{cpus: 1, memory: 1GiB, hotplug: 64MiB}]}", "hotplug.memory", "a multiple of 128"),
    ("{nodes: [{cpus: 1, memory: 1GiB, hotplug: {memory: 1GiB, state: on}}]}", "hotplug.state",
     "expected online, online_kernel, online_movable or offline"),
    ("{nodes: [{cpus: 1, memory: 1GiB}, {cpus: 1, memory: 0}], latency: [1ns, 1ns]}", "latency",
     "node 1 has no memory"),
    ("{nodes: [{cpus: 1, memory: 1GiB}, {cpus: 0, memory: 0, hotplug: 1GiB}, {cpus: 0, memory:"
     " 1GiB}]}", "nodes[1].hotplug", "not the last node"),
    ("{nodes: [{cpus: 1, memory: 1GiB, hotplug: 1152MiB}], hugepages: 1GiB}", "hugepages",
     "nodes[0].hotplug, 1152MiB, is not a multiple of 1GiB"),
]  # fmt: skip


@pytest.mark.parametrize(("guest", "key", "what"), IN_GUESTS, ids=[x[0] for x in IN_GUESTS])
def test_a_mistake_in_a_guest(folder: Path, guest: str, key: str, what: str) -> None:
    text = HEAD.replace("{nodes: 4, memory_per_node: 1GiB}", guest) + BODY + EXPERIMENT
    problem = mistake(folder, text, memory=23 * GIB)
    assert problem.line == 3
    assert problem.key.endswith(key)
    assert what in problem.what


@pytest.mark.parametrize(
    ("guest", "defaults"),
    [
        ("{nodes: 1, distances: {remote: 10}}", "{}"),
        ("{nodes: 127, cpus_per_node: 2, memory_per_node: 64MiB}", "{}"),
        ("{nodes: 1, cpus_per_node: 255}", "{}"),
        ("{nodes: 50, cpus_per_node: 5, memory_per_node: 64MiB}", "{accel: kvm}"),
        ("{nodes: 128, cpus_per_node: 4, memory_per_node: 64MiB}", "{arch: arm64}"),
    ],
)
def test_what_qemu_and_linux_take_is_no_mistake(folder: Path, guest: str, defaults: str) -> None:
    text = HEAD.replace("{nodes: 4, memory_per_node: 1GiB}", guest) + BODY + EXPERIMENT
    read(folder, f"{text}defaults: {defaults}\n")


@pytest.mark.parametrize(
    ("guest", "default", "keys"),
    [
        ("{nodes: 1, latency: [1ns], bandwidth: [1GiB/s], swap: {zram: 1GiB}, disks: [1GiB]}",
         "launcher: virtme-ng", ["latency", "bandwidth", "swap", "disks"]),
        ("{nodes: [{cpus: 1, memory: 1GiB, hotplug: 1GiB}]}", "launcher: virtme-ng",
         ["nodes[0].hotplug"]),
        ("{nodes: [{cpus: 1, memory: 1GiB, hotplug: 1GiB}], latency: [1ns], swap: {zram: 1GiB}}",
         "arch: arm64", ["nodes[0].hotplug", "latency"]),
    ],
)  # fmt: skip
def test_what_a_launcher_or_an_architecture_lacks(
    folder: Path, guest: str, default: str, keys: list[str]
) -> None:
    text = HEAD.replace("{nodes: 4, memory_per_node: 1GiB}", guest)
    problems = mistakes(folder, f"{text}defaults: {{{default}}}\n")
    assert [one.key.removeprefix("guests.numa4.") for one in problems] == keys
    name = default.rpartition(" ")[2]
    assert all("not supported" in one.what and name in one.what for one in problems)


def test_hotplugged_memory_must_fit_into_the_host_too(folder: Path) -> None:
    nodes = "[{cpus: 1, memory: 1GiB, hotplug: 2GiB}]"
    text = HEAD.replace("4, memory_per_node: 1GiB", nodes) + BODY + EXPERIMENT
    read(folder, text, memory=9 * GIB)
    assert "(3GiB each)" in mistake(folder, text, memory=9 * GIB - 1).what


def test_a_forgotten_unit_is_guessed(folder: Path) -> None:
    problem = mistake(folder, HEAD.replace("1GiB", "1536"))
    assert "did you mean 1536MiB?" in (problem.hint or "")


def test_sections_that_are_missing_or_misspelt_have_no_echo(folder: Path) -> None:
    whole = HEAD + BODY + EXPERIMENT
    for section in ("guests", "kernels", "tunables", "workloads", "experiments"):
        problem = mistake(folder, whole.replace(f"{section}:\n", f"{section}s:\n"))
        assert problem.hint == f"did you mean {section}?"
    without = re.sub(r"kernels:\n(  .*\n)+", "", whole)
    assert mistake(folder, without).key == "kernels"
    empty = re.sub(r"kernels:\n(  .*\n)+", "kernels:\n", whole)
    assert mistake(folder, empty).key == "kernels"


def test_sections_with_all_entries_commented_out_are_empty(folder: Path) -> None:
    lab = read(folder, HEAD + "tunables:\nworkloads:\n  # free: {}\nexperiments:\nstatistics:\n")
    assert (lab.tunables, lab.workloads, lab.experiments) == ({}, {}, {})


def test_two_guests_need_a_default(folder: Path) -> None:
    text = "guests: {a: {nodes: 1}, b: {nodes: 1}}\nkernels: {s: {source: image:bzImage}}\n"
    assert mistake(folder, text).hint == "defaults: {guest: a}"


def test_one_undefined_name_used_often_is_one_mistake(folder: Path) -> None:
    text = HEAD + BODY + "experiments:\n"
    text += "".join(f"  e{i}: {{workload: free, kernels: [gone]}}\n" for i in range(3))
    problem = mistake(folder, text)
    assert problem.line == 13
    assert "also in line 14, 15" in problem.what


def test_an_unreadable_file_is_a_user_error(folder: Path) -> None:
    with pytest.raises(UserError, match="no such file") as caught:
        load(folder / "nowhere.yaml")
    assert "labctl init" in (caught.value.hint or "")
    with pytest.raises(UserError):
        load(folder)
    (folder / "latin.yaml").write_bytes(b"a: \xe9\n")
    with pytest.raises(UserError, match="UTF-8"):
        load(folder / "latin.yaml")


@pytest.mark.parametrize("text", ["", "# only a comment\n", "text", "[1, 2]", "12: [", "\t", "~"])
def test_what_is_no_lab_at_all_is_one_mistake(folder: Path, text: str) -> None:
    mistake(folder, text)


# --- tabs ---


def test_each_line_with_a_tab_is_one_mistake(folder: Path) -> None:
    text = (HEAD + BODY).replace("  ", "\t")
    problems = mistakes(folder, text)
    indented = [i for i, line in enumerate(text.split("\n"), 1) if line.startswith("\t")]
    assert [one.line for one in problems] == indented
    assert all("tab" in one.what and one.column == 1 for one in problems)


@pytest.mark.parametrize("width", [2, 4, 8])
def test_lines_with_tabs_do_not_hide_other_mistakes(folder: Path, width: int) -> None:
    good = "experiments:\n  one:\n    workload: fre\n    kernels:\n      - stock\n    set:\n"
    good += "      thp: never\n  two: {workload: free, kernels: [stok]}\n"
    deep = re.sub("^( +)", lambda m: m[0] * (width // 2), good, flags=re.MULTILINE)
    for line in (1, 2, 3, 4, 5, 6, 7):
        lines = deep.split("\n")
        lines[line] = "\t" * ((len(lines[line]) - len(lines[line].lstrip())) // width) + (
            lines[line].lstrip()
        )
        problems = mistakes(folder, HEAD + BODY + "\n".join(lines))
        assert [one.line for one in problems] == sorted([14, 19, 12 + line])


@pytest.mark.parametrize("old", ["one: {", "kernels: [", "- stock", "numa4: {"])
def test_a_tab_behind_a_colon_or_a_dash_is_one_mistake(folder: Path, old: str) -> None:
    text = HEAD + BODY + "experiments:\n  one: {workload: free, kernels: [\nstock]}\n"
    text += "  two:\n    workload: free\n    kernels:\n    - stock\n"
    problem = mistake(folder, text.replace(old, old.replace(" ", "\t", 1), 1))
    assert "tab" in problem.what


def test_a_tab_where_yaml_allows_it_is_no_mistake(folder: Path) -> None:
    text = HEAD + BODY + "experiments:\n"
    text += '  one: {workload: free, kernels: [stock], set: {thp: "a\tb"}}\n'
    assert read(folder, text).experiments["one"].set == {"thp": "a\tb"}
    assert read(folder, HEAD + "\t\n\t# a comment\n" + BODY).tunables


def test_columns_behind_a_tab_are_those_of_the_file(folder: Path) -> None:
    text = HEAD + BODY + "experiments:\n\tone: {workload: fre, kernels: [stock]}\n"
    tab, wrong = mistakes(folder, text)
    assert (tab.line, tab.column) == (13, 1)
    assert (wrong.line, wrong.column) == (13, text.split("\n")[12].index("fre") + 1)


def test_a_tab_in_a_block_of_text_stays(folder: Path) -> None:
    text = HEAD + "workloads:\n  w:\n    command: |\n      sh -c '\n      \tx'\n"
    text += "tunables:\n\tt: {file: /t}\n"
    assert mistake(folder, text).line == 13
    assert "\t" in read(folder, text.replace("\tt:", "  t:")).workloads["w"].command


# --- memory ---


def test_guests_that_are_up_together_must_fit_into_the_host(folder: Path) -> None:
    text = HEAD + BODY + EXPERIMENT
    lab = read(folder, text, memory=12 * GIB)  # two kernels and the baseline again, 4 GiB each
    check_host(lab, 12 * GIB)
    problem = mistake(folder, text, memory=12 * GIB - 1)
    assert (problem.line, problem.column) == (3, 38)
    assert problem.key == "guests.numa4.memory_per_node"
    assert "3 guests" in problem.what
    with pytest.raises(ConfigError) as caught:
        check_host(lab, 12 * GIB - 1)
    (later,) = caught.value.problems
    assert later == Problem(str(folder / "lab.yaml"), *_but_file(problem))


def _but_file(problem: Problem) -> tuple[Any, ...]:
    return problem.line, problem.column, problem.key, problem.what, problem.hint


def test_an_unused_guest_must_fit_once(folder: Path) -> None:
    read(folder, HEAD, memory=4 * GIB)
    assert "1 guests" not in mistake(folder, HEAD, memory=4 * GIB - 1).what


# --- hostile files ---


def test_aliases_cannot_explode(folder: Path) -> None:
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    text = "a0: &a0 [x]\n" + "\n".join(levels)
    assert "more than" in mistake(folder, text).what
    merges = [f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}" for i in range(1, 12)]
    assert "too many" in mistake(folder, "m0: &m0 {x: 1}\n" + "\n".join(merges)).what


@pytest.mark.parametrize("text", ["[" * 5000, "a: " + "[" * 300 + "]" * 300, "- " * 3000 + "a"])
def test_depth_is_no_traceback(folder: Path, text: str) -> None:
    mistake(folder, text)


LINES = template.text().split("\n")
SCRAPS = [
    "", "\t", " ", "{", "}", "[", "]", ":", "- ", "&a ", "*a", "!!int ", "<<: *a", "'", '"', "|",
    "#", "~", "-1", "1e9999", "9" * 400, "3GB", "kernels:", "stock", "base: stock", "\0", "é", "%",
    "? ", "\\", "---", "...", ": {}", ": []", "null", "\u2028", "\x85", '"\\U99999999"',
]  # fmt: skip


def outcome(path: Path) -> Lab | UserError:
    try:
        return load(path, host_memory_bytes=64 * GIB)
    except UserError as error:
        return error


def damage(lines: list[str], data: st.DataObject) -> None:
    """Change one line of a file."""
    i = data.draw(st.integers(0, len(lines) - 1))
    j = data.draw(st.integers(0, len(lines[i])))
    scrap = data.draw(st.sampled_from(SCRAPS) | st.text(max_size=5))
    match data.draw(st.sampled_from(["insert", "cut", "drop", "double", "indent", "swap"])):
        case "insert":
            lines[i] = lines[i][:j] + scrap + lines[i][j:]
        case "cut":
            lines[i] = lines[i][:j]
        case "drop":
            lines[i] = ""
        case "double":
            lines.insert(i, lines[i])
        case "indent":
            lines[i] = data.draw(st.sampled_from([" ", "  ", "\t", "\t\t"])) + lines[i]
        case _:
            k = data.draw(st.integers(0, len(lines) - 1))
            lines[i], lines[k] = lines[k], lines[i]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_file_is_a_lab_or_a_list_of_mistakes(folder: Path, data: st.DataObject) -> None:
    lines = list(LINES)
    for _ in range(data.draw(st.integers(1, 4))):
        damage(lines, data)
    path = folder / "damaged.yaml"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    result = outcome(path)
    if isinstance(result, ConfigError):
        assert result.problems
        for problem in result.problems:
            assert 1 <= problem.line <= len(lines) + 100  # a scrap may hold a line break
            assert problem.column >= 1
            assert "\n" not in str(problem)
    elif isinstance(result, UserError):
        assert "UTF-8" in str(result)
    else:
        assert result.kernels


def indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def children(head: int) -> int:
    """How many keys stand directly below the key in line `head` (an index into LINES)."""
    body = takewhile(
        lambda line: not line.strip() or indent(line) > indent(LINES[head]), LINES[head + 1 :]
    )
    keys = [indent(line) for line in body if re.match(r" +[a-z]", line)]
    return keys.count(min(keys)) if keys else 0


def test_removing_any_key_is_reported_in_one_line(folder: Path) -> None:
    """A line less is at most one mistake for each place that used what it defined.

    The keys below a line that is gone fall to its neighbour, where each may stand twice.
    """
    code = [i for i, line in enumerate(LINES) if re.match(r" +[a-z]", line)]
    for i in code:
        path = folder / "less.yaml"
        path.write_text("\n".join(line for k, line in enumerate(LINES) if k != i))
        result = outcome(path)
        if isinstance(result, ConfigError):
            most = max(4, children(i))
            assert len(result.problems) <= most, (LINES[i], str(result))


# --- template and schema ---


def test_init_writes_a_lab_that_loads(tmp_path: Path) -> None:
    written = template.write(tmp_path / "new")
    assert written[0] == tmp_path / "new/lab.yaml"
    assert all(path.is_file() for path in written)
    assert load(written[0]).experiments
    with pytest.raises(UserError, match="already"):
        template.write(tmp_path / "new")


def test_init_by_force_replaces_the_lab_file_only(tmp_path: Path) -> None:
    lab, *others = template.write(tmp_path)
    others[0].write_text("mine")
    lab.write_text("old")
    assert template.write(tmp_path, force=True) == [lab]
    assert lab.read_text() == template.text()
    assert others[0].read_text() == "mine"


class _Schema:
    """As much of JSON Schema as the lab's uses; an unknown keyword is an error."""

    QUIET = ("title", "description", "default", "$defs", "$schema")

    def __init__(self, schema: dict[str, Any]) -> None:
        self.root = schema

    def accepts(self, value: object, schema: dict[str, Any] | None = None) -> bool:
        schema = self.root if schema is None else schema
        return all(
            getattr(self, f"_{key.strip('$')}")(value, argument, schema)
            for key, argument in schema.items()
            if key not in self.QUIET
        )

    def _ref(self, value: object, name: str, _: Any) -> bool:
        return self.accepts(value, self.root["$defs"][name.rpartition("/")[2]])

    def _anyOf(self, value: object, options: list[Any], _: Any) -> bool:  # noqa: N802
        return any(self.accepts(value, option) for option in options)

    def _type(self, value: object, names: str | list[str], _: Any) -> bool:
        kinds: dict[str, type | tuple[type, ...]] = {
            "string": str, "integer": int, "number": (int, float), "boolean": bool,
            "object": dict, "array": list, "null": type(None),
        }  # fmt: skip
        names = [names] if isinstance(names, str) else names
        if isinstance(value, bool):
            return "boolean" in names
        return any(isinstance(value, kinds[name]) for name in names)

    def _maxLength(self, value: Any, most: int, _: Any) -> bool:  # noqa: N802
        return len(value) <= most

    def _properties(self, value: Any, parts: dict[str, Any], _: Any) -> bool:
        return all(self.accepts(value[key], parts[key]) for key in value if key in parts)

    def _patternProperties(self, value: Any, parts: dict[str, Any], _: Any) -> bool:  # noqa: N802
        return all(
            self.accepts(one, part)
            for key, one in value.items()
            for pattern, part in parts.items()
            if re.search(pattern, key)
        )

    def _additionalProperties(self, value: Any, rest: Any, schema: Any) -> bool:  # noqa: N802
        patterns = schema.get("patternProperties", {})
        known = schema.get("properties", {})
        others = [k for k in value if k not in known and not any(re.search(p, k) for p in patterns)]
        return not others if rest is False else all(self.accepts(value[k], rest) for k in others)

    def _propertyNames(self, value: Any, part: Any, _: Any) -> bool:  # noqa: N802
        return all(self.accepts(key, part) for key in value)

    def _required(self, value: Any, keys: list[str], _: Any) -> bool:
        return all(key in value for key in keys)

    def _items(self, value: Any, part: Any, _: Any) -> bool:
        return not isinstance(value, list) or all(self.accepts(one, part) for one in value)

    def _pattern(self, value: Any, pattern: str, _: Any) -> bool:
        return not isinstance(value, str) or re.search(pattern, value) is not None

    def _enum(self, value: Any, options: list[Any], _: Any) -> bool:
        return value in options

    def _const(self, value: Any, constant: Any, _: Any) -> bool:
        return bool(value == constant)

    def _minimum(self, value: Any, limit: float, _: Any) -> bool:
        return not isinstance(value, int | float) or value >= limit

    def _minItems(self, value: Any, limit: int, _: Any) -> bool:  # noqa: N802
        return not isinstance(value, list) or len(value) >= limit

    def _maxItems(self, value: Any, limit: int, _: Any) -> bool:  # noqa: N802
        return not isinstance(value, list) or len(value) <= limit

    def _minLength(self, value: Any, limit: int, _: Any) -> bool:  # noqa: N802
        return not isinstance(value, str) or len(value) >= limit

    def _minProperties(self, value: Any, limit: int, _: Any) -> bool:  # noqa: N802
        return len(value) >= limit


def test_the_schema_accepts_the_template_as_an_editor_reads_it() -> None:
    schema = _Schema(template.json_schema())
    assert schema.accepts(yaml.safe_load(template.text()))
    assert schema.accepts({"kernels": {"6.1": {"base": 6.1}}})


def test_every_key_of_the_schema_has_a_description() -> None:
    schema = template.json_schema()
    for name, part in [("lab.yaml", schema), *schema["$defs"].items()]:
        for key, value in part["properties"].items():
            description = value.get("description", "")
            assert description.endswith("."), f"{name}.{key}: {description!r}"
            assert description[:1].isupper() or description[:1] == "`", f"{name}.{key}"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("memory_per_node: 1536MiB", "memory_per_node: 1536MB"),
        ("nodes: 4", "nodes: four"),
        ("nodes: 4", "nodes: -4"),
        ("nodes: 4", "node: 4"),
        ("  stock:\n", "  my stock:\n"),
        ("  accel: auto", "  accel: fast"),
        ("workload: free", "worklod: free"),
        ("kernels: [stock, parallel-free]", "kernels: []"),
        ("max_active: [1, 2, 4, 8, 16, 32]", "max_active: 4"),
        ("minimum_effect: 2%", "minimum_effect: two"),
        ("timeout: 5min", "timeout: 5 minutes"),
        ("version: 1", "version: 2"),
    ],
)
def test_the_schema_refuses_mistakes(old: str, new: str) -> None:
    assert old in template.text()
    text = template.text().replace(old, new, 1)
    assert not _Schema(template.json_schema()).accepts(yaml.safe_load(text))


def test_a_missing_line_with_a_name_is_one_mistake(folder: Path) -> None:
    keys = "    source: dir:tree\n    command_line: quiet\n    kconfig: [more.config]\n"
    first = mistake(folder, f"kernels:\n{keys}{BODY}{EXPERIMENT}")
    assert (first.line, "name is missing" in first.what) == (2, True)
    second = mistake(folder, f"kernels:\n  stock:\n{keys}{keys}")
    assert (second.line, "duplicate keys" in second.what) == (6, True)


@pytest.mark.parametrize(
    "name",
    [
        "bench/where",
        "patches/lab-6.12",
        "patches/lab-7.3",
        "patches/lab-7.3-cost",
        "patches/lab-arm64",
        "tests/mutants/lab",
    ],
)
def test_the_other_labs_of_this_project_are_valid(name):
    lab = load(CHECKOUT / f"{name}.yaml")
    assert lab.state == CHECKOUT / ".labctl"


def test_a_target_is_resolved_and_an_experiment_may_name_it(folder: Path) -> None:
    targets = (
        "targets:\n  box: {kind: ssh, host: 192.0.2.7, key: more.config, boot_timeout: 2min}\n"
    )
    text = HEAD + targets + BODY + EXPERIMENT.replace("patched]", "patched], target: box")
    lab = read(folder, text)
    box = lab.targets["box"]
    assert (box.name, box.user, box.port, box.boot_timeout) == ("box", "root", None, 120.0)
    assert box.key == folder / "more.config"
    assert lab.experiments["one"].target == "box"
    wrong = mistake(folder, text.replace("target: box", "target: bax"))
    assert (wrong.key, wrong.hint) == ("experiments.one.target", "did you mean box?")


def test_a_limit_of_a_control_group_is_named(folder: Path) -> None:
    (folder / "lab.yaml").write_text(HEAD + BODY + EXPERIMENT)
    with pytest.raises(ConfigError) as caught:
        load(folder / "lab.yaml", GIB, limited_by="/sys/fs/cgroup/memory.max")
    assert "but /sys/fs/cgroup/memory.max allows 1" in caught.value.problems[0].what


def test_guests_that_no_experiment_needs_must_not_fit_together(folder: Path) -> None:
    targets = "targets:\n  box: {kind: ssh, host: 192.0.2.7}\n"
    text = HEAD + targets + BODY + EXPERIMENT.replace("patched]", "patched], target: box")
    check_host(read(folder, text), 5 * GIB)


DIRECTIONS = """\
version: 1
kernels: {stock: {source: debian:linux-source-6.1}, b: {base: stock}}
workloads:
  ours:   {command: freebench, metric: elapsed}
  mine:   {command: my-bench, %s}
experiments:
  e: {workload: %s, kernels: [stock, b]%s}
"""


@pytest.mark.parametrize(
    ("of_workload", "workload", "more", "better"),
    [
        ("metric: elapsed", "ours", "", "lower"),
        ("metric: elapsed", "ours", ", metric: populate", "lower"),
        ("metric: elapsed", "mine", ", metric: p99_us", "lower"),
        ("metric: elapsed", "mine", ", metric: ops_per_second, better: higher", "higher"),
        ("metric: elapsed", "mine", ", metric: rss_kib, better: lower", "lower"),
        ("metric: ops, better: higher", "mine", "", "higher"),
        ("metric: ops, better: higher", "mine", ", metric: elapsed", "lower"),
        ("metric: ops, better: higher", "mine", ", metric: ops", "higher"),
        ("metric: ops", "mine", ", better: higher", "higher"),
        ("metric: idle_time, better: higher", "mine", "", "higher"),
    ],
)
def test_the_better_direction_is_given_or_derived(tmp_path, of_workload, workload, more, better):
    path = tmp_path / "lab.yaml"
    path.write_text(DIRECTIONS % (of_workload, workload, more))
    lab = load(path)
    assert lab.better_of("e") == better
    assert lab.better_of(lab.experiments["e"]) == better


@pytest.mark.parametrize(
    ("of_workload", "workload", "more", "place"),
    [
        ("metric: elapsed", "mine", ", metric: ops_per_second", "7:52: experiments.e.metric"),
        ("metric: ops, better: higher", "mine", ", metric: rss_kib", "7:52: experiments.e.metric"),
        ("metric: elapsed", "ours", ", metric: huge_bytes", "7:52: experiments.e.metric"),
        ("metric: ops", "mine", "", "5:39: workloads.mine.metric"),
        ("metric: populate", "mine", "", "5:39: workloads.mine.metric"),
    ],
)
def test_the_better_direction_is_requested_if_it_cannot_be_derived(
    tmp_path, of_workload, workload, more, place
):
    path = tmp_path / "lab.yaml"
    path.write_text(DIRECTIONS % (of_workload, workload, more))
    with pytest.raises(ConfigError) as caught:
        load(path)
    (problem,) = caught.value.problems
    assert f"{path}:{place}: direction of metric" in str(problem)
    assert "add `better: lower` or `better: higher`" in str(problem.hint)


def in_experiment(settings: str) -> str:
    return f"experiments:\n  e: {{workload: free, kernels: [stock], {settings}}}\n"


COMMAND_LINES = [
    (in_experiment("set: {dyn: 'a \"b\"'}"), "e.set.dyn", "double quote", "labctl adds them"),
    (in_experiment('matrix: {dyn: [1, "a\\tb"]}'), "e.matrix.dyn[1]", "control character", "line"),
    ("verify: {matrix: {dyn: [1, 'a\"b']}}\n", "verify.matrix.dyn[1]", "double quote", ""),
    ("verify: {variants: {v: {command_line: 'a=\"b c'}}}\n", "v.command_line", "unclosed", "+p"),
    ("targets: {t: {kind: ssh, host: h, command_line: 'a=\"b c'}}\n", "t.command_line",
     "unclosed", "+p"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "key", "what", "hint"), COMMAND_LINES, ids=[key for _, key, *_ in COMMAND_LINES]
)
def test_a_command_line_that_linux_would_read_otherwise(
    folder: Path, text: str, key: str, what: str, hint: str
) -> None:
    body = BODY.replace("workloads:", "  dyn: {parameter: dyndbg}\nworkloads:")
    problem = mistake(folder, HEAD + body + text)
    assert problem.key.endswith(key)
    assert what in problem.what
    assert hint in (problem.hint or "")
    assert read(folder, HEAD + body + in_experiment("set: {dyn: 'file a.c +p'}")).experiments


def test_a_kernels_command_line_with_an_open_quote(folder: Path) -> None:
    head = HEAD.replace("linux-source-6.1}", "linux-source-6.1, command_line: 'dyndbg=\"file a.c'}")
    problem = mistake(folder, head + BODY)
    assert (problem.line, problem.key) == (5, "kernels.stock.command_line")
    assert read(folder, head.replace("a.c'", "a.c\"'") + BODY).kernels


def test_tabs_in_many_lines_are_repaired_in_linear_time():
    def work(lines):
        found = tabs.repair("kernels:\n\tstock:\n" * lines, lambda _: (0, 0))
        assert len(found.tabs) == lines
        assert "\t" not in found.text

    assert_linear(work, 1_000, 8_000)

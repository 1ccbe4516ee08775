"""Parsers of the kernel's counters, and what is read around a repetition."""

import os
import subprocess
from typing import get_args

import pytest
import synthetic
from synthetic import FACTS, World

from labctl.errors import ConfigError, DeadlineExceeded, HostError, TunableRefused
from labctl.experiments import early
from labctl.experiments.observing import Observing, observers_in
from labctl.experiments.plan import plan
from labctl.experiments.runner import Runner
from labctl.experiments.tunable_files import GuestChecks
from labctl.experiments.why import passes
from labctl.guests.initramfs import source_folder
from labctl.lab.load import load
from labctl.lab.types import ObserverName
from labctl.observers import OBSERVERS, chosen
from labctl.runs.store import Store
from labctl.transports import Outcome
from labctl.transports.exchange import script

INTERRUPTS = """\
           CPU0       CPU1
  4:         12          3   IO-APIC   4-edge      ttyS0
LOC:       1000       2000   Local timer interrupts
ERR:          7
MIS:          0
"""
SOFTIRQS = """\
                    CPU0       CPU1
          HI:          1          0
       TIMER:         10         20
"""
SLABINFO = """\
slabinfo - version: 2.1
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables
dentry   100  126  192   21    1 : tunables    0    0    0 : slabdata      6      6      0
kmalloc-8k  3  4  8192  4  8 : tunables    0    0    0 : slabdata      1      2      0
"""
# Columns as in Documentation/locking/lockstat.rst: waits, then acquisitions and holds.
MMAP_WRITE = "84 89 0.26 939.10 16371.53 183.95 97291 116823 0.13 169907.71 8476775.90 72.56"
MMAP_READ = "100 300 0.26 939.10 1.00 183.95 97291 6823 0.13 169907.71 10.25 72.56"
ZONE = "0 0 0.00 0.00 0.00 0.00 5 6 0.10 0.20 1.20 0.20"
LOCK_STAT = f"""\
lock_stat version 0.4
-------------------------------------------------------------------------------
                 class name    con-bounces    contentions   waittime-min   waittime-max
-------------------------------------------------------------------------------

              &mm->mmap_lock-W:            {MMAP_WRITE}
              &mm->mmap_lock-R:            {MMAP_READ}
              ---------------
                &mm->mmap_lock              1          [<ffffffff81a502a7>] do_munmap+0x15/0xd0

.............................................................................

            &(&zone->lock) rlock/1:        {ZONE}
"""
PROFILE = "zap_pte_range 512 1500.250\ndo_idle 3 99999.000\nfree_pages_2MB 1 0.5\nnonsense\n"


def parsed(name, **texts):
    observer = OBSERVERS[name]
    found = [path for path in observer.files for key in texts if path.endswith(key)]
    return observer.parse(dict(zip(found, texts.values(), strict=True)))


def test_vmstat_has_the_names_of_the_kernel():
    assert parsed("vmstat", vmstat="nr_free_pages 12\npgfault 3\nodd line here\nx y\n") == {
        "nr_free_pages": 12,
        "pgfault": 3,
    }


def test_interrupts_are_summed_over_cpus_and_named_by_device():
    assert parsed("interrupts", interrupts=INTERRUPTS, softirqs=SOFTIRQS) == {
        "4.ttyS0": 15,
        "LOC": 3000,
        "ERR": 7,
        "MIS": 0,
        "softirq.HI": 1,
        "softirq.TIMER": 30,
    }


def test_pressure_is_in_nanoseconds():
    line = "some avg10=0.00 avg60=0.00 avg300=0.00 total=12\n"
    assert parsed("psi", memory=line + line.replace("some", "full").replace("12", "5")) == {
        "memory.some_nanoseconds": 12_000,
        "memory.full_nanoseconds": 5_000,
    }


def test_slab_caches_have_objects_and_pages():
    assert parsed("slab", slabinfo=SLABINFO) == {
        "dentry.objects": 100,
        "dentry.pages": 6,
        "kmalloc-8k.objects": 3,
        "kmalloc-8k.pages": 16,
    }


def test_buddyinfo_has_node_zone_and_order():
    text = "Node 0, zone      DMA      1      2 \nNode 1, zone   Normal      0      7 \nNode x\n"
    assert parsed("buddyinfo", buddyinfo=text) == {
        "node0.DMA.order0": 1,
        "node0.DMA.order1": 2,
        "node1.Normal.order0": 0,
        "node1.Normal.order1": 7,
    }


def test_locks_have_waits_and_holds():
    found = parsed("lock_stat", lock_stat=LOCK_STAT)
    assert found["&mm->mmap_lock-W.contentions"] == 89
    assert found["&mm->mmap_lock-W.wait_nanoseconds"] == 16_371_530
    assert found["&mm->mmap_lock-W.acquisitions"] == 116_823
    assert found["&mm->mmap_lock-R.hold_nanoseconds"] == 10_250
    assert found["&(&zone->lock)_rlock/1.acquisitions"] == 6
    assert len(found) == 3 * 4


def test_functions_are_without_the_idle_loop():
    assert OBSERVERS["functions"].parse({"/run/x": PROFILE}) == {
        "zap_pte_range.calls": 512,
        "zap_pte_range.nanoseconds": 1_500_250,
        "free_pages_2MB.calls": 1,
        "free_pages_2MB.nanoseconds": 500,
    }


@pytest.mark.parametrize("observer", OBSERVERS.values(), ids=OBSERVERS)
@pytest.mark.parametrize(
    "text", ["", "\n\n", "a: b c\n1 2 3\n", "\x00\ufffd", "Node 0, zone\n", "::"]
)
def test_odd_text_gives_no_counters(observer, text):
    assert observer.parse(dict.fromkeys(observer.files, text)) == {}


def test_a_difference_leaves_out_what_wrapped_appeared_or_vanished():
    before = {"/proc/vmstat": "nr_free_pages 10\npgfault 100\npgfree 9\ngone 1\n"}
    after = {"/proc/vmstat": "nr_free_pages 4\npgfault 107\npgfree 2\nnew 1\n"}
    assert OBSERVERS["vmstat"].difference(before, after) == {
        "vmstat.nr_free_pages": -6,
        "vmstat.pgfault": 7,
    }
    assert OBSERVERS["vmstat"].difference(before, {}) == {}


def test_one_repetition_of_each_block_is_not_observed_at_changing_places():
    every = chosen(["vmstat"])
    without = [
        [r for r in range(3) if not observers_in(every, block=b, repetition=r, repetitions=3)]
        for b in range(4)
    ]
    assert without == [[0], [1], [2], [0]]
    assert observers_in(every, block=0, repetition=0, repetitions=1) == every


class Shell:
    """A guest whose commands run in this host's shell, below a folder in place of the root."""

    def __init__(self, root):
        self.root = root
        self.texts = []

    def _inside(self, text):
        for path in ("/proc", "/sys", "/run"):
            text = text.replace(path, f"{self.root}{path}")
        return text

    def run(self, argv, *, timeout_seconds, stdin=b""):
        self.texts.append(argv)
        done = subprocess.run(
            ["/bin/sh", "-c", self._inside(argv)], capture_output=True, check=False
        )
        out = done.stdout.replace(str(self.root).encode(), b"")
        return Outcome(argv, done.returncode, out, done.stderr, 0.0)

    def exchange(self, writes, reads):
        from labctl.transports.exchange import answer

        return answer(self.run(script(writes, reads), timeout_seconds=1), "x")


@pytest.fixture
def shell(tmp_path):
    tracing = tmp_path / "sys/kernel/debug/tracing"
    for folder in (tracing / "trace_stat", tracing / "options", tmp_path / "proc/sys/kernel"):
        folder.mkdir(parents=True)
    (tmp_path / "run").mkdir()
    (tracing / "function_profile_enabled").write_text("0\n")
    for name in ("graph-time", "sleep-time"):
        (tracing / "options" / name).write_text("1\n")
    head = "  Function     Hit    Time            Avg             s^2\n  --------     ---    ----\n"
    for cpu in range(2):
        (tracing / "trace_stat" / f"function{cpu}").write_text(
            head + "  zap_pte_range   10    1500.250 us     150.025 us      0.000 us    \n"
            "  do_idle   1    9.000 us     9.000 us      0.000 us    \n"
        )
    (tmp_path / "proc/vmstat").write_text("pgfault 5\n")
    return Shell(tmp_path)


def test_the_function_profiler_is_on_only_between_begin_and_end(shell):
    enabled = shell.root / "sys/kernel/debug/tracing/function_profile_enabled"
    observing = Observing(chosen(["vmstat", "functions"]))
    observing.begin(shell)
    assert enabled.read_text() == "1\n"
    assert (shell.root / "sys/kernel/debug/tracing/options/graph-time").read_text() == "0\n"
    (shell.root / "proc/vmstat").write_text("pgfault 9\n")
    assert observing.end(shell) == {
        "vmstat.pgfault": 4,
        "functions.zap_pte_range.calls": 20,
        "functions.zap_pte_range.nanoseconds": 3_000_500,
    }
    assert enabled.read_text() == "0\n"
    assert len(shell.texts) == 2, "one round trip before the workload, one after it"


FAKE_PERF = """\
#!/bin/sh
while [ "$1" != -- ]; do [ "$1" = -o ] && out=$2; shift; done; shift
"$@"
printf '12;;page-faults;9;100.00;;\\n<not supported>;;cycles;0;100.00;;\\n' >"$out"
"""


def test_perf_counts_from_begin_to_end(shell, tmp_path, monkeypatch):
    (tmp_path / "perf").write_text(FAKE_PERF)
    (tmp_path / "perf").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    observing = Observing(chosen(["perf"]))
    observing.begin(shell)
    assert observing.end(shell) == {"perf.page-faults": 12}
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "run/labctl-perf.pid").read_text()), 0)


# Output of `perf script -F ip,sym` for two samples of one stack, and one of another.
SAMPLES = """
\tffffffff811f3f4b zap_pte_range
\tffffffff811f4c2e unmap_vmas
\tffffffff81ad2c71 do_syscall_64

\tffffffff811f3f52 zap_pte_range
\tffffffff811f4c2e unmap_vmas
\tffffffff81ad2c71 do_syscall_64


\tffffffff81a0f0b0 [unknown]
\tffffffff81ad2c71 do_syscall_64
"""


def test_stacks_are_folded_in_the_guest(shell, tmp_path, monkeypatch):
    (tmp_path / "samples").write_text(SAMPLES)
    (tmp_path / "perf").write_text(
        f'#!/bin/sh\necho "$*" >>{tmp_path}/calls\n'
        f'[ "$1" = script ] && exec cat {tmp_path}/samples\n' + FAKE_PERF.partition("\n")[2]
    )
    (tmp_path / "perf").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    observing = Observing(chosen(["stacks"]))
    observing.begin(shell)
    assert observing.end(shell) == {
        "stacks.do_syscall_64;unmap_vmas;zap_pte_range.nanoseconds": 2 * 2_003_000,
        "stacks.do_syscall_64;[unknown].nanoseconds": 2_003_000,
    }
    record, script = (tmp_path / "calls").read_text().splitlines()
    assert record.startswith("record -a -B -N -e cpu-clock:kI -c 2003000 -g --kernel-callchains")
    assert script.startswith("script -i ")
    assert not (tmp_path / "run/labctl-stacks.data").exists()


@pytest.mark.parametrize("name", ["perf", "stacks"])
def test_perf_that_is_not_there_is_named(name, shell, monkeypatch):
    monkeypatch.setenv("PATH", f"{shell.root}")
    shell.root.joinpath("sh").symlink_to("/bin/sh")
    with pytest.raises(TunableRefused, match="perf: program not found"):
        Observing(chosen([name])).begin(shell)


def test_perf_of_the_host_comes_into_guests(tmp_path, monkeypatch):
    lab = load(lab_of(tmp_path, "observe: [perf]"))
    assert early.check_commands(lab, [plan(lab, "e", 1)])["free"].files == {}
    [one] = passes(lab, ["e"], seed=1)
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(HostError, match="observer perf needs perf of x86_64"):
        early.check_commands(one.lab, one.plans)
    (programs / "perf").symlink_to("/bin/ls")
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    assert "/usr/bin/perf" in early.check_commands(one.lab, one.plans)["free"].files


def test_a_kernel_without_the_profiler_is_named(shell):
    (shell.root / "sys/kernel/debug/tracing/function_profile_enabled").unlink()
    with pytest.raises(TunableRefused, match="CONFIG_FUNCTION_PROFILER is off"):
        Observing(chosen(["functions"])).begin(shell)


def run(tmp_path, lab, guest_files=None, on_run=lambda guest: None):
    world = World()
    world.on_boot = lambda guest: guest.files.update(guest_files or {})
    world.on_run = on_run
    runner = Runner(
        lab=lab, plan=plan(lab, "e", 1), store=Store(tmp_path), boot=world.boot, facts=FACTS,
        clock=world.clock, load=world.load,
    )  # fmt: skip
    runner.run()
    return runner.store.samples()


def fault(guest):
    pages = 50 if guest.group.kernel == "patched" else 10
    before = int(guest.files["/proc/vmstat"].split()[1])
    guest.files["/proc/vmstat"] = f"pgfault {before + pages}\n"


def test_samples_have_the_counters_of_their_repetition(tmp_path):
    lab = synthetic.lab(blocks=2, repetitions=2, observe=("vmstat",))
    samples = run(tmp_path, lab, {"/proc/vmstat": "pgfault 3\n"}, fault)
    measured = [s for s in samples if not s.warmup]
    counts = {(s.kernel, s.block, s.repetition): s.counters.get("vmstat.pgfault") for s in measured}
    assert counts == {
        ("stock", 0, 0): None, ("stock", 0, 1): 10, ("stock", 1, 0): 10, ("stock", 1, 1): None,
        ("patched", 0, 0): None, ("patched", 0, 1): 50, ("patched", 1, 0): 50,
        ("patched", 1, 1): None,
    }  # fmt: skip
    assert {s.counters.get("handovers") for s in measured if s.kernel == "patched"} == {1}


def test_without_observers_nothing_is_read_and_nothing_stored(tmp_path):
    lab = synthetic.lab(blocks=2)
    assert {tuple(s.counters) for s in run(tmp_path, lab) if s.kernel == "stock"} == {()}


def test_a_command_that_times_out_stops_the_observers(tmp_path):
    lab = synthetic.lab(blocks=2, observe=("vmstat",))

    def late(guest):
        raise DeadlineExceeded("late")

    samples = run(
        tmp_path, lab, {"/proc/vmstat": "pgfault 3\n"},
        lambda guest: late(guest) if guest.group.kernel == "patched" else None,
    )  # fmt: skip
    assert {s.status for s in samples if s.kernel == "patched"} == {"deadline"}


LAB = """\
version: 1
defaults: {{guest: g{defaults}}}
guests: {{g: {{nodes: 1, memory_per_node: 64MiB}}}}
kernels: {{stock: {{source: debian:linux-source-6.1}}}}
workloads: {{free: {{command: freebench, metric: elapsed}}}}
experiments:
  e:
    workload: free
    kernels: [stock]
    {observe}
"""


def lab_of(tmp_path, observe="", defaults=""):
    path = tmp_path / "lab.yaml"
    path.write_text(LAB.format(observe=observe, defaults=defaults))
    return path


def names(lab):
    return [one.name for one in lab.observers_of("e")]


def test_an_experiment_has_its_own_observers_or_the_default(tmp_path):
    default = ", observe: [vmstat, psi]"
    assert names(load(lab_of(tmp_path, defaults=default))) == ["vmstat", "psi"]
    own = lab_of(tmp_path, "observe: [slab]", default)
    assert names(load(own)) == ["slab"]
    assert names(load(lab_of(tmp_path, "observe: []", default))) == []
    assert names(load(lab_of(tmp_path))) == []


@pytest.mark.parametrize(
    ("observe", "said"),
    [
        ("observe: [vmstat, vmstats]", "lab.yaml:10:23: experiments.e.observe[1]: expected vmstat"),
        ("observe: [vmstat, vmstat]", "lab.yaml:10:23: experiments.e.observe[1]: duplicate value"),
        ("observe: vmstat", "expected a list, got the text 'vmstat' (use brackets: [vmstat])"),
    ],
)
def test_a_wrong_observer_is_an_error_with_its_place(tmp_path, observe, said):
    with pytest.raises(ConfigError) as error:
        load(lab_of(tmp_path, observe))
    assert said in str(error.value)


def test_a_missing_option_is_an_error_before_the_build_with_the_fragment_to_add(tmp_path):
    lab = load(lab_of(tmp_path, "observe: [interrupts, psi]"))
    checks = GuestChecks.of(lab, [plan(lab, "e", 1)])
    checks.check_config("stock", {"CONFIG_PSI": "y"}, "x86_64")
    checks.check_config("other", {}, "x86_64")
    with pytest.raises(ConfigError) as error:
        checks.check_config("stock", {}, "x86_64")
    assert "lab.yaml:10:27: experiments.e.observe[1]: kernel stock has no CONFIG_PSI" in str(
        error.value
    )
    fragment = source_folder() / "kconfig" / "psi.config"
    assert str(fragment) in str(error.value)
    assert "CONFIG_PSI=y" in fragment.read_text().splitlines()


def test_lab_yaml_takes_every_observer():
    assert get_args(ObserverName) == tuple(OBSERVERS)


def test_every_fragment_turns_on_what_its_observer_needs():
    for observer in OBSERVERS.values():
        if observer.fragment:
            lines = (source_folder() / "kconfig" / observer.fragment).read_text().splitlines()
            config = dict(line.split("=") for line in lines if line.startswith("CONFIG_"))
            assert observer.missing(config) == []


def test_why_has_a_pass_for_each_observer_that_slows_the_kernel(tmp_path):
    lab = load(lab_of(tmp_path, "observe: [vmstat, lock_stat, functions]"))
    assert [one.name for one in plan(lab, "e", 1).observers] == ["vmstat"]
    found = passes(lab, ["e"], seed=1)
    assert [one.observer.name for one in found] == ["lock_stat", "functions"]
    for one in found:
        assert [each.observers for each in one.plans] == [(one.observer,)]
        assert one.observer.rewrites_code is (one.observer.name == "functions")
        assert one.plans[0].statistics.blocks.max == lab.statistics.blocks.min
        fragments = [path.name for path in one.lab.kernels["stock"].kconfig]
        assert fragments[-1] == one.observer.fragment
    assert lab.kernels["stock"].kconfig == load(lab.path).kernels["stock"].kconfig


def test_why_has_the_function_profile_by_default(tmp_path):
    [one] = passes(load(lab_of(tmp_path, "observe: [vmstat]")), ["e"], seed=1)
    assert one.observer.name == "functions"


def test_an_image_without_the_profiler_is_an_error_of_why(tmp_path):
    path = lab_of(tmp_path, "observe: [functions]")
    path.write_text(path.read_text().replace("debian:linux-source-6.1", "image:bzImage"))
    (tmp_path / "bzImage").write_bytes(b"")
    lab = load(path)
    GuestChecks.of(lab, [plan(lab, "e", 1)]).check_config("stock", {}, "x86_64")
    [one] = passes(lab, ["e"], seed=1)
    assert one.lab.kernels["stock"].kconfig == ()
    with pytest.raises(ConfigError, match=r"lab.yaml:10:15: .*CONFIG_FUNCTION_PROFILER"):
        GuestChecks.of(one.lab, one.plans).check_config("stock", {}, "x86_64")

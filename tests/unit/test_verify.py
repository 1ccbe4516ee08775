"""`labctl verify` without a guest: checks, verdicts and their text."""

import contextlib
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import msgspec
import pytest
from checked_guest import FakeGuest, outcome, splat
from linear_time import assert_linear
from synthetic import TUNABLES, lab

from labctl import progress
from labctl.errors import BuildError
from labctl.guests import bundle
from labctl.lab.models import Variant, Verify
from labctl.series.patch import Patch, Series
from labctl.verify import memory, programs, run, scenarios, selftests
from labctl.verify import text as verify_text
from labctl.verify.kernel import Check, Checker, Options, beside_base
from labctl.verify.programs import CheckVerdict, Program
from labctl.verify.settings import Place, points
from labctl.verify.types import CheckStatus, Trials, Verification

DEBUG = Variant(name="debug")


def program(name, kind="integrity", places=(Place.FIRST, Place.NEXT), hands_over=()):
    return Program(kind, name, (kind, name), 5.0, frozenset(places), frozenset(hands_over))


def check_kernel(
    guests,
    names=("free", "exit"),
    options=None,
    matrix=None,
    kinds=None,
    report=None,
    variant=None,
    offered=None,
):
    """Check the kernel `patched`; each boot takes the next of `guests`."""
    here = lab().model_copy(update={"verify": Verify(matrix=matrix or {"max_active": (1,)})})
    kinds = kinds or {}
    of_kind = {"selftests": (Place.FIRST,)}
    booted = iter(guests)
    options = options or Options()
    checker = Checker(
        lab=here,
        kernel=here.kernels["patched"],
        variant=variant or DEBUG,
        programs=offered
        or [
            program(
                n,
                kind := kinds.get(n, "integrity"),
                of_kind.get(kind, (Place.FIRST, Place.NEXT)),
            )
            for n in names
        ],
        options=options,
        boot=lambda: contextlib.nullcontext(next(booted)),
        report=report or (lambda *_: None),
    )
    checks = checker.run()
    assert len(checks) == checker.count() or options.stop_at_first
    return checks


def statuses(checks):
    return {check.title.removeprefix("debug: "): check.verdict.status for check in checks}


@pytest.fixture(autouse=True)
def in_no_time(monkeypatch):
    monkeypatch.setattr(memory, "_SETTLE_SECONDS", 0.0)


def places(kernel, **verify):
    """Return the settings of a kernel of the synthetic lab, each with its places."""
    here = lab().model_copy(update={"verify": Verify(**verify)})
    quick = points(here, here.kernels[kernel], quick=True)
    every = points(here, here.kernels[kernel])
    assert all(point in every for point in quick)
    return [(dict(each.setting), each.places) for each in every], len(quick)


def test_a_kernel_is_checked_at_the_tunables_that_it_has():
    verify = {"set": {"numa_balancing": 0}, "matrix": {"max_active": (1, 32)}}
    both = (Place.FIRST, Place.DEFAULTS)
    assert places("stock", **verify) == ([({"numa_balancing": 0}, both)], 1)
    found, quick = places("patched", **verify)
    assert found == [
        ({"max_active": 1, "numa_balancing": 0}, (Place.FIRST,)),
        ({"max_active": 32, "numa_balancing": 0}, (Place.NEXT,)),
        ({"numa_balancing": 0}, (Place.DEFAULTS,)),
    ]
    assert quick == 2


def test_every_value_of_a_tunable_of_all_kernels_is_checked_at_the_defaults_too():
    verify = {"matrix": {"max_active": (1, 32), "numa_balancing": (0, 1)}}
    assert places("stock", **verify)[0] == [
        ({"numa_balancing": 0}, (Place.FIRST, Place.DEFAULTS)),
        ({"numa_balancing": 1}, (Place.OTHER, Place.OTHER_DEFAULTS)),
    ]
    assert places("patched", **verify)[0] == [
        ({"max_active": 1, "numa_balancing": 0}, (Place.FIRST,)),
        ({"max_active": 32, "numa_balancing": 0}, (Place.NEXT,)),
        ({"max_active": 32, "numa_balancing": 1}, (Place.OTHER,)),
        ({"numa_balancing": 0}, (Place.DEFAULTS,)),
        ({"numa_balancing": 1}, (Place.OTHER_DEFAULTS,)),
    ]


def test_a_program_runs_where_it_finds_something():
    large = Program("integrity", "free", ("integrity", "large"), 5.0, frozenset({Place.DEFAULTS}))
    offered = [program("free"), large, program("margin", places=(Place.DEFAULTS,))]
    guests = [FakeGuest({}), FakeGuest({}), FakeGuest({})]
    check_kernel(guests, offered=offered, matrix={"max_active": (1, 32)})
    ran = [[n for n in guest.ran if not n.startswith("echo")] for guest in guests]
    assert ran == [["free"], ["free"], ["large", "margin"]]
    assert [f"{TUNABLES}/max_active" in guest.tunables for guest in guests] == [True, True, False]


def test_the_progress_of_checks_has_their_number_and_the_time_left(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_PLAIN_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(progress.time, "monotonic", iter(range(0, 1000, 30)).__next__)
    with progress.Checking() as shown:
        shown.planned(3)
        for name in ("a", "b", "c"):
            shown.checking("patched", name, None)
            shown.checking("patched", name, CheckVerdict(CheckStatus.PASSED))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "patched: a  0 of 3 checks"
    assert re.fullmatch(r"patched: b  1 of 3 checks  about \d+ min.* left", lines[2])
    assert lines[-1] == "patched: c  ok  3 of 3 checks"


def test_a_kernel_without_tunables_of_its_own_runs_a_program_once():
    offered = [program("free"), program("free", places=(Place.DEFAULTS,))]
    offered.append(program("margin", places=(Place.DEFAULTS,)))
    here = lab()
    ran = []
    guest = FakeGuest({})
    checks = Checker(
        lab=here,
        kernel=here.kernels["stock"],
        variant=DEBUG,
        programs=offered,
        options=Options(only=("integrity/*",)),
        boot=lambda: contextlib.nullcontext(guest),
        report=lambda *_: ran.append(_),
    ).run()
    assert [check.name for check in checks] == ["integrity/free", "integrity/margin"]


def test_a_scenario_in_which_nothing_is_handed_over_is_a_failure():
    stays = FakeGuest({}, handovers=0)
    offered = [program("free", hands_over=(Place.FIRST,)), program("oom")]
    free, oom, *_ = check_kernel([stays, FakeGuest({})], offered=offered)
    assert (free.verdict.status, free.verdict.why) == (
        "failed",
        "series not exercised: handovers unchanged",
    )
    assert (free.handovers, oom.verdict.status) == (0, "passed")


def test_a_kernel_that_counts_no_handovers_need_not_hand_over(monkeypatch):
    guest = FakeGuest({})
    exchange = guest.exchange

    def uncounted(writes, reads):
        return {p: t for p, t in exchange(writes, reads).items() if "handovers" not in p}

    monkeypatch.setattr(guest, "exchange", uncounted)
    offered = [program("free", hands_over=(Place.FIRST,))]
    free, *_ = check_kernel([guest], offered=offered)
    assert (free.verdict.status, free.handovers) == ("passed", None)


def test_the_scenarios_are_those_of_the_program():
    source = Path(__file__).parent.parent.parent / "guest/integrity"
    written = "".join(path.read_text() for path in source.glob("scenario_*.c"))
    offered = scenarios.integrity(20, Verify(held_back=2**20, held_back_defaults=2**21))
    assert {p.name for p in offered} == set(scenarios.SCENARIOS)
    assert all(f'"{name}", "' in " ".join(written.split()) for name in scenarios.SCENARIOS)
    assert written.count("const struct scenario scenario_") == len(scenarios.SCENARIOS)
    # A place runs each scenario once.
    for place in Place:
        names = [p.name for p in offered if place in p.places]
        assert len(names) == len(set(names))
    assert all(p.hands_over <= p.places for p in offered)
    limits = {p.argv[-1] for p in offered if Place.DEFAULTS in p.places}
    assert limits == {str(2**21)}


def test_more_trials_take_more_time():
    few, many = (scenarios.integrity(20, Verify(), trials) for trials in (None, 48))
    assert all("--trials" not in each.argv for each in few)
    for less, more in zip(few, many, strict=True):
        has_trials = less.name.startswith("margin")
        assert (more.argv[-2:] == ("--trials", "48")) is has_trials
        assert (more.timeout_seconds > less.timeout_seconds) is has_trials


def test_memory_of_many_workers_is_not_limited():
    (small, large) = (p for p in scenarios.integrity(20, Verify()) if p.name == "backlog")
    assert (small.places, large.places) == ({Place.FIRST}, {Place.DEFAULTS})


def test_a_sound_kernel_passes_with_its_tunables_set():
    guest = FakeGuest({})
    checks = check_kernel([guest])
    assert [check.handovers for check in checks] == [1, 1, None, None]
    assert statuses(checks) == dict.fromkeys(
        [
            f"{n} max_active=1"
            for n in ("integrity/free", "integrity/exit", "exercised", "kmemleak")
        ],
        "passed",
    )
    assert guest.tunables[f"{TUNABLES}/max_active"] == "1"
    assert "oom-kill" in guest.tolerated


def test_a_splat_fails_its_check_and_the_next_one_gets_a_fresh_guest():
    checks = check_kernel([FakeGuest({"free": splat}), second := FakeGuest({})])
    assert checks[0].verdict.status == "failed"
    assert checks[0].verdict.details == ("the end",)
    assert "use-after-free" in checks[0].verdict.why
    assert "exit" in second.ran
    assert {c.verdict.status for c in checks[1:]} == {"passed"}


def test_the_first_failure_can_end_it():
    checks = check_kernel([FakeGuest({"free": splat})], options=Options(stop_at_first=True))
    assert len(checks) == 1


def test_output_of_a_program_is_reported():
    report = json.dumps({"passed": False, "why": "wrong page content"})
    answers = {"free": lambda: outcome(1, report, "page 3: 0 in place of 1")}
    first = check_kernel([FakeGuest(answers), FakeGuest({})])[0].verdict
    assert first.why == "wrong page content"
    assert "page 3: 0 in place of 1" in first.details


def test_memory_that_does_not_come_back_is_a_failure():
    checks = check_kernel([FakeGuest({}, lost_kib=20_000), FakeGuest({})])
    assert checks[0].verdict.status == "failed"
    assert checks[0].verdict.why.startswith("19.5 MiB were not freed")


def test_a_little_memory_may_stay_away():
    checks = check_kernel([FakeGuest({}, lost_kib=9_000)])
    assert {c.verdict.status for c in checks} == {"passed"}


def test_a_series_that_was_never_entered_is_a_failure():
    found = statuses(check_kernel([FakeGuest({}, handovers=0)]))
    assert found["exercised max_active=1"] == "failed"


def test_the_kernels_own_tests_run_once():
    guests = [FakeGuest({}), FakeGuest({})]
    check_kernel(guests, kinds={"exit": "selftests"}, matrix={"max_active": (1, 2)})
    assert [guest.ran.count("exit") for guest in guests] == [1, 0]
    assert [guest.ran.count("free") for guest in guests] == [1, 1]


def test_checks_are_chosen_by_name():
    options = Options(only=("integrity/e*",))
    assert list(statuses(check_kernel([FakeGuest({})], options=options))) == [
        "integrity/exit max_active=1"
    ]


def test_variants_are_chosen_by_name():
    fast, slow = Variant(name="fast"), Variant(name="slow")
    assert Options(variants=("slow",)).takes(slow, "integrity/exit")
    assert not Options(variants=("slow",)).takes(fast, "integrity/exit")
    assert Options().takes(fast, "integrity/exit")


def test_a_variant_has_its_own_checks():
    fast = Variant(name="fast", checks=("integrity/e*",))
    titles = [check.title for check in check_kernel([FakeGuest({})], variant=fast)]
    assert titles == ["fast: integrity/exit max_active=1", "fast: exercised max_active=1"]


def test_each_check_is_reported_at_its_start_and_end():
    messages = []
    check_kernel([FakeGuest({})], names=["free"], report=lambda *each: messages.append(each))
    assert messages[0] == ("debug: integrity/free max_active=1", None)
    assert messages[1][1].status == "passed"


def failed_test(name, *parts):
    return Check(
        "debug", name, {}, CheckVerdict(CheckStatus.FAILED, "x", (), frozenset(parts)), 1.0
    )


def test_a_selftest_that_fails_on_the_base_is_not_held_against_the_kernel():
    base = [failed_test("selftests/mremap_test", "5MB mremap", "other")]
    (same,) = beside_base([failed_test("selftests/mremap_test", "5MB mremap")], base)
    assert same.verdict.status == "known"
    (new,) = beside_base([failed_test("selftests/mremap_test", "5MB mremap", "new one")], base)
    assert new.verdict.status == "failed"


def killed(kills, setting=None, **report):
    report = {"why": "killed", "unexpected_kills": kills, "faults": 1} | report
    verdict = programs.verdict_of(program("margin"), outcome(1, json.dumps(report)))
    return Check("debug", "integrity/margin", setting or {}, verdict, 1.0)


def test_oom_kills_are_compared_with_those_on_the_base():
    (fewer,) = beside_base([killed(1, {"thp": "never", "max_active": 1})], [killed(2)])
    assert (fewer.verdict.status, fewer.verdict.why) == ("known", "also fails on the base")
    (more,) = beside_base([killed(3)], [killed(2)])
    assert more.verdict.status == "failed"
    (elsewhere,) = beside_base([killed(1, {"thp": "never"})], [killed(2, {"thp": "always"})])
    assert elsewhere.verdict.status == "failed"
    (foreign,) = beside_base([killed(1, faults=2)], [killed(2)])
    assert foreign.verdict.status == "failed"


def trial_check(trials, killed, status=0, handovers=None):
    report = {"why": "none", "trials": trials, "trials_with_kills": killed}
    verdict = programs.verdict_of(program("margin"), outcome(status, json.dumps(report)))
    return Check("debug", "integrity/margin", {}, verdict, 1.0, handovers)


def test_trials_and_kills_are_reported():
    assert trial_check(24, 0).result(None).trials == Trials(count=24, with_kills=0)
    assert trial_check(24, 3, status=1).result(None).trials == Trials(count=24, with_kills=3)
    for wrong in ((0, 0), (2, 3), (None, 1), (2, -1)):
        assert trial_check(*wrong).result(None).trials is None
    # An excused failure keeps its count.
    (known,) = beside_base([killed(1, trials=24, trials_with_kills=1)], [killed(2)])
    assert known.result(None).trials == Trials(count=24, with_kills=1)


@pytest.mark.parametrize(
    ("trials", "with_kills", "status"),
    [(3, 1, "passed"), (24, 2, "passed"), (24, 6, "passed"), (24, 7, "failed"), (3, 3, "failed")],
)
def test_a_few_kills_near_a_limit_show_nothing(trials, with_kills, status):
    report = {"trials": trials, "trials_with_kills": with_kills}
    verdict = killed(with_kills, **report).verdict
    assert (verdict.status, verdict.trials) == (status, (trials, with_kills))
    assert ("not shown to be more than 10%" in verdict.why) is (status == "passed")
    assert killed(with_kills, **report, faults=2).verdict.status == "failed"


def test_more_kills_than_on_the_base_are_a_failure():
    few = killed(6, trials=24, trials_with_kills=6)
    (more,) = beside_base([few], [trial_check(48, 0)])
    assert more.verdict.status == "failed"
    assert more.verdict.why.endswith("in 6 of 24 trials, base: 0 of 48")
    assert more.result(None).trials == Trials(count=24, with_kills=6)
    (alike,) = beside_base([few], [trial_check(24, 3)])
    assert alike.verdict.status == "passed"
    many = killed(12, trials=24, trials_with_kills=12)
    (known,) = beside_base([many], [many])
    assert known.verdict.status == "known"
    (worse,) = beside_base([killed(22, trials=24, trials_with_kills=22)], [many])
    assert worse.verdict.status == "failed"


def test_the_trials_of_all_kernels_are_one_table():
    kernel = DOCUMENT.kernels["patched"]
    stock = msgspec.structs.replace(kernel, checks=(trial_check(24, 1, 1).result(None),))
    patched = msgspec.structs.replace(
        kernel, checks=(*kernel.checks, trial_check(24, 0, handovers=7).result(None))
    )
    both = msgspec.structs.replace(DOCUMENT, kernels={"stock": stock, "patched": patched})
    lines = verify_text.terminal(both).splitlines()
    (head,) = (n for n, line in enumerate(lines) if line.startswith("trials with OOM kills"))
    assert lines[head].split()[-2:] == ["stock", "patched"]
    assert lines[head + 2].split("  ") == [
        "debug: integrity/margin",
        "1 of 24",
        "0 of 24 (7 handovers)",
    ]
    assert "trials with" not in verify_text.terminal(DOCUMENT)


def test_a_kernel_without_a_base_cannot_excuse_its_own_kills():
    here = lab()
    patched = here.kernels["patched"].model_copy(update={"base": "stock"})
    here = here.model_copy(update={"kernels": here.kernels | {"patched": patched}})
    own = [killed(1), failed_test("selftests/a", "a")]
    alone = run.reference(here, "stock", {"stock": own})
    assert [check.name for check in alone] == ["selftests/a"]
    assert run.reference(here, "stock", {"stock": own, "patched": []}) == own
    assert run.reference(here, "patched", {"stock": own, "patched": [killed(2)]}) == own
    assert not run.reference(here, "patched", {"patched": [killed(2)]})


def test_nothing_else_is_excused_by_the_base():
    for name in ("integrity/free", "stress-ng/vm"):
        (check,) = beside_base([failed_test(name, "a")], [failed_test(name, "a")])
        assert check.verdict.status == "failed"
    oops = replace(
        failed_test("selftests/a", "a"), verdict=CheckVerdict(CheckStatus.FAILED, "splat: BUG")
    )
    assert beside_base([oops], [failed_test("selftests/a", "a")]) == [oops]


@pytest.mark.parametrize(
    ("kind", "status", "expected"),
    [
        ("integrity", 0, "passed"),
        ("integrity", 4, "skipped"),
        ("integrity", 137, "failed"),
        ("stress-ng", 3, "skipped"),
        ("stress-ng", 4, "skipped"),
        ("stress-ng", 2, "failed"),
        ("selftests", 4, "skipped"),
        ("selftests", 1, "failed"),
    ],
)
def test_exit_statuses_mean_what_their_program_says(kind, status, expected):
    assert programs.verdict_of(program("x", kind), outcome(status)).status == expected


def test_failed_parts_come_from_ktap():
    text = "TAP version 13\n1..3\nok 1 a\nnot ok 2 - b c\n  not ok 1 d # SKIP no\nnot ok 3 e\n"
    judged = programs.verdict_of(program("x", "selftests"), outcome(1, text))
    assert judged.failed_parts == {"b c", "e"}
    silent = programs.verdict_of(program("x", "selftests"), outcome(1))
    assert silent.failed_parts == {"x"}


@pytest.mark.parametrize("text", ["\n", " ", "\t", "not ok 1 ", "not ok 1 a", "# SKIP "])
def test_parts_are_found_in_linear_time(text):
    short, long = (f"not ok 1 a{text * (size // len(text))}b\n" for size in (2**12, 2**15))

    def work(output):
        programs.verdict_of(program("x", "selftests"), outcome(1, output))

    assert_linear(work, short, long)


def test_memory_on_per_cpu_lists_and_in_slabs_is_not_lost():
    found = memory.unaccounted_bytes(FakeGuest({}))
    assert found == (1_000_000 - 900_000 - 1000 - 25 * 4) * 1024


@pytest.fixture
def tree(tmp_path):
    """A source with two selftests, one of which does not build."""
    folder = tmp_path / "src/tools/testing/selftests/vm"
    folder.mkdir(parents=True)
    (folder / "map_populate.c").write_text("int main(void) { return 0; }\n")
    (folder / "mremap_test.c").write_text("int main(void) { return unknown_word; }\n")
    goals = []
    source = SimpleNamespace(key="abc")
    made = SimpleNamespace(src=tmp_path / "src", build=tmp_path / "build", source=source)
    return SimpleNamespace(tree=made, compile=goals.append, goals=goals)


def test_selftests_that_build_are_run_and_others_are_reported(tree, tmp_path):
    built = selftests.build(tree, tmp_path / "state")
    assert [p.check for p in built.programs] == ["selftests/map_populate"]
    assert built.files["/selftests/map_populate"].read_bytes()[:4] == b"\x7fELF"
    assert "unknown_word" in built.missing["mremap_test"]
    assert built.missing["soft-dirty"] == "not in this source"
    again = selftests.build(tree, tmp_path / "state")
    assert again == built
    assert tree.goals == [["headers"]]


MAKEFILE = """diff --git a/tools/testing/selftests/vm/Makefile b/tools/testing/selftests/vm/Makefile
--- a/tools/testing/selftests/vm/Makefile
+++ b/tools/testing/selftests/vm/Makefile
@@ -1,1 +1,2 @@
 TEST_GEN_FILES += map_populate
+TEST_GEN_FILES += tlb_free
diff --git a/tools/testing/selftests/vm/run_vmtests.sh b/tools/testing/selftests/vm/run_vmtests.sh
--- a/tools/testing/selftests/vm/run_vmtests.sh
+++ b/tools/testing/selftests/vm/run_vmtests.sh
@@ -1,1 +1,3 @@
 CATEGORY="mmap" run_test ./map_populate
+CATEGORY="mmap" run_test ./tlb_free
+CATEGORY="mmap" run_test ./tlb_free --size "64 M"  # small
diff --git a/tools/testing/selftests/vm/tlb_free.c b/tools/testing/selftests/vm/tlb_free.c
new file mode 100644
--- /dev/null
+++ b/tools/testing/selftests/vm/tlb_free.c
@@ -0,0 +1,1 @@
+int main(void) { return 0; }
"""


def added_series(text=MAKEFILE):
    return Series("x", (Patch("a.patch", "a.patch", text.encode()),))


def test_selftests_of_a_series_are_found_with_their_runs():
    assert selftests.added(added_series()) == {"tlb_free": [(), ("--size", "64 M")]}
    assert selftests.added(added_series(MAKEFILE.replace("/vm/", "/net/"))) == {}
    above = Series("y", (), below=added_series())
    assert list(selftests.added(above)) == ["tlb_free"]


def test_selftests_of_a_series_are_built_in_its_tree_and_run_at_the_defaults(tree, tmp_path):
    folder = tree.tree.src / "tools/testing/selftests/vm"

    def prepare(series):
        assert series is not None
        (folder / "tlb_free.c").write_text("int main(void) { return 0; }\n")

    tree.tree.prepare = prepare
    tree.log = tmp_path / "log"
    state = tmp_path / "state"
    built = selftests.build_added(tree, state, added_series(), "patched")
    assert [(p.check, p.argv) for p in built.programs] == [
        ("selftests/tlb_free", ("/selftests/patched/tlb_free",)),
        ("selftests/tlb_free-2", ("/selftests/patched/tlb_free", "--size", "64 M")),
    ]
    assert all(p.places == {Place.DEFAULTS, Place.OTHER_DEFAULTS} for p in built.programs)
    assert built.files["/selftests/patched/tlb_free"].read_bytes()[:4] == b"\x7fELF"


def test_a_selftest_finds_the_headers_of_all_selftests(tree, tmp_path):
    folder = tree.tree.src / "tools/testing/selftests"
    (folder / "kselftest.h").write_text("#define KSFT_PASS 0\n")
    text = '#include "kselftest.h"\nint main(void) { return KSFT_PASS; }\n'
    tree.tree.prepare = lambda _: (folder / "vm/tlb_free.c").write_text(text)
    built = selftests.build_added(tree, tmp_path / "state", added_series(), "patched")
    assert "/selftests/patched/tlb_free" in built.files


def test_a_selftest_of_a_series_that_does_not_compile_is_an_error(tree, tmp_path):
    folder = tree.tree.src / "tools/testing/selftests/vm"
    tree.tree.prepare = lambda _: (folder / "tlb_free.c").write_text("int main(void) { x; }\n")
    tree.log = tmp_path / "log"
    with pytest.raises(BuildError, match="tlb_free of the series of patched") as caught:
        selftests.build_added(tree, tmp_path / "state", added_series(), "patched")
    assert "undeclared" in caught.value.errors[0]


def test_a_source_without_selftests_is_no_error(tree, tmp_path):
    folder = tree.tree.src / "tools/testing/selftests/vm"
    folder.rename(folder.with_name("net"))
    assert selftests.build(tree, tmp_path).programs == []


def test_a_bundle_has_the_program_and_all_that_it_loads():
    files = bundle.bundle("env", "coreutils")
    assert files["/bin/env"].is_file()
    assert any("libc.so" in name for name in files)
    assert any("/ld-linux" in name for name in files)
    assert all(path.is_file() and not path.is_symlink() for path in files.values())


def test_a_missing_program_names_its_package():
    with pytest.raises(Exception, match="not installed") as caught:
        bundle.bundle("no-such-program", "some-package")
    assert "some-package" in str(caught.value)
    assert not isinstance(caught.value, BuildError)


def check(name, status, why="", on_base=None, details=()):
    return {
        "variant": "debug",
        "name": name,
        "setting": {"max_active": 1},
        "status": status,
        "on_base": on_base,
        "why": why,
        "handovers": 7 if name == "integrity/free" else None,
        "seconds": 3.2,
        "details": list(details),
    }


CHECKS = [
    check("integrity/free", "passed", on_base="passed"),
    check("integrity/stale", "failed", "foreign # byte", details=["\x1b[0mBUG"]),
    check("selftests/a", "known", "also fails on the base", "failed"),
    check("integrity/hotplug", "skipped", "no CPU can go"),
]
DOCUMENT = msgspec.convert(
    {
        "schema": 1,
        "host": {"cpu_model": "CPU", "cores": 2, "memory_bytes": 2**30, "qemu": "7.2", "id": "abc"},
        "accel": "tcg",
        "passed": False,
        "kernels": {
            "patched": {
                "images": {"debug": "a" * 64},
                "series": "b" * 64,
                "release": "6.1.0",
                "base": "stock",
                "passed": False,
                "checks": CHECKS,
            }
        },
    },
    Verification,
)


def test_the_table_has_a_line_a_check_and_the_base_beside_it():
    text = verify_text.terminal(DOCUMENT)
    assert "1 of 4 checks failed" in text
    (line,) = (each for each in text.splitlines() if "integrity/free" in each)
    assert line.split() == ["debug", "integrity/free", "max_active=1", "ok", "ok", "3", "s"]
    assert "foreign # byte" in text
    assert "TCG" in text
    assert "debug: max_active=1: 3 checks, 1 skipped in 13 s, 7 handovers" in text


def test_ktap_has_a_subtest_a_check():
    lines = verify_text.ktap(DOCUMENT).splitlines()
    assert lines[:4] == ["KTAP version 1", "1..1", "  KTAP version 1", "  1..4"]
    assert "  ok 1 debug: integrity/free max_active=1" in lines
    assert "  not ok 2 debug: integrity/stale max_active=1" in lines
    assert "  ok 4 debug: integrity/hotplug max_active=1 # SKIP no CPU can go" in lines
    assert lines[-1] == "not ok 1 patched"


def test_junit_counts_failures():
    root = ElementTree.fromstring(verify_text.junit(DOCUMENT))
    (suite,) = root
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("4", "1", "2")
    assert suite.find("*/failure").text == "?[0mBUG"


def test_the_mutants_are_a_lab_of_one_series_and_one_mistake_each():
    from labctl.lab.load import load
    from labctl.series import reader

    mutants = load(Path(__file__).parent.parent / "mutants/lab.yaml")
    named = {name: kernel for name, kernel in mutants.kernels.items() if kernel.series}
    assert len(named) == 16
    series = set()
    for name, kernel in named.items():
        *whole, mistake = reader.read(kernel.series).patches
        assert "WRONG:" in mistake.content.decode()
        folders = dict.fromkeys(Path(patch.place).parent for patch in whole)
        original = [patch for folder in folders for patch in reader.read(folder).patches]
        assert [patch.hash for patch in whole] == [patch.hash for patch in original]
        (of_series,) = {folder.parent.name for folder in folders}
        series.add(of_series)
        own = {
            "parallel-free": ("max_active", "batch_pages"),
            "parallel-unmap": ("unmap_max_active", "range_pages"),
        }.get(of_series, ())
        assert all(mutants.tunables[tunable].applies_to(name) for tunable in own)
    assert series == {"node-grouped-free", "parallel-free", "parallel-unmap"}
    assert len({kernel.source for kernel in named.values()}) == 2

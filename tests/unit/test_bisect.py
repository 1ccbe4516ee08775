"""Bisection: the guilty step is found, in few decisions, and seldom is it the wrong one."""

import contextlib
import subprocess
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import synthetic
from click.testing import CliRunner
from samples import as_json

from labctl.bisect import text as bisect_text
from labctl.bisect.check import BisectCheck
from labctl.bisect.metric import Bisect, begin
from labctl.bisect.search import ANALYSES, Search, direction, ends_differ, is_bad, passes_needed
from labctl.bisect.steps import commits_of, kernel_like, patches_of
from labctl.bisect.types import Bisection
from labctl.cli import labctl
from labctl.errors import BuildError, UserError
from labctl.experiments.description import Facts
from labctl.experiments.runner import Runner
from labctl.runs import folder as run_folder
from labctl.series import reader

ROOT = Path(__file__).parent.parent.parent
SERIES = ROOT / "tests/bisect/slow-exit"
STEPS = 7


class FakeSteps:
    """Synthetic guests of a series' steps; from step `guilty` on they are `factor` as fast."""

    def __init__(self, tmp_path, guilty, factor=1 / 1.2, seed=1):
        lab = synthetic.lab(repetitions=1)
        kernel = lab.kernels["patched"].model_copy(update={"series": SERIES})
        (tmp_path / "lab.yaml").write_text("version: 1\n")
        self.lab = lab.model_copy(
            update={
                "kernels": {**lab.kernels, "patched": kernel},
                "path": tmp_path / "lab.yaml",
                "root": tmp_path,
                "state": tmp_path / "state",
            }
        )
        self.world = synthetic.World(seed)
        self.world.speeds = {
            f"patched.step{step}": factor if step >= guilty else 1.0 for step in range(STEPS + 1)
        }
        self.unbuildable = set()
        self.opened = []

    @contextlib.contextmanager
    def open_run(self, lab, plans, seed):
        (each,) = plans
        names = list(dict.fromkeys(cell.kernel for cell in each.cells))
        self.opened.append(names)
        broken = self.unbuildable & set(names)
        if broken:
            raise BuildError(f"{broken} does not compile", log="log", errors=[])
        folder = run_folder.create(self.lab.state / "runs")
        images = {name: (name, None) for name in lab.kernels}
        facts = Facts(run=folder.id, host="h", accel="tcg", images=images)

        def measure(each, blocks):
            fixed = each.statistics.model_copy(
                update={"blocks": synthetic.Blocks(min=blocks, max=blocks)}
            )
            whole = type(each)(each.experiment, fixed, each.baseline, each.cells, each.seed)
            Runner(lab, whole, folder.store, self.world.boot, facts).run()

        yield SimpleNamespace(folder=folder, measure=measure)

    def bisect(self, good=0, bad=None, **more):
        answer = begin(patches_of(self.lab, "patched"), good=good, bad=bad, risk=0.05, what="e")
        return Bisect(
            lab=self.lab,
            experiment="e",
            setting={},
            answer=answer,
            open_run=self.open_run,
            **more,
        ).run()


@pytest.mark.parametrize("guilty", range(1, STEPS + 1))
def test_the_bad_step_is_found_at_any_place(tmp_path, guilty):
    answer = FakeSteps(tmp_path, guilty, seed=guilty).bisect()
    assert answer.step == guilty
    document = answer.document()
    assert [each.step for each in document.candidates] == [guilty]
    assert 0 < document.risk_spent <= 0.05 + 1e-12
    assert len(document.decisions) <= 1 + 3  # the ends, and log2 of 7


def test_a_step_is_measured_beside_both_ends_in_one_run(tmp_path):
    fake = FakeSteps(tmp_path, 5)
    fake.bisect()
    assert fake.opened[0] == ["patched.step0", "patched.step7"]
    assert fake.opened[1] == ["patched.step0", "patched.step3", "patched.step7"]
    assert fake.opened[2] == ["patched.step3", "patched.step5", "patched.step7"]


def test_something_that_became_faster_is_found_too(tmp_path):
    assert FakeSteps(tmp_path, 2, factor=1.3).bisect().step == 2


def test_ends_that_do_not_differ_are_reported(tmp_path):
    answer = FakeSteps(tmp_path, STEPS + 1).bisect(blocks_max=8)
    assert answer.step is None
    assert "no difference above" in answer.problem
    assert "not found" in bisect_text.terminal(answer.document())


def test_a_step_that_does_not_build_is_passed_over(tmp_path):
    fake = FakeSteps(tmp_path, 5)
    fake.unbuildable = {"patched.step3"}
    answer = fake.bisect()
    assert answer.step == 5
    assert [one.step for one in answer.decisions if one.verdict == "skipped"] == [3]


def test_the_range_is_reported_if_the_bad_step_cannot_be_tested(tmp_path):
    fake = FakeSteps(tmp_path, 5)
    fake.unbuildable = {"patched.step5", "patched.step4"}
    answer = fake.bisect()
    assert answer.step is None
    assert list(answer.search.candidates) == [4, 5, 6]


def test_a_step_whose_guests_panic_is_passed_over(tmp_path):
    fake = FakeSteps(tmp_path, 5)
    fake.world.on_run = lambda guest: (
        synthetic.panic() if guest.group.kernel == "patched.step3" else None
    )
    answer = fake.bisect()
    assert answer.step == 5
    assert answer.decisions[1].why == "guests failed"


def test_a_step_in_the_middle_of_both_ends_is_not_guessed(tmp_path):
    fake = FakeSteps(tmp_path, STEPS)
    fake.world.speeds["patched.step3"] = (1 / 1.2) ** 0.5
    answer = fake.bisect(blocks_max=6)
    assert answer.step is None
    assert "undecided after" in answer.problem


def test_invalid_steps_are_reported(tmp_path):
    lab = FakeSteps(tmp_path, 5).lab
    for good, bad in ((7, None), (3, 3), (0, 8)):
        with pytest.raises(UserError, match="invalid steps of patched"):
            begin(patches_of(lab, "patched"), good=good, bad=bad, risk=0.05, what="e")
    with pytest.raises(UserError, match="no series"):
        begin(patches_of(lab, "stock"), good=0, bad=None, risk=0.05, what="e")


def test_a_setting_that_is_no_cell_is_reported(tmp_path):
    fake = FakeSteps(tmp_path, 5)
    answer = begin(patches_of(fake.lab, "patched"), good=0, bad=None, risk=0.05, what="e")
    with pytest.raises(UserError, match="no such cell"):
        Bisect(
            lab=fake.lab, experiment="e", setting={"max_active": 4}, answer=answer,
            open_run=fake.open_run,
        ).run()  # fmt: skip


def test_a_step_is_the_series_up_to_it(tmp_path):
    lab = FakeSteps(tmp_path, 5).lab
    answer = begin(patches_of(lab, "patched"), good=0, bad=None, risk=0.05, what="e")
    assert answer.steps.kernel(0).series is None
    assert len(reader.read(answer.steps.kernel(3).series).patches) == 3


@pytest.fixture
def linux(tmp_path):
    """Return a repository with a merge on the way from `good` to `topic`: steps 1 to 4."""
    folder = tmp_path / "linux"
    folder.mkdir()

    def run(*words):
        who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        argv = ["git", "-C", str(folder), *who, *words]
        done = subprocess.run(argv, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    run("init", "-q", "-b", "master")
    run("commit", "-q", "--allow-empty", "-m", "base")
    run("checkout", "-q", "-b", "side")
    run("commit", "-q", "--allow-empty", "-m", "aside")
    run("checkout", "-q", "-b", "topic", "master")
    for subject in ("one", "two: café"):
        run("commit", "-q", "--allow-empty", "-m", subject)
    run("merge", "-q", "--no-ff", "-m", "merge aside", "side")
    run("commit", "-q", "--allow-empty", "-m", "four")
    run("checkout", "-q", "master")
    run("commit", "-q", "--allow-empty", "-m", "later")
    return folder


def of_range(tmp_path, linux, text="git:master..topic", **more):
    fake = FakeSteps(tmp_path, guilty=99)
    like = {"source": f"dir:{linux}", "series": None, **more}
    stock = fake.lab.kernels["stock"].model_copy(update=like)
    kernels = {**fake.lab.kernels, "stock": stock}
    fake.lab = fake.lab.model_copy(update={"kernels": kernels})
    return fake, commits_of(fake.lab, text, kernel_like(fake.lab, fake.lab.kernels))


@pytest.mark.parametrize(("guilty", "subject"), [(2, "two: café"), (3, "merge aside")])
def test_the_commit_of_a_range_is_named(tmp_path, linux, guilty, subject):
    fake, steps = of_range(tmp_path, linux)
    fake.world.speeds = {f"stock.step{n}": 1.0 if n < guilty else 0.8 for n in range(5)}
    fake.unbuildable = {"stock.step1"}
    answer = begin(steps, good=0, bad=None, risk=0.05, what="e")
    found = Bisect(
        lab=fake.lab, experiment="e", setting={}, answer=answer, open_run=fake.open_run
    ).run()
    if guilty == 2:  # step 1 does not build
        assert [one.subject for one in found.document().candidates] == ["one", subject]
    else:
        result = bisect_text.terminal(found.document())
        (one,) = found.document().candidates
        assert (one.subject, len(one.patch)) == (subject, 12)
        assert f"step 3 changed it: merge aside ({one.patch})" in result


def test_each_step_is_a_commit_of_the_kernels_source(tmp_path, linux):
    _, steps = of_range(tmp_path, linux)
    assert steps.count == 4
    sources = [steps.kernel(step).source for step in range(5)]
    assert all(source.startswith(f"git:{linux}@") for source in sources)
    assert len(set(sources)) == 5
    assert steps.kernel(0).source.endswith(steps.range.base)
    assert steps.kernel(2).name == "stock.step2"


@pytest.mark.parametrize(
    ("text", "more", "what"),
    [
        ("git:topic..master~1", {}, "is empty"),
        ("git:master..nowhere", {}, "no revision nowhere"),
        ("git:master", {}, "BASE..TOPIC is missing"),
        ("git:master..topic", {"source": "debian:linux"}, "no kernel from git without a series"),
        ("git:master..topic", {"series": "/x"}, "no kernel from git without a series"),
    ],
)
def test_a_range_that_cannot_be_bisected_is_reported(tmp_path, linux, text, more, what):
    with pytest.raises(UserError, match=what):
        of_range(tmp_path, linux, text, **more)


def test_the_series_to_be_bisected_has_seven_steps():
    assert len(reader.read(SERIES).patches) == STEPS
    assert "WRONG" in reader.read(SERIES).patches[4].content.decode()


def test_the_decisions_share_the_risk():
    search = Search(0, 7, 0.05)
    search.spend(search.allowance(ends=True))
    assert search.spent == pytest.approx(0.05 / 4)
    while (step := search.next_step()) is not None:
        search.spend(search.allowance())
        search.record(step, "bad" if step >= 7 else "good")
    assert search.spent <= 0.05 + 1e-12
    assert list(search.candidates) == [7]


def blocks(draw, truth, spread=0.03, drift=0.05):
    """Logs of the blocks of some kernels, on a host that drifts."""
    host = draw.normal(0, drift, ANALYSES[-1]).cumsum()
    return [host + level + draw.normal(0, spread, ANALYSES[-1]) for level in truth]


def searched(draw, guilty, effect, hosts=1):
    """Search 7 steps in simulated blocks, as `Bisect` does in measured ones.

    On several hosts, each has an effect of its own, and a block is on any of them.
    """
    search, slow = Search(0, STEPS, 0.05), np.log1p(effect)
    effects = 1 + (draw.uniform(-0.8, 0.8, hosts) if hosts > 1 else np.zeros(1))

    def analyse(steps, decide):
        own = effects[draw.integers(hosts, size=ANALYSES[-1])] if hosts > 1 else effects
        logs = blocks(draw, [slow * own * (step >= guilty) for step in steps])
        for count in ANALYSES:
            result = decide(*(one[:count] for one in logs))
            if result:
                return result
        return 0

    risk = search.allowance(ends=True)
    sign = analyse([0, STEPS], lambda good, bad: ends_differ(good, bad, risk, 0.02))
    if not sign:
        return None
    search.spend(risk)
    while (step := search.next_step()) is not None:
        risk = search.allowance()

        def decide(good, own, bad, risk=risk):
            found = is_bad(own, good, bad, sign=sign, risk=risk)
            return 0 if found is None else 1 if found else -1

        result = analyse([search.good, step, search.bad], decide)
        if not result:
            return None
        search.spend(risk)
        search.record(step, "bad" if result == 1 else "good")
    return search.bad


@pytest.mark.parametrize(("effect", "hosts"), [(0.05, 1), (0.2, 1), (0.2, 4)])
def test_the_wrong_step_is_named_less_often_than_the_risk_allows(effect, hosts):
    draw = np.random.default_rng(5)
    guilty = [1 + number % STEPS for number in range(70)]
    found = [searched(draw, one, effect, hosts) for one in guilty]
    wrong = [f for f, true in zip(found, guilty, strict=True) if f not in (None, true)]
    assert len(wrong) <= 0.05 * len(guilty)
    if effect == 0.2:
        assert found.count(None) == 0


@pytest.mark.parametrize("hosts", [1, 4])
def test_a_decision_at_the_very_threshold_keeps_its_risk(hosts):
    """Where the truth is on neither side, either answer is given as seldom as the risk says.

    On several hosts, the truth is the mean of these hosts.
    """
    draw = np.random.default_rng(6)
    of_hosts = np.linspace(-0.02, 0.02, hosts) if hosts > 1 else np.zeros(1)
    messages = []
    for _ in range(200):
        values = draw.normal(0, 0.04, ANALYSES[-1]) + np.resize(of_hosts, ANALYSES[-1])
        analyses = (direction(values[:count], 0.1) for count in ANALYSES)
        messages.append(next((one for one in analyses if one), 0))
    assert (hosts > 1) or messages.count(1)
    assert messages.count(1) / 200 <= 0.1
    assert messages.count(-1) / 200 <= 0.1


def test_a_few_outlying_blocks_do_not_hide_a_difference():
    """As a loaded host had them: nearly all blocks agree, and a few are off by a factor of 3."""
    d = [0.16, -0.18, 0.73, 1.12, 0.46, 0.08, 0.24, 0.02, 0.09, 0.11, 0.6, 0.18, 0.06, 0.27,
         0.22, 0.14, 0.12, 0.03, 0.15, 0.13, 0.2, 0.1]  # fmt: skip
    assert direction(d, 0.0125) == 1
    assert direction([-one for one in d], 0.0125) == -1


def test_the_last_analysis_uses_the_blocks_that_are_left():
    draw = np.random.default_rng(11)
    values = draw.normal(0.02, 0.03, ANALYSES[-1] - 1)
    assert direction(values[: ANALYSES[-2]], 0.01) == 0
    assert direction(values, 0.01) == 1


def test_direction_without_spread_or_blocks():
    assert direction([0.1] * 3, 0.05) == 0
    assert direction([0.1] * 4, 0.05) == 1
    assert direction([-0.1] * 4, 0.05) == -1
    assert direction([0.0] * 4, 0.05) == 0


def test_a_check_must_pass_more_often_the_less_surely_it_fails():
    assert passes_needed(3, 3, 0.0125) >= 3
    assert passes_needed(2, 3, 0.0125) > passes_needed(3, 3, 0.0125)
    assert passes_needed(3, 3, 0.001) > passes_needed(3, 3, 0.0125)
    with pytest.raises(ValueError, match="never failed"):
        passes_needed(0, 3, 0.05)


@pytest.mark.parametrize("guilty", [1, 4, 7])
def test_a_check_that_broke_is_found(tmp_path, guilty):
    lab = FakeSteps(tmp_path, 5).lab
    answer = begin(patches_of(lab, "patched"), good=0, bad=None, risk=0.05, what="integrity/*")

    def failed(kernel):
        return int(kernel.name.rpartition("step")[2]) >= guilty

    assert BisectCheck(lab=lab, answer=answer, failed=failed).run().step == guilty
    assert answer.search.spent <= 0.05


def test_a_check_that_fails_at_times_is_tried_until_it_is_sure(tmp_path):
    lab = FakeSteps(tmp_path, 5).lab
    draw = np.random.default_rng(3)
    found = []
    for _ in range(20):
        answer = begin(patches_of(lab, "patched"), good=0, bad=None, risk=0.05, what="integrity/*")
        done = BisectCheck(
            lab=lab,
            answer=answer,
            failed=lambda k: int(k.name[-1]) >= 5 and draw.random() < 0.7,
        ).run()
        found.append(done.step)
    wrong = [one for one in found if one not in (5, None)]
    assert len(wrong) <= 1
    assert found.count(5) >= 15


def test_checks_without_a_result_are_reported(tmp_path):
    lab = FakeSteps(tmp_path, 5).lab
    for always, result in (
        (False, "passed 3 times at the bad step 7"),
        (True, "fails at the good step 0"),
    ):
        answer = begin(patches_of(lab, "patched"), good=0, bad=None, risk=0.05, what="integrity/*")
        done = BisectCheck(lab=lab, answer=answer, failed=lambda _, a=always: a).run()
        assert done.step is None
        assert result in done.problem


def test_the_answer_is_text_and_json(tmp_path):
    document = FakeSteps(tmp_path, 5).bisect().document()
    assert msgspec.json.decode(as_json(document), type=Bisection) == document
    text = bisect_text.terminal(document)
    assert "step 5 changed it: mm: exit_mmap: let the allocator settle" in text
    assert "Probability of a wrong answer: at most 5 %" in text


def test_a_mistake_is_reported_without_a_traceback():
    for words in (["slow-exit"], ["slow-exit", "exit", "--check", "a"]):
        done = CliRunner().invoke(labctl, ["bisect", *words])
        assert done.exit_code == 2
    lab = ["--lab", str(ROOT / "tests/bisect/lab.yaml")]
    for words in (
        ["nobody", "exit"],
        ["slow-exit", "nothing"],
        ["slow-exit", "exit", "--set", "x"],
    ):
        done = CliRunner().invoke(labctl, ["bisect", *words, *lab])
        assert isinstance(done.exception, UserError), words

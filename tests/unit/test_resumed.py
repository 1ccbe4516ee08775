"""A run that is interrupted and resumed has the plan and the report of an undisturbed one."""

import hashlib
import itertools
import json
from datetime import UTC, datetime, timedelta
from functools import partial
from statistics import NormalDist
from types import SimpleNamespace

import pytest
import synthetic
from records import report_of
from samples import as_json
from test_runner import runner

from labctl.experiments.plan import plan
from labctl.experiments.record import _experiment, as_recorded
from labctl.experiments.runner import Runner
from labctl.lab.models import Workload
from labctl.runs.record import RunRecord
from labctl.runs.store import Store
from labctl.stats import repetitions, stopping
from labctl.stats.repetitions import Goal
from labctl.stats.stored import results_of
from labctl.transports import Outcome

METRICS = {
    "faults": {"better": "lower", "scale": "difference", "minimum_effect": 2},
    "throughput": {"better": "higher"},
}
KINDS = {
    "metrics": {"metrics": ("throughput", "faults")},
    "difference": {"metrics": ("faults",)},
    "auto": {"metrics": ("throughput",), "repetitions": "auto"},
    "auto of a difference": {"metrics": ("faults", "throughput"), "repetitions": "auto"},
}
STOP = {"throughput": 0.05, "faults": 5.0}
SECONDS_OF_BOOT = 12.0


def drawn(*key):
    """Return a normal number that depends on nothing but its key."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return NormalDist().inv_cdf((int.from_bytes(digest[:7]) + 0.5) / 2**56)


class Interrupted(Exception):
    """As after Ctrl-C, or a power cut: nothing is written afterwards."""


@pytest.fixture
def measure(monkeypatch):
    """Return a function that measures until `stop` repetitions, after a `pause` of seconds.

    Values depend on block, cell and repetition only, so that two runs have the same ones.
    """
    state = {}
    whole = Runner._measure

    def run(guest, argv, **more):
        synthetic_run(guest, argv, **more)
        return Outcome("", 0, state["output"], b"", 1.0)

    def measured(self, repetition, guest, base, *, is_last):
        if next(state["count"]) >= state["stop"]:
            raise Interrupted
        key = base["block"], base["cell"]
        extra = 6.0 * (base["kernel"] == "patched")
        of_boot, own = drawn(*key), drawn(*key, base["warmup"], base["repetition"])
        noise = 3 * of_boot + 5 * own
        content = {"faults": 100 + extra + noise, "throughput": 1000 + extra + 10 * noise}
        state["output"] = json.dumps(content).encode() + b"\n"
        began = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=state["pause"] + self.clock())
        return whole(self, repetition, guest, base | {"started_at": began.isoformat()},
                     is_last=is_last)  # fmt: skip

    synthetic_run = synthetic.Guest.run
    monkeypatch.setattr(synthetic.Guest, "run", run)
    monkeypatch.setattr(Runner, "_measure", measured)

    def measure(folder, metrics, number=2, *, stop=10**9, pause=0.0):
        state.update(count=itertools.count(), stop=stop, pause=pause)
        world = synthetic.World()
        world.on_boot = lambda _: setattr(world, "seconds", world.seconds + SECONDS_OF_BOOT)
        if stop == "boot":
            state["stop"] = 10**9
            world.on_boot = partial(boot_stops, world)
        the_lab = synthetic.lab(blocks=8, repetitions=number, metrics=metrics)
        blocks = the_lab.statistics.blocks.model_copy(update={"max": 14})
        statistics = the_lab.statistics.model_copy(update={"blocks": blocks})
        mine = Workload(name="free", command="mine", metrics=METRICS)
        the_lab = the_lab.model_copy(update={"workloads": {"free": mine}, "statistics": statistics})
        compared = the_lab.compared("e")
        rule = {"baseline": "stock", "scale": compared.scale}
        half = STOP[compared.name]
        ended = partial(stopping.ended, confidence=0.95, half_width=half, **rule)
        auto = partial(repetitions.chosen, goal=Goal(0.95, None, 8), **rule)
        more = {"ended": ended} | ({"repetitions": auto} if number == "auto" else {})
        folder.mkdir(exist_ok=True)
        runner(folder, world, the_lab, **more).run()
        return the_lab, [s for s in Store(folder).samples() if not s.warmup]

    return measure


def boot_stops(world, guest):
    world.seconds += SECONDS_OF_BOOT
    if guest.block == 1:
        raise Interrupted


def report(the_lab, samples):
    first, *further = (
        {"metric": m.name, "better": m.better, "scale": m.scale,
         "minimum_effect": m.minimum_effect} for m in the_lab.all_compared("e")
    )  # fmt: skip
    experiment = {
        "name": "e", "workload": "free", "baseline": "stock", "confidence": 0.95,
        "command": "mine", "blocks_min": 8, **first, "further_metrics": further,
    }  # fmt: skip
    record = {"run": "r", "accel": "tcg", "finished": True, "experiments": [experiment]}
    return as_json(report_of(record, results_of(RunRecord.of(record), samples)))


@pytest.mark.parametrize("stop", [5, 12, "boot", 40])
@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_is_like_an_undisturbed_one(tmp_path, measure, kind, stop):
    own = dict(KINDS[kind])
    metrics, number = own["metrics"], own.get("repetitions", 2)
    the_lab, undisturbed = measure(tmp_path / "whole", metrics, number)
    with pytest.raises(Interrupted):
        measure(tmp_path / "cut", metrics, number, stop=stop)
    _, resumed = measure(tmp_path / "cut", metrics, number, pause=40000.0)
    assert {s.status for s in resumed} == {"ok"}
    assert sorted(s.key for s in resumed) == sorted(s.key for s in undisturbed)
    assert report(the_lab, resumed) == report(the_lab, undisturbed)


def test_the_undisturbed_runs_have_what_the_keys_are_about(tmp_path, measure):
    _, samples = measure(tmp_path / "auto", ("throughput",), "auto")
    counts = {sum(s.block == block and s.cell == samples[0].cell for s in samples)
              for block in {s.block for s in samples}}  # fmt: skip
    assert len(counts) > 1
    for name in ("faults", "throughput"):
        _, samples = measure(tmp_path / name, (name,))
        assert 8 < len({s.block for s in samples}) < 14  # it ends when it is narrow enough


def recorded(parse="faults ([0-9]+)"):
    """Return an experiment of run.json with all of the new keys, as it is read again."""
    the_lab = synthetic.lab(repetitions="auto", metrics=("faults", "throughput"), target="box")
    metrics = METRICS | {"faults": METRICS["faults"] | {"parse": parse, "unit": "kfaults"}}
    mine = Workload(name="free", command="mine", metrics=metrics)
    the_lab = the_lab.model_copy(update={"workloads": {"free": mine}})
    now = _experiment(SimpleNamespace(lab=the_lab), plan(the_lab, "e", 1), {}, {})
    return now, json.loads(json.dumps(now))


def test_the_record_of_the_new_keys_is_that_of_the_resumed_run():
    now, before = recorded()
    assert as_recorded([now], [before]) == [before]
    assert before["repetitions"] == "auto"
    assert [before["metric"], *(m["metric"] for m in before["further_metrics"])] == [
        "faults",
        "throughput",
    ]
    older = {key: value for key, value in before.items() if key != "parse"}
    assert as_recorded([now], [older]) == [older]


def test_another_pattern_of_a_metric_is_another_experiment():
    """Samples of both would be mixed."""
    before, _ = recorded()
    assert as_recorded([recorded("pages ([0-9]+)")[0]], [before]) != [before]

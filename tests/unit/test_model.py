"""`labctl model`: parameters and predictions against an event simulation, and its errors."""

import json
from functools import cache

import numpy as np
import pytest
from click.testing import CliRunner
from freeing_threads import took
from records import record_of
from samples import replace, sample

from labctl.cli import labctl
from labctl.errors import UserError
from labctl.model import estimate as estimating
from labctl.model.estimate import estimate
from labctl.model.inputs import inputs_of
from labctl.model.prediction import predict
from labctl.model.queueing import share_of, slowdown
from labctl.model.text import render
from labctl.model.types import Basis, CellCosts, Cost, Design, Inputs, KernelInputs, Target
from labctl.runs.folder import RunFolder
from labctl.runs.types import Host

GIB = 1 << 30
PATCHED = {"free": Design.FREE, "unmap": Design.UNMAP}
TUNABLES = """
tunables:
  workers: {file: /sys/kernel/debug/parallel_free/max_active, kernels: [free]}
  unmappers: {file: /sys/kernel/debug/parallel_unmap/max_active, kernels: [unmap]}
"""
took = cache(took)


def target(*workers, cores=72, nodes=1, **more):
    return Target(cores=cores, nodes=nodes, size_bytes=64 * GIB, workers=workers, **more)


def inputs(*cells, noise=0.0, blocks=8, seed=1, cores=2, nodes=1, **more):
    """Return inputs with a cell (kernel, workers, Took) each, with noise of blocks and cells."""
    rng = np.random.default_rng(seed)
    host = rng.normal(0, 2 * noise, blocks)
    found = []
    for kernel, workers, one in [("stock", 0, took("")), ("base", 0, took("")), *cells]:
        costs = {}
        for block in range(blocks):
            scale = 100 * np.exp(host[block] + rng.normal(0, noise))
            costs[block] = Cost(one.elapsed * scale, one.own * scale, one.other * scale, one.handed)
        found.append(CellCosts(kernel=kernel, workers=workers, list_pages=1e3, blocks=costs))
    kernels = {
        name: KernelInputs(
            design=PATCHED.get(name, Design.SERIAL),
            base="base" if name in PATCHED else None,
            image="i" * 64,
            series=None,
        )
        for name in dict.fromkeys(one.kernel for one in found)
    }
    fields = {
        "run": "r", "experiment": "e", "finished": True, "operation": "munmap",
        "placement": "interleave", "size_bytes": GIB, "accel": "tcg", "host": Host(),
        "cores": cores, "nodes": nodes, "confidence": 0.95, "baseline": "stock",
        "kernels": kernels, "cells": tuple(found),
    }  # fmt: skip
    return Inputs(**(fields | more))


def ratio(document, design, basis, workers):
    curve = next(c for c in document.curves if (c.design, c.basis) == (design, basis))
    return next(point for point in curve.points if point.workers == workers)


def repairmen(share, threads):
    """Return the slowdown by the formula of the machine repairman with one repairman."""
    rho = share / (1 - share)
    weights = [1.0]
    for broken in range(threads):
        weights.append(weights[-1] * (threads - broken) * rho)
    busy = 1 - weights[0] / sum(weights)
    return threads * share / busy


@pytest.mark.parametrize("threads", [1, 2, 5, 40])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_the_slowdown_is_that_of_the_machine_repairman(share, threads):
    found = slowdown([np.array([share])], threads, 1)[0]
    assert found == pytest.approx(repairmen(share, threads))


def test_the_share_is_found_from_the_slowdown():
    shares = np.array([0.0, 0.05, 0.3, 0.9])
    found = share_of(slowdown([shares], 3, 2), 3, 2)
    assert found == pytest.approx(shares, abs=0.005)
    assert share_of(np.array([0.8, 5.0]), 2, 1) == pytest.approx([0, 1])


@pytest.mark.parametrize(("zap", "hold"), [(0.3, 0.02), (0.45, 0.1)])
def test_zapping_and_freeing_are_recovered(zap, hold):
    one = took("parallel-free", workers=1, zap=zap, hold=hold, lists=1600)
    found = estimate(inputs(("free", 1, one), noise=0.01), "free")
    assert found.zap[0] == pytest.approx(zap, rel=0.05)
    assert found.free[0] == pytest.approx(1 - zap, rel=0.05)
    assert found.design is Design.FREE


@pytest.mark.parametrize("hold", [0.02, 0.2, 0.4])
@pytest.mark.parametrize("nodes", [1, 4])
def test_the_curve_of_unmapping_lies_between_the_limits_of_two_cores(hold, nodes):
    kind = {"hold": hold, "nodes": nodes, "lists": 1600}
    cells = inputs(("unmap", 1, took("parallel-unmap", workers=1, **kind)), nodes=nodes)
    document = predict(cells, target(2, 8, nodes=nodes))
    for workers in (2, 8):
        most, least = (
            ratio(document, Design.UNMAP, basis, workers).ratio
            for basis in (Basis.NO_WAITS, Basis.ALL_WAITS)
        )
        true = 1 / took("parallel-unmap", workers=workers, **kind).elapsed
        assert 0.9 * least <= true <= 1.05 * most
        if hold >= 0.2:  # else two threads hardly meet, and the price is mostly luck
            assert true == pytest.approx(least, rel=0.15)


@pytest.mark.parametrize("nodes", [1, 2])
def test_three_cores_identify_the_locks(nodes):
    kind = {"hold": 0.4, "nodes": nodes, "lists": 3200}
    levels = [("unmap", n, took("parallel-unmap", workers=n, **kind)) for n in (1, 2)]
    document = predict(inputs(*levels, cores=3, nodes=nodes), target(8, nodes=nodes))
    true = 1 / took("parallel-unmap", workers=8, **kind).elapsed
    point = ratio(document, Design.UNMAP, Basis.LEVELS, 8)
    assert point.ratio == pytest.approx(true, rel=0.2)
    assert not [line for line in document.unidentified if line.startswith("locks:")]


@pytest.mark.parametrize("design", [Design.FREE, Design.UNMAP])
@pytest.mark.parametrize("hold", [0.1, 0.4])
def test_measured_locks_predict_the_curve(design, hold):
    kernel = {v: k for k, v in PATCHED.items()}[design]
    kind = {"hold": hold, "lists": 800, "zap": 0.2}
    one = took(str(design), workers=1, **kind)
    cells = inputs((kernel, 1, one), locks={"base": {"lru_lock": (hold,) * 6}})
    document = predict(cells, target(1, 2, 4, 8))
    for workers in (1, 2, 4, 8):
        true = 1 / took(str(design), workers=workers, **kind).elapsed
        point = ratio(document, design, Basis.MEASURED, workers)
        assert point.ratio == pytest.approx(true, rel=0.1), workers


def test_workers_that_free_all_pages_are_recognized():
    kind = {"zap": 0.25, "hold": 0.0, "lists": 600}
    document = predict(
        inputs(("free", 1, took("hand-over-all", workers=1, **kind))), target(1, 2, 3, 8)
    )
    assert {c.design for c in document.curves if c.kernel == "free"} == {Design.HAND_OVER}
    for workers in (1, 2, 3, 8):
        true = 1 / took("hand-over-all", workers=workers, **kind).elapsed
        point = ratio(document, Design.HAND_OVER, Basis.NO_WAITS, workers)
        assert point.ratio == pytest.approx(true, rel=0.05), workers


def test_workers_beyond_the_cores_add_nothing():
    cells = inputs(("unmap", 1, took("parallel-unmap", workers=1)))
    points = predict(cells, target(3, 8, cores=4)).curves[-1].points
    assert points[0].ratio == points[1].ratio
    assert [point.busy for point in points] == [3, 3]


def test_few_lists_have_no_prediction():
    cells = inputs(("unmap", 1, took("parallel-unmap", workers=1)))
    place = replace(target(1, 64), size_bytes=100 * 4096 * 1000)
    points = predict(cells, place).curves[-1].points
    assert points[0].ratio is not None
    assert (points[1].ratio, points[1].limit) == (None, "lists")


def test_intervals_cover_the_value_without_noise(monkeypatch):
    monkeypatch.setattr(estimating, "DRAWS", 500)
    cell = ("free", 1, took("parallel-free", workers=1, hold=0.0))
    place = target(1, 8)
    true = predict(inputs(cell), place)
    runs = 250
    inside = np.zeros(4)
    for seed in range(runs):
        found = predict(inputs(cell, noise=0.04, seed=seed), place)
        for i, (kernel, basis) in enumerate(
            [("base", Basis.NO_WAITS), ("free", Basis.NO_WAITS), ("free", Basis.ALL_WAITS)]
        ):
            one, other = (
                next(c for c in d.curves if (c.kernel, c.basis) == (kernel, basis)).points[-1]
                for d in (found, true)
            )
            inside[i] += one.ci[0] <= other.ratio <= one.ci[1]
        zap, known = found.series[0].parameters[0], true.series[0].parameters[0]
        inside[3] += zap.ci[0] <= known.value <= zap.ci[1]
    # 95 %, within 3 standard errors of so many runs.
    assert (np.abs(inside / runs - 0.95) < 0.042).all(), inside / runs


def refused(cells, message, place=None):
    with pytest.raises(UserError, match=message) as error:
        predict(cells, place or target(1))
    assert error.value.hint
    return error.value


def test_a_run_that_cannot_show_a_parameter_is_rejected():
    free = took("parallel-free", workers=1)
    refused(inputs(("free", 1, free), blocks=5), "5 blocks")
    refused(inputs(("free", 4, took("parallel-free", workers=4))), "fewest workers are 4")
    idle = replace(free, other=0.01, own=0.99, handed=0.01)
    refused(inputs(("free", 1, idle)), "cannot be separated")
    refused(inputs(("free", 1, replace(free, handed=2.0))), "other tasks")
    cheap = replace(free, own=0.2, other=0.3)
    refused(inputs(("free", 1, cheap)), "below that of base")
    refused(inputs(), "no kernel of the run has workers")
    nothing = replace(free, own=0.4, other=0.9, handed=0.5)
    refused(inputs(("free", 1, nothing)), "cannot be distinguished")


def measured(kernel, one, *, block, setting=None, pages=1000, placement="interleave", **changes):
    """Return a sample of freebench from the times of the simulation."""
    scale = pages * 100.0
    counters = {}
    if setting:
        counters = {"handovers": 10, "pages_handed": round(one.handed * pages)}
    measurements = {
        "elapsed_nanoseconds": round(one.elapsed * scale),
        "cpu_nanoseconds": round(one.own * scale),
        "other_cpu_nanoseconds": round(one.other * scale),
        "pages_per_node": [pages // 2, pages // 2],
        "size_bytes": 4096 * pages,
        "placement": placement,
        "huge_bytes": 0,
    }
    name = "/".join([kernel, *(f"{k}={v}" for k, v in (setting or {}).items())])
    own = {"kernel": kernel, "label": kernel, "cell": name, "setting": setting or {}}
    more = {"counters": counters, "measurements": measurements, "value": one.elapsed}
    return sample(**({"block": block} | own | more | changes))


def a_run(**experiment):
    """Return the record and the samples of a run with the series of labctl under other names."""
    free = [(n, took("parallel-free", workers=n)) for n in (1, 2)]
    samples = []
    for block in range(8):
        samples += [measured(name, took(""), block=block) for name in ("stock", "base")]
        samples += [measured("free", t, block=block, setting={"workers": n}) for n, t in free]
        unmap = took("parallel-unmap", workers=1)
        samples.append(measured("unmap", unmap, block=block, setting={"unmappers": 1}))
    placement = {"cores": 2, "vcpus": 2, "overcommitted": False, "pinned": [], "emulator": [],
                 "host_nodes": []}  # fmt: skip
    known = {"name": "smoke", "command": "freebench", "placement": placement} | experiment
    kernels = {
        "stock": {"patches": []},
        "base": {"patches": ["a"]},
        "free": {"patches": ["a", "b"], "series": "s" * 64},
        "unmap": {"patches": ["a", "c"]},
    }
    run = {"run": "20261128-000000-aaaa", "accel": "tcg", "lab": TUNABLES, "kernels": kernels}
    return record_of(run | {"experiments": [known], "finished": True}), samples


def test_inputs_come_from_the_record_and_the_samples():
    found = inputs_of(*a_run())
    assert {k: (one.design, one.base) for k, one in found.kernels.items()} == {
        "stock": ("serial", None),
        "base": ("serial", None),
        "free": ("parallel-free", "base"),
        "unmap": ("parallel-unmap", "base"),
    }
    assert (found.cores, found.nodes, found.placement) == (2, 2, "interleave")
    assert [(c.kernel, c.workers) for c in found.cells] == [
        ("base", 0), ("free", 1), ("free", 2), ("stock", 0), ("unmap", 1)
    ]  # fmt: skip
    cost = found.cells[1].blocks[0]
    assert cost.own == pytest.approx(100 * took("parallel-free", workers=1).own, rel=1e-3)


def test_memory_of_one_thread_is_on_one_node_at_a_time():
    record, samples = a_run()
    changed = [replace(s, measurements=s.measurements | {"placement": "local"}) for s in samples]
    assert inputs_of(record, changed).nodes == 1


def test_lock_holds_of_a_pass_are_taken():
    record, samples = a_run()
    name = "lock_stat.&lruvec->lru_lock.hold_nanoseconds"
    passes = [replace(s, counters={name: 10_000}) for s in samples if s.kernel == "base"]
    found = inputs_of(record, samples, passes=passes)
    assert found.locks == {"base": {"lru_lock": (0.1,) * 8}}
    document = predict(found, target(8))
    assert {c.basis for c in document.curves if c.kernel == "unmap"} == {Basis.MEASURED}
    assert "kernel without lock_stat" in document.assumptions[-2]


def test_a_short_repetition_is_named():
    one = took("parallel-unmap", workers=1)
    lines = predict(inputs(("unmap", 1, one)), target(1)).unidentified
    assert any("ran for 13 ms" in line for line in lines)
    longer = inputs(("unmap", 1, one), size_bytes=32 * GIB)
    assert not any("ran for" in line for line in predict(longer, target(1)).unidentified)


def test_very_noisy_costs_give_finite_intervals():
    one = took("parallel-unmap", workers=1)
    document = predict(inputs(("unmap", 1, one), noise=1.0, blocks=6), target(1, 64))
    for curve in document.curves:
        for point in curve.points:
            assert 0 < point.ci[0] <= point.ci[1] < np.inf


def test_several_hosts_are_an_assumption():
    record, samples = a_run()
    two = [replace(s, host=f"h{s.block % 2}") for s in samples]
    assert any(
        "the 2 hosts" in line for line in predict(inputs_of(record, two), target(1)).assumptions
    )


def test_an_experiment_that_does_not_fit_is_rejected():
    record, samples = a_run(command="sysbench")
    with pytest.raises(UserError, match="workloads of freebench"):
        inputs_of(record, samples)
    record, _ = a_run(placement={"cores": 2, "vcpus": 4, "overcommitted": True, "pinned": [],
                                 "emulator": [], "host_nodes": []})  # fmt: skip
    with pytest.raises(UserError, match="4 vCPUs shared 2 cores"):
        inputs_of(record, samples)
    record, _ = a_run(guest="g")
    counting = replace(record, guests={"g": {"icount": True}})
    with pytest.raises(UserError, match="run by turns"):
        inputs_of(counting, samples)
    record, _ = a_run()
    with pytest.raises(UserError, match="no valid repetitions"):
        inputs_of(record, [])
    with pytest.raises(UserError, match="no experiment 'other'"):
        inputs_of(record, samples, experiment="other")
    huge = [replace(s, measurements=s.measurements | {"huge_bytes": 1}) for s in samples]
    with pytest.raises(UserError, match="huge pages"):
        inputs_of(record, huge)
    default = [replace(s, setting={}) for s in samples]
    with pytest.raises(UserError, match="default number of workers"):
        inputs_of(record, default)


def test_cells_that_differ_in_more_are_chosen_by_their_setting():
    record, samples = a_run()
    both = [
        replace(s, setting=s.setting | {"op": op}, cell=f"{s.cell}/op={op}")
        for s in samples
        for op in ("exit", "munmap")
    ]
    with pytest.raises(UserError, match=r"differ in more.*op=exit, op=munmap"):
        inputs_of(record, both)
    assert len(inputs_of(record, both, settings={"op": "exit"}).cells) == 5
    with pytest.raises(UserError, match="no cell has a setting size") as error:
        inputs_of(record, both, settings={"size": 1})
    assert "available: op, unmappers, workers" in str(error.value)


def test_times_of_zero_are_rejected():
    record, samples = a_run()
    for name in ("cpu_nanoseconds", "elapsed_nanoseconds"):
        zero = [replace(s, measurements=s.measurements | {name: 0}) for s in samples]
        with pytest.raises(UserError, match="or it is 0"):
            inputs_of(record, zero)


def test_the_text_is_a_prediction_on_its_face():
    text = render(predict(inputs_of(*a_run()), target(1, 8)))
    first, *_ = text.splitlines()
    assert first.startswith("PREDICTION, not a measurement: ")
    assert "under TCG emulation on 2 cores" in first
    assert "image iiiiiiiiiiii, series ssssssssssss" in text
    assert "observe: [lock_stat]" in text


def test_times_are_predicted_only_where_they_are_known():
    cells = inputs(("unmap", 1, took("parallel-unmap", workers=1)))

    def seconds(cells, **more):
        return predict(cells, target(1, **more)).curves[-1].points[0].seconds

    assert seconds(cells) is None
    assert seconds(cells, baseline_seconds=10.0) == pytest.approx(5, rel=0.05)
    pages = 64 * GIB / 4096
    expected = 100e-9 * pages * took("parallel-unmap", workers=1).elapsed
    assert seconds(replace(cells, accel="kvm")) == pytest.approx(expected, rel=0.05)


@pytest.fixture
def lab(tmp_path):
    record, samples = a_run()
    lab = tmp_path / "lab.yaml"
    lab.write_text("version: 1\nkernels:\n  stock: {source: debian:linux-source-6.1}\n")
    run = RunFolder(tmp_path / ".labctl" / "runs" / record.run)
    run.path.mkdir(parents=True)
    experiment = {
        "name": "smoke", "command": "freebench", "workload": "free", "baseline": "stock",
        "confidence": 0.95, "minimum_effect": 0.02,
    }  # fmt: skip
    run.write({"schema": 1, "run": run.id, "accel": "tcg", "lab": TUNABLES, "kernels": {},
               "experiments": [experiment]})  # fmt: skip
    for each in samples:
        run.store.append(each)
    return lab


def invoke(lab, *words):
    return CliRunner().invoke(labctl, ["model", "--lab", str(lab), *words])


def test_the_command_prints_json(lab):
    done = invoke(lab, "--json", "--size", "320GB", "--workers", "1, 2", "--nodes", "1")
    document = json.loads(done.stdout)
    assert document["kind"] == "prediction"
    assert document["target"]["size_bytes"] == 320 * 10**9
    assert document["target"]["workers"] == [1, 2]
    assert document["measured_cores"] == 0


@pytest.mark.parametrize(
    "words",
    [
        ("--size", "big"), ("--size", "0"), ("--size", "1EB"), ("--workers", ""),
        ("--workers", "0,1"), ("--workers", "1;2"), ("--workers", "99999"), ("--cores", "1"),
        ("--nodes", "0"), ("--baseline-seconds", "-1"),
    ],
)  # fmt: skip
def test_invalid_options_are_rejected(lab, words):
    done = invoke(lab, *words)
    assert done.exit_code == 2
    assert "expected" in done.stderr or "not in the range" in done.stderr

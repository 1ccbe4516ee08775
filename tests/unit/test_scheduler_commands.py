"""`verify`, `nightly` and `bisect` on the workers of a real scheduler, with synthetic guests."""

import contextlib
import hashlib
from datetime import UTC, datetime
from pathlib import Path

import checked_guest
import msgspec
import pytest
import synthetic
from click.testing import CliRunner
from scheduler_cluster import Cluster, image

from labctl.bisect.metric import Bisect, begin
from labctl.bisect.steps import patches_of
from labctl.cli import labctl
from labctl.errors import BadOutput, HostError
from labctl.experiments.session import Events, Ready
from labctl.guests.initramfs import Initramfs
from labctl.guests.prepare import Prepared
from labctl.host.identity import Host
from labctl.lab.models import Variant, Verify
from labctl.nightly import history
from labctl.nightly.findings import document
from labctl.nightly.night import Nightly, opener
from labctl.runs.folder import RunFolder
from labctl.scheduler import engine
from labctl.scheduler.check_job import CheckJob
from labctl.scheduler.job import RESUME
from labctl.scheduler.task import CheckResult, HostReport
from labctl.scheduler.work import Losses
from labctl.verify import memory, run
from labctl.verify.engine import Todo
from labctl.verify.kernel import Check, Options, beside_base
from labctl.verify.programs import CheckVerdict, Program
from labctl.verify.settings import Place
from labctl.verify.types import CheckStatus
from labctl.workloads.supply import NOTHING

SERIES = Path(__file__).parent.parent / "bisect/slow-exit"
WORKERS = ("one", "two")
NOTHING_TOLD = {"building": print, "waiting": print, "started": lambda *_: None}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with contextlib.ExitStack() as stack:
        cluster = Cluster(tmp_path_factory.mktemp("cluster"), stack)
        for name in (*WORKERS, "doomed"):
            cluster.start(name)
        cluster.wait_for(*WORKERS, "doomed")
        yield cluster


def prepared(lab, folder):
    archive = folder / "initramfs.cpio"
    archive.write_bytes(b"archive")
    return Prepared(
        lab=lab,
        host=Host(
            id="here", cpu_model="c", cores=2, memory_bytes=1, kernel="6.1", qemu="9", boot_id="b"
        ),
        accel="tcg",
        images={name: image(name, f"of {name}", f"series of {name}") for name in lab.kernels},
        initramfs=Initramfs(archive, hashlib.sha256(b"archive").hexdigest(), folder),
    )


def lab_in(folder, **changes):
    (folder / "lab.yaml").write_text("version: 1\n")
    own = {"path": folder / "lab.yaml", "root": folder, "state": folder / ".labctl"}
    return synthetic.lab(repetitions=1, **changes).model_copy(update=own)


# `labctl verify`


def todo(folder, programs, **options):
    """Return the checks of `stock` and `patched`, in two variants and at two settings."""
    variants = (Variant(name="poison"), Variant(name="debug"))
    verify = Verify(matrix={"max_active": (1, 32)}, variants=variants)
    lab = lab_in(folder).model_copy(update={"verify": verify})
    every = frozenset(Place)
    selected = [Program("integrity", name, ("integrity", name), 5.0, every) for name in programs]
    return [
        Todo(
            kernel=lab.kernels[name],
            variant=variant,
            programs=selected,
            options=Options(only=("integrity/*",), **options),
            prepared=prepared(lab, folder),
        )
        for name in ("stock", "patched")
        for variant in variants
    ]


def locally(one, monkeypatch):
    """Return the document of checks that run in this process."""
    monkeypatch.setattr(memory, "_SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(
        run, "booter", lambda _prepared, _kernel, place: checked_guest.booter(place)
    )
    return shown(one, run._here(one, lambda *_: None))


def shown(todo, spread):
    """Return the document of checks, without times and workers; and the workers of the checks."""
    lab = todo[0].prepared.lab
    by_variant = {one.variant.name: one.prepared for one in todo}
    beside = {name: beside_base(own, ()) for name, own in spread.checks.items()}
    found = msgspec.to_builtins(run.Verified(lab, by_variant, beside, spread.hosts).document())
    hosts = found.pop("hosts", {})
    checks = [check for kernel in found["kernels"].values() for check in kernel["checks"]]
    workers = [check.pop("host", None) for check in checks]
    assert set(workers) <= set(hosts or {None})  # a host that dies may have none
    for check in checks:
        check["seconds"] = 0
    return found


@pytest.mark.parametrize("stop_at_first", [False, True])
def test_checks_on_workers_give_the_local_document(cluster, tmp_path, monkeypatch, stop_at_first):
    here = todo(tmp_path, ["good", "bad", "late", "splat"], stop_at_first=stop_at_first)
    warnings, seen = [], []
    with engine.opened(cluster.address, warning=warnings.append) as one:
        assert one.choose("auto") == "tcg"
        found = one.check(here, lambda *event: seen.append(event))
    far = shown(here, found)
    assert far == locally(here, monkeypatch)
    assert not far["passed"]
    assert warnings == []
    if not stop_at_first:
        assert {name for name, *_ in seen} <= {
            f"{host}: {kernel}" for host in (*WORKERS, "doomed") for kernel in ("stock", "patched")
        }
        title = "debug: integrity/late max_active=32"
        verdicts = [verdict for _, check, verdict in seen if check == title and verdict]
        assert [(one.status, one.why) for one in verdicts] == [
            (CheckStatus.FAILED, "exited with status 1")
        ]
        logs = sorted((tmp_path / ".labctl/verify/patched/debug").rglob("console.log"))
        assert [log.read_text() for log in logs] == ["[    1.0] last words\n"] * len(logs)
        assert logs


def test_the_checks_of_a_worker_that_dies_run_on_another(cluster, tmp_path, monkeypatch):
    here = todo(tmp_path, ["good", "late"])
    warnings = []

    def killed(worker, _check, _verdict):
        if worker.startswith("doomed") and "doomed" in cluster.workers:
            cluster.end("doomed")

    with engine.opened(cluster.address, warning=warnings.append) as one:
        one.patience_seconds = one.hosts.patience_seconds = 10.0
        found = one.check(here, killed)
    assert shown(here, found) == locally(here, monkeypatch)
    assert len(warnings) <= 1
    for warning in warnings:
        assert warning.startswith("worker doomed: ")
        assert "; checks of " in warning
        assert warning.endswith(" goes to another worker")


def job_of(folder, **options):
    return CheckJob.of(todo(folder, ["good"], **options), lambda *_: None, Losses(RESUME))


REPORT = HostReport(
    protocol=0, version="", name="one", machine="", facts={"id": "id-one"}, why_not_kvm=""
)


def checks_of(group, status=CheckStatus.PASSED, **changes):
    own = {"variant": group.todo.variant.name, "name": "integrity/good"}
    own |= {"setting": group.point.setting, "verdict": CheckVerdict(status), "seconds": 1.0}
    return CheckResult(checks=(Check(**own | changes),))


def test_a_failure_ends_the_checks_of_its_kernel_only(tmp_path):
    job = job_of(tmp_path, stop_at_first=True)
    taken = [job.take() for _ in job.groups]
    assert job.take() is None
    patched = [one for one in taken if one.todo.kernel.name == "patched"]
    for group in taken:
        is_bad = group in (patched[1], patched[3])
        status = CheckStatus.FAILED if is_bad else CheckStatus.PASSED
        assert not job.is_complete
        job.keep(group, checks_of(group, status), REPORT)
        if group is patched[1]:
            break
    assert job.is_complete, "what other workers still run does not count"
    late = checks_of(patched[3], CheckStatus.FAILED)
    job.keep(patched[3], late, REPORT)
    found = job.spread().checks
    assert [len(found[name]) for name in ("stock", "patched")] == [2, 2]


@pytest.mark.parametrize(
    "changes", [{"variant": "other"}, {"name": "integrity/bad"}, {"setting": {"thp": "never"}}]
)
def test_a_check_that_was_not_asked_for_is_not_kept(tmp_path, changes):
    job = job_of(tmp_path)
    group = job.take()
    with pytest.raises(BadOutput, match="check of another group"):
        job.keep(group, checks_of(group, **changes), REPORT)
    assert not job.is_complete


def test_checks_that_end_their_workers_end_the_command(tmp_path):
    job = job_of(tmp_path)
    group = job.take()
    job.lose(group)
    assert job.take() is group
    job.lose(group)
    message = "3 workers died while they ran the checks of stock poison"
    with pytest.raises(HostError, match=message) as caught:
        job.lose(group)
    assert caught.value.hint.startswith("check the memory of their hosts")


# `labctl nightly` and `labctl bisect`


def events(folder, seen):
    def ready(lab, plans):
        return Ready(prepared(lab, folder), None, {"free": NOTHING})

    return Events(**NOTHING_TOLD, measuring=seen.append, preparing=ready)


def test_a_nightly_run_has_blocks_of_all_hosts(cluster, tmp_path):
    lab, seen = lab_in(tmp_path, blocks=7), []
    with engine.opened(cluster.address, warning=print) as one:
        one.choose("auto")
        size = one.size

        def night(day):
            Nightly(
                lab=lab,
                experiments=["e"],
                budget_seconds=1e6,
                history=tmp_path / "history",
                open_run=opener(events(tmp_path, seen), one),
                image_of=lambda _: None,
                at_once=lambda: one.size,
                now=lambda: datetime(2026, 1, day, tzinfo=UTC),
            ).run()

        night(1)
        night(2)
    nights = [one for one in history.read(tmp_path / "history") if one.kind == "night"]
    for record in nights:
        samples = RunFolder(lab.state / "runs" / record.run).store.samples()
        hosts = sorted({sample.host for sample in samples})
        (cell,) = record.cells
        assert cell.setup["host"] == ", ".join(hosts)
        assert cell.setup["QEMU"] == "9"
        assert record.hosts.keys() >= set(hosts)
    assert len({progress.host for progress in seen}) > 1
    # As many blocks more, each time, as there are hosts.
    assert {one.blocks_max for one in seen} == {min(n, 7) for n in range(size, 7 + size, size)}
    assert document(nights).hosts == nights[-1].hosts


def test_bisection_on_workers_finds_the_step(cluster, tmp_path):
    lab, seen = lab_in(tmp_path), []
    kernel = lab.kernels["patched"].model_copy(update={"series": SERIES})
    lab = lab.model_copy(update={"kernels": {**lab.kernels, "patched": kernel}})
    answer = begin(patches_of(lab, "patched"), good=0, bad=None, risk=0.05, what="e")
    with engine.opened(cluster.address, warning=print) as one:
        one.choose("auto")
        Bisect(
            lab=lab,
            experiment="e",
            setting={},
            answer=answer,
            open_run=opener(events(tmp_path, seen), one),
            at_once=lambda: one.size,
        ).run()
    assert answer.step == synthetic.GUILTY
    assert len({progress.host for progress in seen}) > 1


@pytest.mark.parametrize("command", ["verify", "nightly", "bisect"])
def test_a_scheduler_that_is_not_there_is_reported(tmp_path, monkeypatch, command):
    lab = Path(__file__).parent.parent.parent / "lab.yaml"
    words = {"bisect": ["parallel-free", "exit"], "nightly": ["exit"], "verify": []}[command]
    state = tmp_path / "state"
    monkeypatch.setattr("labctl.host.state.used", lambda _: contextlib.nullcontext())
    address = ["--scheduler", "tcp://10.0.0.1:8786", "--lab", str(lab)]
    done = CliRunner().invoke(labctl, [command, *address, *words])
    assert "scheduler tcp://10.0.0.1:8786 has no TLS" in done.exception.what, done.output
    assert not state.exists()

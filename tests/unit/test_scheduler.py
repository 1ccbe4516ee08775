"""Blocks on the workers of a real scheduler, with synthetic guests."""

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading

import dask
import pytest
from click.testing import CliRunner
from scheduler_cluster import Cluster, Run
from synthetic import World

from labctl.cli import labctl
from labctl.errors import BadOutput, HostError, UserError
from labctl.host import lock
from labctl.scheduler import client, engine
from labctl.scheduler.job import Job
from labctl.stats.compare import compare


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with contextlib.ExitStack() as stack:
        yield Cluster(tmp_path_factory.mktemp("cluster"), stack, "tls")


@pytest.fixture
def no_workers(cluster):
    yield
    cluster.end()


def verdicts(samples):
    own = [sample for sample in samples if not sample.warmup]
    found = compare(own, baseline="stock", confidence=0.95, minimum_effect=0.02)
    return [(cell.label, cell.verdict) for cell in found.cells]


def keys(samples):
    return sorted(sample.key for sample in samples)


def hosts(samples):
    """Return the hosts of each block."""
    found = {}
    for one in samples:
        found.setdefault(one.block, set()).add((one.host, one.host_name))
    return found


def test_workers_with_faults_measure_what_a_local_run_does(cluster, tmp_path, no_workers):
    names = ("one", "two", "slow", "stopped")
    file = tmp_path / "bzImage"
    file.write_bytes(bytes(range(256)) * 20)
    for name in names:
        cluster.start(name, *(["slow"] if name == "slow" else []))
    cluster.start("wrong", "damages")
    cluster.wait_for(*names, "wrong")
    run = Run(tmp_path / "far", blocks=12, wait=0.06, files=[file])
    stopped, killed = cluster.workers["stopped"], cluster.workers["two"]

    def fail(progress):
        if progress.host == "stopped" and progress.repetition > 2:
            stopped.send_signal(signal.SIGSTOP)
        if progress.host == "two" and progress.repetition > 4:
            killed.kill()

    run.on_progress = fail
    samples = run.on(cluster, patience_seconds=4.0)
    local = Run(tmp_path / "near", blocks=12).locally()
    assert keys(samples) == keys(local)
    assert verdicts(samples) == verdicts(local)
    assert [s.order for s in samples if s.block == 3] == list(range(9))
    measured = hosts(samples)
    assert all(len(found) == 1 for found in measured.values()), "a block is on one host"
    assert {("id-one", "one"), ("id-slow", "slow")} <= set.union(*measured.values())
    warned = "\n".join(run.warnings)
    assert "worker wrong is not used: bzImage arrived damaged: expected SHA-256 " in warned
    assert "worker stopped: sent nothing for 4 s; block" in warned
    assert re.search(r"worker two: (left the scheduler|its result did not arrive); block", warned)
    # Once a host: every worker has the file by its hash, the wrong one has none.
    (digest,) = [one.sha256 for one in run.setup.files.values()]
    assert (cluster.folder / "one" / "files" / digest).read_bytes() == file.read_bytes()
    assert not list((cluster.folder / "wrong" / "files").iterdir())
    # What the stopped worker does when it continues changes nothing.
    before = run.folder.store.path.read_bytes()
    stopped.send_signal(signal.SIGCONT)
    assert run.on(cluster) == samples
    assert run.folder.store.path.read_bytes() == before


def test_a_run_goes_on_locally_and_with_a_scheduler(cluster, tmp_path, no_workers):
    cluster.start("one")
    cluster.wait_for("one")
    run = Run(tmp_path / "run", blocks=6)
    world = World(3)

    def stop(guest):
        if guest.block == 1 and guest.group.control:
            raise KeyboardInterrupt

    world.on_run = stop
    with pytest.raises(KeyboardInterrupt):
        run.runner("local", world.boot, clock=world.clock, load=world.load).run()
    begun = run.samples()

    class Stop(Exception):
        pass

    def interrupt(progress):
        if progress.block == 3:
            raise Stop

    run.on_progress = interrupt
    with pytest.raises(Stop):
        run.on(cluster)
    run.on_progress = lambda progress: None
    assert run.samples()[: len(begun)] == begun
    samples = run.locally()
    assert len(keys(samples)) == len(set(keys(samples)))
    assert hosts(samples) == {
        0: {("local", "")},
        1: {("local", "")},
        2: {("id-one", "one")},
        **{number: {("local", "")} for number in range(3, 6)},
    }
    assert {len([s for s in samples if s.block == n and not s.warmup]) for n in range(6)} == {6}


def test_a_host_is_not_measured_twice_at_a_time(cluster, tmp_path, no_workers):
    cluster.start("one")
    cluster.wait_for("one")
    runs = [Run(tmp_path / name, blocks=3, wait=0.03) for name in "ab"]
    threads = [threading.Thread(target=run.on, args=(cluster,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times = []
    for run in runs:
        for block in range(3):
            own = sorted(s.started_at for s in run.samples() if s.block == block)
            times.append((own[0], own[-1]))
    times.sort()
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(times))


def test_a_block_that_ends_its_workers_ends_the_run(tmp_path):
    run = Run(tmp_path / "run", blocks=4)
    job = Job(run.runner(), run.folder)
    first = job.take()
    assert (first.number, job.take().number) == (0, 1)
    for _ in range(2):
        job.lose(first)
        assert job.take() is first
    with pytest.raises(HostError, match="3 workers died while they measured block 1 of experim"):
        job.lose(first)


@pytest.mark.parametrize(
    "path", ["console.log", "guests/../console.log", "/etc/passwd", "guests/a/b/console.log",
             "guests/a/run.json", "guests//console.log", "../guests/a/console.log"],
)  # fmt: skip
def test_a_log_of_a_worker_stays_in_the_folder_of_its_guest(tmp_path, path):
    run = Run(tmp_path / "run")
    job = Job(run.runner(), run.folder)
    job.keep_logs({"guests/e-000-stock+aa/console.log": b"[ 0.1] panic"})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadOutput, match="unexpected path of a log"):
        job.keep_logs({path: b"x"})
    assert sorted(tmp_path.rglob("*")) == before


def test_a_block_goes_to_another_host_if_one_stays_busy(cluster, tmp_path, no_workers):
    cluster.start("busy", "impatient")
    cluster.start("free")
    cluster.wait_for("busy", "free")
    run = Run(tmp_path / "run", blocks=4)
    holder = f"process {os.getpid()}: run of another"
    with lock.measuring("run of another", waiting=print, folder=cluster.folder / "busy"):
        samples = run.on(cluster)
    assert {one.host_name for one in samples} == {"free"}
    assert keys(samples) == keys(Run(tmp_path / "near", blocks=4).locally())
    waiting = f"waiting: another measurement runs on its host ({holder})"
    assert run.warnings == [f"worker busy: {waiting}"]


def test_a_worker_with_another_accelerator_is_refused_by_name(cluster, tmp_path, no_workers):
    cluster.start("slower")
    cluster.start("faster", "kvm")
    cluster.wait_for("slower", "faster")
    run = Run(tmp_path / "run", blocks=3, accel="kvm")
    samples = run.on(cluster)
    assert {s.host_name for s in samples} == {"faster"}
    assert {s.accel for s in samples} == {"kvm"}
    why = "this run measures with KVM, and there /dev/kvm does not exist"
    assert run.warnings == [f"worker slower is not used: {why}"]
    cluster.end("faster")
    again = Run(tmp_path / "again", blocks=3, accel="kvm")
    with engine.opened(str(cluster.file), warning=print) as one:
        one.choose("kvm")
        with pytest.raises(HostError, match=f"no worker can measure:\n  slower: {why}"):
            one.measure(again.runner(), again.setup, again.folder)
    assert again.samples() == []


def test_workers_are_listed_with_what_they_do(cluster, tmp_path, no_workers, monkeypatch):
    monkeypatch.setattr(client, "_ANSWER_SECONDS", 4.0)
    cluster.start("one")
    cluster.start("two")
    cluster.wait_for("one", "two")
    run = Run(tmp_path / "run", blocks=6)
    run.on(cluster)
    cluster.workers["two"].send_signal(signal.SIGSTOP)
    words = ["workers", "--scheduler", str(cluster.file)]
    done = CliRunner().invoke(labctl, [*words, "--json"], catch_exceptions=False)
    found = {one["name"]: one for one in json.loads(done.stdout)["workers"]}
    blocks = sum(found == {("id-one", "one")} for found in hosts(run.samples()).values())
    assert found["one"]["blocks"] == blocks
    assert found["one"]["doing"] == "idle"
    assert found["one"]["doctor"] == "warn"
    assert found["one"]["aa_ratio"] == pytest.approx(1.0, abs=0.2)
    assert found["two"]["doing"] == "no response"
    text = CliRunner().invoke(labctl, words, catch_exceptions=False).stdout
    assert [line.split()[0] for line in text.splitlines()[2:]] == list(found)


def test_a_worker_is_one_command(cluster, tmp_path, no_workers):
    one = cluster.work("real")
    cluster.wait_for("real")
    other = CliRunner().invoke(labctl, ["workers", "--scheduler", cluster.address])
    assert other.stdout.splitlines()[2].split()[:2] == ["real", "idle"], other.output
    one.send_signal(signal.SIGTERM)
    assert one.wait(60) == 128 + signal.SIGTERM
    left = CliRunner().invoke(labctl, ["workers", "--scheduler", cluster.address])
    assert left.stdout == f"no workers at {cluster.address}\n"


def test_a_client_without_certificates_is_refused(cluster):
    assert cluster.address.startswith("tls://127.0.0.1:")
    with dask.config.set({"distributed.comm.tls.ca-file": None}):
        done = CliRunner().invoke(labctl, ["workers", "--scheduler", cluster.address])
    assert isinstance(done.exception, UserError)
    assert done.exception.what == f"no certificates for {cluster.address}"
    plain = cluster.address.replace("tls:", "tcp:")
    done = CliRunner().invoke(labctl, ["workers", "--scheduler", plain])
    assert isinstance(done.exception, HostError)
    assert done.exception.what.startswith(f"cannot connect to the scheduler at {plain}: ")


def test_a_local_run_does_not_import_distributed():
    script = (
        "import sys; from labctl.cli import runs; from labctl.experiments import session;"
        "print({'dask', 'distributed', 'labctl.scheduler'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr

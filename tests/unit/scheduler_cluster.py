"""A scheduler on loopback with workers whose guests are synthetic, and runs on it."""

import contextlib
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import dask
from distributed.security import Security
from synthetic import FACTS, World, lab

from labctl import files
from labctl.experiments.description import Facts
from labctl.experiments.plan import plan
from labctl.experiments.runner import Runner
from labctl.kernels.images import Image
from labctl.runs.folder import RunFolder
from labctl.runs.store import Store
from labctl.scheduler import engine
from labctl.scheduler.task import Setup, Shipped

HERE = Path(__file__).parent
# Each process imports distributed, which takes long on a busy host.
START_SECONDS = 200.0


def wait_until(is_true, what):
    deadline = time.monotonic() + START_SECONDS
    while not is_true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@contextlib.contextmanager
def process(*words, log, start=()):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((*sys.path, str(HERE)))}
    with log.open("w") as file:
        one = subprocess.Popen(
            [*start, sys.executable, *map(str, words)], env=environment, stdout=file, stderr=file
        )
    try:
        yield one
    finally:
        one.kill()
        one.wait(60)


def with_certificates(folder, stack):
    """Use a certificate that is its own authority, in this process and in those it starts."""
    made = Security.temporary()
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_text(made.tls_ca_file)
    key.write_text(made.tls_client_key)
    tls = {"ca-file": str(cert)}
    for role in ("scheduler", "worker", "client"):
        tls |= {f"{role}.cert": str(cert), f"{role}.key": str(key)}
    settings = {f"distributed.comm.tls.{name}": value for name, value in tls.items()}
    stack.enter_context(dask.config.set(settings))
    for name, value in settings.items():
        variable = "DASK_" + name.upper().replace(".", "__").replace("-", "_")
        os.environ[variable] = value
        stack.callback(os.environ.pop, variable)


class Cluster:
    """A scheduler on loopback; `workers` has a process for each name."""

    def __init__(self, folder, stack, protocol="tcp", listens="127.0.0.1"):
        self.folder, self.stack, self.workers = folder, stack, {}
        self.file = folder / "scheduler.json"
        if protocol == "tls":
            with_certificates(folder, stack)
        words = ("-m", "distributed.cli.dask_scheduler", "--host", listens, "--port", 0)
        words = (*words, "--protocol", protocol)
        more = ("--no-dashboard", "--scheduler-file", self.file)
        self.scheduler = stack.enter_context(process(*words, *more, log=folder / "scheduler.log"))
        # The scheduler writes its file in place.
        wait_until(lambda: files.read_json(self.file), (folder / "scheduler.log").read_text)
        self.address = files.read_json(self.file)["address"]

    def start(self, name, *how, place=None):
        """Start a worker; `how` is that of synthetic_worker.py.

        With a `place`, it runs there, and the scheduler has another address for it.
        """
        own = self.folder / name
        own.mkdir(exist_ok=True)
        address, start = (self.address, ()) if place is None else (place.address, place.start)
        words = (HERE / "synthetic_worker.py", address, name, own, *how)
        one = process(*words, log=own / "log", start=start)
        self.workers[name] = self.stack.enter_context(one)

    def work(self, name):
        """Start `labctl worker`; return its process."""
        own = self.folder / name
        own.mkdir(exist_ok=True)
        words = ("-m", "labctl", "worker", "--scheduler", self.file, "--name", name)
        one = self.stack.enter_context(process(*words, "--folder", own, log=own / "log"))
        self.workers[name] = one
        return one

    def wait_for(self, *names):
        with engine.opened(self.address, warning=print) as found:

            def are_there():
                return {one.name for one in found.connection.workers()} >= set(names)

            wait_until(are_there, [(self.folder / name / "log").read_text() for name in names])

    def end(self, *names):
        for name in names or list(self.workers):
            one = self.workers.pop(name)
            one.kill()
            one.wait(60)


def image(kernel, digest, series):
    return Image(
        kernel=kernel, bzimage=Path("bzImage"), hash=digest, source_hash="", series_hash=series,
        patch_hashes=(), config=None, release="6.1", compiler="",
    )  # fmt: skip


class Run:
    """A run of the synthetic lab in a folder, which a scheduler or this process measures."""

    def __init__(self, path, blocks=8, wait=0.01, files=(), accel="tcg", matrix=None):
        path.mkdir(exist_ok=True)
        self.folder = RunFolder(path)
        one = lab(blocks=blocks, matrix=matrix)
        free = one.workloads["free"]
        free = free.model_copy(update={"parameters": {**free.parameters, "wait": str(wait)}})
        self.lab = one.model_copy(update={"workloads": {"free": free}})
        self.warnings, self.seen, self.accel = [], [], accel
        self.on_progress = lambda progress: None
        shipped = {}
        for file in files:
            shipped[str(file)] = Shipped(file, hashlib.sha256(file.read_bytes()).hexdigest())
        self.setup = Setup(
            run="r",
            lab=self.lab,
            experiment="e",
            seed=7,
            accel=accel,
            images={name: image(name, *found) for name, found in FACTS.images.items()},
            files=shipped,
        )

    def runner(self, host="", boot=None, **more):
        facts = Facts(run="r", host=host, accel=self.accel, images=FACTS.images)
        return Runner(
            lab=self.lab, plan=plan(self.lab, "e", 7), store=self.folder.store, boot=boot,
            facts=facts, progress=self.progress, **more,
        )  # fmt: skip

    def progress(self, progress):
        self.seen.append(progress)
        self.on_progress(progress)

    def on(self, cluster, patience_seconds=60.0):
        with engine.opened(cluster.address, warning=self.warnings.append) as one:
            one.patience_seconds = one.hosts.patience_seconds = patience_seconds
            assert one.choose("auto") == self.accel
            one.measure(self.runner(), self.setup, self.folder)
        return self.samples()

    def locally(self, world=None):
        world = world or World(3)
        self.runner("local", world.boot, clock=world.clock, load=world.load).run()
        return self.samples()

    def samples(self):
        return Store(self.folder.path).samples()

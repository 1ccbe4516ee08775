"""Time and memory over the number of blocks, for a run on a thousand simulated hosts.

    python bench/scale.py [--blocks N...]

Plans, schedules, stores, compares and renders runs of 1000, 10 000 and 100 000 blocks, each in a
process of its own: the planner, the rule that gives blocks to hosts, the store, the statistics and
the report are those of a real run, guests are synthetic. Prints the time of each stage and the
memory, and the exponent of both by a fit: 1 is linear. Takes about 4 minutes, and 1 GiB in
/dev/shm. The last size is more than lab.yaml allows one experiment. Goal: at most 1.1.
"""

import argparse
import heapq
import json
import math
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from figure import Figure, report

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "unit"))

import synthetic  # noqa: E402

import labctl  # noqa: E402
from labctl.experiments.description import description  # noqa: E402
from labctl.experiments.plan import plan  # noqa: E402
from labctl.experiments.runner import Runner  # noqa: E402
from labctl.reports.report import report_of  # noqa: E402
from labctl.runs.folder import RunFolder  # noqa: E402
from labctl.runs.sample import Sample, sealed  # noqa: E402
from labctl.runs.store import Store  # noqa: E402
from labctl.scheduler.job import Job  # noqa: E402
from labctl.scheduler.task import PROTOCOL, BlockResult, HostReport  # noqa: E402
from labctl.stats.kinds import Verdict  # noqa: E402

BLOCKS = (10**3, 10**4, 10**5)
HOSTS = 1000
MOST = 1.1
RUN = "20260101-000000-0000"
STAGES = ("plan", "schedule and store", "compare and render")
_FOLDER = Path("/dev/shm")  # its fsync takes no time: the disk is not what is measured


@dataclass
class Host:
    """A simulated hypervisor: its speed, and what a kernel gains on it."""

    number: int
    speed: float
    gain: float
    report: HostReport = field(init=False)

    def __post_init__(self):
        facts = {"id": f"id-{self.number:04}", "boot_id": f"boot-{self.number}", "cores": 2}
        self.report = HostReport(
            protocol=PROTOCOL,
            version=labctl.__version__,
            name=f"host{self.number:04}",
            machine="x86_64",
            facts=facts,
            why_not_kvm="",
        )


def results(runner, block, host, draw):
    """Return the samples of a block as a worker sends them, and the seconds that it took."""
    facts = replace(runner.facts, host=host.report.id, host_name=host.report.name)
    each = runner.plan.block(block.number, block.ended, block.repetitions)
    boots = {cell.id: draw.gauss(0, 0.02) for cell in runner.plan.cells}
    lines, seconds = [], 20.0
    for order, one in enumerate(each):
        fields = description(runner.lab, runner.plan, facts, block.number, order, one)
        log = boots[one.cell.id] + draw.gauss(0, 0.04) + host.speed
        log -= host.gain if one.cell.kernel == "patched" else 0.0
        seconds += math.exp(log)
        boot = f"{one.cell.id} {block.number}"
        lines.append(sealed(Sample(**fields, boot_id=boot, status="ok", value=math.exp(log))))
    return BlockResult(lines=tuple(lines)), seconds


def measure(job, hosts, draw):
    """Give blocks to the hosts that are free until the run is complete, in simulated time."""
    free = [(0.0, host.number) for host in hosts]
    busy = []
    while True:
        if free and (block := job.take()) is not None:
            now, number = heapq.heappop(free)
            assert not job.failures_before(block.number)
            assert job.baseline_is_good or not job.samples
            result, seconds = results(job.runner, block, hosts[number], draw)
            heapq.heappush(busy, (now + seconds, number, block, result))
        elif busy:
            now, number, block, result = heapq.heappop(busy)
            job.keep(block, result, hosts[number].report)
            heapq.heappush(free, (now, number))
        else:
            return


def record_of(hosts):
    """Return run.json."""
    experiment = {
        "name": "e", "workload": "free", "metric": "elapsed", "set": {}, "baseline": "stock",
        "better": "lower", "confidence": 0.95, "minimum_effect": 0.02,
    }  # fmt: skip
    return {
        "schema": 1, "run": RUN, "accel": "tcg", "seed": 1, "finished": True, "host": {},
        "hosts": {host.report.id: {"cores": 2, "id": host.report.id} for host in hosts},
        "kernels": {}, "experiments": [experiment],
    }  # fmt: skip


def of_size(planned, blocks):
    """Return a plan with a fixed number of blocks, also above the limit of lab.yaml."""
    fixed = planned.statistics.blocks.model_copy(update={"min": blocks, "max": blocks})
    return replace(planned, statistics=planned.statistics.model_copy(update={"blocks": fixed}))


def one_size(blocks, folder):
    """Return the CPU seconds of each stage, and the memory beyond that of an empty run in MiB."""
    lab = synthetic.lab(repetitions=1)
    draw = random.Random(1)
    hosts = [Host(n, draw.gauss(0, 0.5), 0.3 + draw.gauss(0, 0.03)) for n in range(HOSTS)]
    run = RunFolder(folder / RUN)
    run.path.mkdir()
    empty = peak_mib()
    clock = [time.process_time()]
    planned = of_size(plan(lab, "e", 1), blocks)
    for number in range(blocks):
        planned.block(number)
    clock.append(time.process_time())
    runner = Runner(
        lab=lab,
        plan=planned,
        store=Store(run.path),
        boot=None,
        facts=replace(synthetic.FACTS, host=""),
    )
    job = Job(runner, run)
    measure(job, hosts, draw)
    assert job.is_complete
    del job, runner
    clock.append(time.process_time())
    run.write(record_of(hosts))
    document, text = report_of(folder, RUN, "terminal")
    clock.append(time.process_time())
    (experiment,) = document.experiments
    assert experiment.blocks == blocks
    assert experiment.cells[1].verdict is Verdict.FASTER, text
    seconds = [after - before for before, after in pairwise(clock)]
    return {"seconds": seconds, "mib": peak_mib() - empty}


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def exponent(sizes, values):
    """Return the slope of the logs: that of a straight line by least squares."""
    logs = [[math.log(one) for one in each] for each in (sizes, values)]
    return statistics.linear_regression(*logs).slope


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--blocks", type=int, nargs="+", default=list(BLOCKS))
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = arguments.blocks
    if arguments.one:
        place = _FOLDER if _FOLDER.is_dir() else None
        with tempfile.TemporaryDirectory(dir=place) as folder:
            print(json.dumps(one_size(sizes[0], Path(folder))))
        return 0
    found = []
    for blocks in sizes:
        argv = [sys.executable, __file__, "--one", "--blocks", str(blocks)]
        text = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout
        found.append(json.loads(text))
        each = ", ".join(
            f"{stage} {seconds:.2f} s"
            for stage, seconds in zip(STAGES, found[-1]["seconds"], strict=True)
        )
        print(f"{blocks} blocks on {HOSTS} hosts: {each}; {found[-1]['mib']:.0f} MiB", flush=True)
    if len(sizes) < 2:
        return 0
    span = f"{sizes[0]} to {sizes[-1]} blocks"
    kept = []
    for number, stage in enumerate(STAGES):
        seconds = [one["seconds"][number] for one in found]
        shown = f"{', '.join(f'{one:.3g}' for one in seconds)} s, {span}"
        name = f"exponent of the time to {stage}"
        figure = Figure(name=name, value=exponent(sizes, seconds), goal=MOST, spread=shown)
        kept.append(report(figure))
    mib = [one["mib"] for one in found]
    shown = f"{', '.join(f'{one:.0f}' for one in mib)} MiB, {span}"
    name = f"exponent of the memory of a run on {HOSTS} hosts"
    kept.append(report(Figure(name=name, value=exponent(sizes, mib), goal=MOST, spread=shown)))
    return int(False in kept)


if __name__ == "__main__":
    sys.exit(main())

"""A synthetic run that needs every part of a page, and one whose names are hostile."""

import math
import random
from datetime import UTC, datetime, timedelta

import profiles
from golden_runs import IDLE
from records import report_of
from samples import replace, sample

from labctl.reports import html
from labctl.reports.consoles import Consoles
from labctl.stats.compare import compare

RUN = "20261124-015501-3fa2"
HOSTILE = """</script><script>alert(1)</script><img src=x onerror=alert(2)>"'&$\\foo$<b>"""
LOG = "guests/exit-002-parallel-free/console.log"
HOST = {
    "schema": 1, "created_at": "2026-11-24T01:55:01+00:00", "seed": 42, "accel": "tcg",
    "host": {"cores": 2, "cpu_model": "Xeon E5", "qemu": "7.2.19"},
    "kernels": {"stock": {"image": "ab" * 32, "series": None}},
}  # fmt: skip
PROFILES = (profiles.stacks, profiles.functions)
FAILED = "Kernel panic - not syncing: Fatal exception"


def matrix(name="matrix", *, kernel="parallel-free", blocks=6):
    """Return samples of two tunables; cells are faster and slower, block 5 is under load."""
    draw = random.Random(7)
    clock = datetime(2026, 11, 24, 1, 55, 1, tzinfo=UTC)
    cells = [("stock", False, {}, 1.0), ("stock", True, {}, 1.0)]
    for active in (1, 2, 4, 8):
        for pages in (16384, 65536):
            gain = 0.8 + 0.25 * math.log2(active)
            cells.append((kernel, False, {"max_active": active, "batch_pages": pages}, gain))
    found = []
    for block in range(blocks):
        loud = block == 5
        order = draw.sample(range(len(cells)), len(cells))
        for place, index in enumerate(order):
            own, control, setting, gain = cells[index]
            words = [own + "+aa" * control, *(f"{k}={v}" for k, v in setting.items())]
            boot = math.exp(draw.gauss(0, 0.01)) / gain
            for repetition in range(2):
                clock += timedelta(seconds=20)
                busy = 2.05 + draw.random() / 10 + 1.5 * loud
                found.append(
                    sample(
                        run=RUN,
                        experiment=name,
                        kernel=own,
                        label=own + " (A/A)" * control,
                        control=control,
                        cell="/".join(words),
                        setting=setting,
                        block=block,
                        order=place,
                        repetition=repetition,
                        value=boot * math.exp(draw.gauss(0, 0.003)) * (1 + 0.3 * loud),
                        boot_id=f"{index} {block}",
                        started_at=clock.isoformat(),
                        load=IDLE | {"busy_seconds": busy, "steal_seconds": draw.random() / 20},
                        disturbed="other processes used 38 % of the CPU time" if loud else "",
                        measurements={"pages_per_node": [196608, 196000 + block, 196608, 196608]},
                    )
                )
    return found


def failing():
    """Return samples of another experiment: its kernel panics in two blocks."""
    return [
        replace(one, status="panic", value=None, message=f"{FAILED}\n[ 3.1] more", console=LOG)
        if one.kernel != "stock" and one.block in (2, 3)
        else one
        for one in matrix("exit")
        if one.setting in ({}, {"max_active": 8, "batch_pages": 65536})
    ]


def hostile():
    """Return both with hostile text in every name and message."""
    return [
        replace(
            one,
            kernel=one.kernel if one.kernel == "stock" else HOSTILE,
            label=one.label.replace("parallel-free", HOSTILE),
            cell=one.cell.replace("parallel-free", HOSTILE),
            setting={
                f"{name}{HOSTILE}": f"{value}{HOSTILE}" for name, value in one.setting.items()
            },
            disturbed=one.disturbed and HOSTILE,
            message=one.message and HOSTILE,
            console=one.console and HOSTILE,
            experiment=one.experiment + HOSTILE,
        )
        for one in [*matrix(blocks=6), *failing()]
    ]


def report(samples):
    """Return the document of samples."""
    names = dict.fromkeys(one.experiment for one in samples)
    rule = {"baseline": "stock", "confidence": 0.95, "minimum_effect": 0.02}
    results = [compare([s for s in samples if s.experiment == name], **rule) for name in names]
    return report_of(HOST | {"run": RUN, "finished": True}, results)


def page():
    """Return the page of a run with every part that a page can have."""
    samples = [*matrix(), *failing()]
    logs = Consoles({LOG: f"runs/{RUN}/{LOG}"}, {LOG: f"[    3.1] {FAILED}\n" * 40})
    observed = [profiles.found(each, experiment="matrix") for each in PROFILES]
    return html.render(
        report(samples), samples, lab="version: 1\n", consoles=logs, observed=observed
    )


def hostile_page():
    """Return a page with hostile text in every name, message and log."""
    samples = hostile()
    observed = [
        profiles.found(
            each,
            experiment=samples[0].experiment,
            kernel=HOSTILE,
            rename=lambda name: name.replace("lock", HOSTILE),
        )
        for each in PROFILES
    ]
    logs = Consoles({HOSTILE: f"runs/{HOSTILE}"}, {HOSTILE: HOSTILE})
    return html.render(
        report(samples),
        samples,
        lab=HOSTILE,
        guests={HOSTILE: HOSTILE},
        consoles=logs,
        observed=observed,
    )

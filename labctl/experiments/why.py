"""`labctl run --why`: measure once more with the observers that slow the kernel.

Each of them has a pass of its own, in kernels built with the options that it needs, so
that the run itself does not pay for it. A pass is a run in the folder of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from labctl.experiments.plan import Plan, plan
from labctl.guests import initramfs
from labctl.lab.models import Kernel, Lab
from labctl.observers import OBSERVERS
from labctl.observers.observer import Observer

DEFAULT = "functions"


@dataclass(frozen=True, slots=True)
class Pass:
    """A lab whose kernels have an observer's options, and the plans to measure in it."""

    observer: Observer
    lab: Lab
    plans: tuple[Plan, ...]


def passes(lab: Lab, names: Sequence[str], seed: int) -> list[Pass]:
    """Return the passes for some experiments, one for each observer.

    An experiment without observers that slow the kernel has the function profiler.
    """
    wanted: dict[str, list[str]] = {}
    for name in names:
        own = [one.name for one in lab.observers_of(name) if one.disturbs]
        for observer in own or [DEFAULT]:
            wanted.setdefault(observer, []).append(name)
    return [_pass(lab, OBSERVERS[name], of, seed) for name, of in wanted.items()]


def _pass(lab: Lab, observer: Observer, names: Sequence[str], seed: int) -> Pass:
    experiments = {
        name: one.model_copy(update={"observe": (observer.name,)}) if name in names else one
        for name, one in lab.experiments.items()
    }
    kernels = {name: _with_options(one, observer) for name, one in lab.kernels.items()}
    own = lab.model_copy(update={"experiments": experiments, "kernels": kernels})
    return Pass(observer, own, tuple(_plan(own, name, seed, observer) for name in names))


def _plan(lab: Lab, name: str, seed: int, observer: Observer) -> Plan:
    """Return the plan of a pass: the minimum of blocks, since it only compares counters."""
    found = plan(lab, name, seed)
    blocks = found.statistics.blocks.model_copy(update={"max": found.statistics.blocks.min})
    statistics = found.statistics.model_copy(update={"blocks": blocks})
    return replace(found, statistics=statistics, observers=(observer,))


def _with_options(kernel: Kernel, observer: Observer) -> Kernel:
    if kernel.source.startswith("image:"):
        return kernel  # its .config is checked
    fragment = initramfs.source_folder() / "kconfig" / observer.fragment
    fragments = tuple(dict.fromkeys([*kernel.kconfig, fragment]))
    return kernel.model_copy(update={"kconfig": fragments})

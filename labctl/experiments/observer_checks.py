"""Check kernels for the options that observers need, by their .config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from labctl.errors import Problem
from labctl.experiments.plan import Plan
from labctl.guests import initramfs
from labctl.lab.document import KeyPath
from labctl.lab.models import Experiment, Lab
from labctl.observers.observer import Observer


def problems_of(
    lab: Lab, plans: Iterable[Plan], kernel: str, config: Mapping[str, str]
) -> list[Problem]:
    """Return the observers that cannot observe a kernel, by its complete .config."""
    found: dict[str, Problem] = {}
    for each in plans:
        for one in each.observers if kernel in each.experiment.kernels else ():
            missing = one.missing(config)
            if missing and one.name not in found:
                what = f"kernel {kernel} has no {', '.join(missing)}, which {one.name} needs"
                key = _key(lab, each.experiment, one)
                found[one.name] = lab.problem(key, what, _hint(lab, kernel, one))
    return list(found.values())


def _key(lab: Lab, experiment: Experiment, observer: Observer) -> KeyPath:
    index = lab.observers_of(experiment).index(observer)
    place = ("defaults",) if experiment.observe is None else ("experiments", experiment.name)
    return (*place, "observe", index)


def _hint(lab: Lab, kernel: str, observer: Observer) -> str:
    is_built = lab.kernels[kernel].source.startswith("image:")
    if is_built or not observer.fragment:
        return "remove the observer, or use a kernel with this option"
    fragment = initramfs.source_folder() / "kconfig" / observer.fragment
    return f"add {fragment} to `kconfig:` of the kernel, or remove the observer"

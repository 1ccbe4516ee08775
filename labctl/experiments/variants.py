"""Derive labs that run the same experiment on other kernels. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from labctl.experiments.plan import Cell, Plan, plan
from labctl.lab.models import Kernel, Lab


def beside(
    lab: Lab,
    experiment: str,
    like: str,
    kernels: Mapping[str, Kernel],
    without: Collection[str] = (),
) -> Lab:
    """Return the lab with more kernels, on which `experiment` runs as on the kernel `like`.

    They have the tunables of `like`, except those in `without`. The first one is the
    baseline; `like` itself is in the experiment only if it is one of them.
    """
    names = tuple(kernels)
    having = tuple(name for name in names if name not in without)
    tunables = {
        name: one
        if one.kernels is None or like not in one.kernels
        else one.model_copy(update={"kernels": tuple(dict.fromkeys((*one.kernels, *having)))})
        for name, one in lab.tunables.items()
    }
    changed = lab.experiments[experiment].model_copy(
        update={"kernels": names, "baseline": names[0]}
    )
    return lab.model_copy(
        update={
            "kernels": {**lab.kernels, **kernels},
            "tunables": tunables,
            "experiments": {**lab.experiments, experiment: changed},
        }
    )


def plan_of(lab: Lab, experiment: str, seed: int, wanted: Callable[[Cell], bool]) -> Plan:
    """Return an experiment's plan with only the wanted cells."""
    whole = plan(lab, experiment, seed)
    return replace(whole, cells=tuple(cell for cell in whole.cells if wanted(cell)))


def with_settings(settings: Sequence[Mapping[str, object]]) -> Callable[[Cell], bool]:
    """Return a predicate for `plan_of`: whether a cell has one of the settings."""
    return lambda cell: any(dict(cell.setting) == dict(one) for one in settings)

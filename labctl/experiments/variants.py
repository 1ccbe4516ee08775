"""Derive labs that run the same experiment on other kernels. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from labctl.experiments.plan import Cell, Plan, plan
from labctl.lab.models import Kernel, Lab


def beside(
    lab: Lab,
    experiment: str,
    like: str,
    kernels: Mapping[str, Kernel],
    without: Mapping[str, str | None] | None = None,
) -> Lab:
    """Return the lab with more kernels, on which `experiment` runs as on the kernel `like`.

    They have the tunables of `like`, but those in `without` have the tunables of the kernel
    named there, None for none. The first one is the baseline; `like` itself is in the
    experiment only if it is one of them.
    """
    names = tuple(kernels)
    likes = dict.fromkeys(names, like) | dict(without or {})
    tunables = {
        name: one
        if one.kernels is None
        else one.model_copy(update={"kernels": _with_likes(one.kernels, likes)})
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


def _with_likes(having: Sequence[str], likes: Mapping[str, str | None]) -> tuple[str, ...]:
    more = [name for name, like in likes.items() if like in having]
    return tuple(dict.fromkeys((*having, *more)))


def plan_of(lab: Lab, experiment: str, seed: int, wanted: Callable[[Cell], bool]) -> Plan:
    """Return an experiment's plan with only the wanted cells."""
    whole = plan(lab, experiment, seed)
    return replace(whole, cells=tuple(cell for cell in whole.cells if wanted(cell)))


def with_settings(settings: Sequence[Mapping[str, object]]) -> Callable[[Cell], bool]:
    """Return a predicate for `plan_of`: whether a cell has one of the settings."""
    return lambda cell: any(dict(cell.setting) == dict(one) for one in settings)

"""The settings at which a kernel is checked: those of `verify:`, and its defaults. Pure.

Tunables with `kernels:` belong to a series. Without them set, the kernel is at its
defaults; tunables of all kernels, such as thp, are set in both cases.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from labctl.lab.models import Kernel, Lab
from labctl.units import Scalar

Setting = Mapping[str, Scalar]


class Place(StrEnum):
    """A kind of settings; it decides which programs run, and how large they are."""

    FIRST = "first"  # the first values of `verify:`
    NEXT = "next"  # other values of the series' tunables
    OTHER = "other"  # other values of the tunables of all kernels
    DEFAULTS = "defaults"
    OTHER_DEFAULTS = "other defaults"


@dataclass(frozen=True, slots=True)
class Point:
    """A setting at which a kernel is checked. The first of its places counts most."""

    setting: Setting
    places: tuple[Place, ...]


def points(lab: Lab, kernel: Kernel, *, quick: bool = False) -> list[Point]:
    """Return the points for a kernel, limited to tunables that it has.

    With the first values of the tunables of all kernels: each combination of the series'
    own tunables. With other values: the last combination. With each: the defaults. `quick`:
    the first combination and the first defaults only.
    """
    mine = {name for name, one in lab.tunables.items() if one.applies_to(kernel.name)}
    own = {name for name in mine if lab.tunables[name].kernels}
    general = _combinations(lab, mine - own)
    if not own & {*lab.verify.set, *lab.verify.matrix}:
        found = [
            Point(each, (Place.OTHER, Place.OTHER_DEFAULTS) if n else (Place.FIRST, Place.DEFAULTS))
            for n, each in enumerate(general)
        ]
        return found[:1] if quick else found
    found = list(_extremes(general, _combinations(lab, own)))
    found += [
        Point(each, (Place.OTHER_DEFAULTS if n else Place.DEFAULTS,))
        for n, each in enumerate(general)
    ]
    kept = {Place.FIRST, Place.DEFAULTS} if quick else set(Place)
    return [point for point in found if point.places[0] in kept]


def _combinations(lab: Lab, names: set[str]) -> list[Setting]:
    turned = [name for name in lab.verify.matrix if name in names]
    fixed = {name: value for name, value in lab.verify.set.items() if name in names}
    values = itertools.product(*(lab.verify.matrix[name] for name in turned))
    return [dict(zip(turned, each, strict=True)) | fixed for each in values]


def _extremes(general: list[Setting], own: list[Setting]) -> Iterator[Point]:
    for number, each in enumerate(own):
        yield Point({**each, **general[0]}, (Place.NEXT if number else Place.FIRST,))
    for other in general[1:]:
        yield Point({**own[-1], **other}, (Place.OTHER,))

"""Hosts in the document of `labctl report --json`, as frozen structs. Pure.

The order of the fields is the order of the JSON keys.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from labctl.lab.metrics import MetricKind
from labctl.stats.over_hosts import HostMean, Hosts
from labctl.stats.paired import exp

# A bound is null if it is not finite.
Bounds = tuple[float | None, float | None]


class UsedHost(msgspec.Struct, frozen=True, kw_only=True):
    """A host on which blocks of an experiment were measured."""

    id: Annotated[str, Meta(description="Id of the host.")]
    name: Annotated[str, Meta(description="Name of the host, unique in the experiment.")]
    blocks: Annotated[int, Meta(description="Blocks with a good value.")]


class HostEffect(msgspec.Struct, frozen=True, kw_only=True):
    """A cell compared with its baseline on one host."""

    host: Annotated[str, Meta(description="Id of the host.")]
    blocks: Annotated[int, Meta(description="Pairs of the host.")]
    ratio: Annotated[
        float | UnsetType, Meta(description="Ratio on this host; missing with scale difference.")
    ] = UNSET
    difference: Annotated[
        float | UnsetType,
        Meta(description="Difference on this host; only with scale difference."),
    ] = UNSET
    ci: Annotated[Bounds | None, Meta(description="Confidence interval; null with one block.")]
    differs: Annotated[
        bool,
        Meta(
            description="Whether the effect differs from that on the other hosts; of an A/A "
            "control, whether the baseline differs from itself on this host."
        ),
    ]


class BetweenHosts(msgspec.Struct, frozen=True, kw_only=True):
    """The effect on each host, and how much hosts differ."""

    hosts: Annotated[tuple[HostEffect, ...], Meta(description="The hosts with pairs.")]
    q: Annotated[
        float | None,
        Meta(description="Cochran's Q; null if every host has one block, or all are equal."),
    ]
    p: Annotated[
        float | None,
        Meta(description="p value of no difference between hosts, from Q as an F statistic."),
    ]
    i_squared: Annotated[
        float | None,
        Meta(
            description="Share of the variance of the hosts' means that is not explained by their "
            "blocks."
        ),
    ]
    tau: Annotated[
        float | None,
        Meta(
            description="Standard deviation between hosts: of log ratios, or in the unit of the "
            "values with scale difference."
        ),
    ]

    @property
    def differing(self) -> tuple[HostEffect, ...]:
        """The hosts whose effect differs."""
        return tuple(one for one in self.hosts if one.differs)


def between_hosts(found: Hosts, metric: MetricKind) -> BetweenHosts:
    """Return the document of hosts; `found` is on the scale of the metric."""
    return BetweenHosts(
        hosts=tuple(_effect(one, metric) for one in found.means),
        q=found.q,
        p=found.p,
        i_squared=found.i_squared,
        tau=found.tau,
    )


def _effect(one: HostMean, metric: MetricKind) -> HostEffect:
    half = one.half_width
    if not metric.is_difference:
        ci = None if half is None else (exp(one.mean - half), exp(one.mean + half))
        ratio = exp(one.mean)
        return HostEffect(host=one.host, blocks=one.blocks, ratio=ratio, ci=ci, differs=one.differs)
    mean = 0.0 + (one.mean if metric.better == "higher" else -one.mean)
    return HostEffect(
        host=one.host,
        blocks=one.blocks,
        difference=mean,
        ci=None if half is None else (0.0 + mean - half, 0.0 + mean + half),
        differs=one.differs,
    )

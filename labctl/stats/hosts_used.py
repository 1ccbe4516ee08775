"""The hosts on which the blocks of an experiment were measured. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from operator import attrgetter

from labctl.errors import UserError
from labctl.printable import printable
from labctl.runs.sample import Sample
from labctl.stats.host_types import UsedHost
from labctl.status import SampleStatus

_HOST_OF = attrgetter("host", "host_name")


def hosts_used(samples: Sequence[Sample]) -> tuple[UsedHost, ...]:
    """Return the hosts of the samples, by name; none if it is one without a name.

    Hosts of the same name, and without one, are called by name and id.

    Raises:
        UserError: a block has samples of several hosts, which cannot be paired.
    """
    known = sorted(set(map(_HOST_OF, samples)))
    if len({host for host, _ in known}) < 2 and not any(name for _, name in known):
        return ()
    of_block: dict[int, str] = {}
    good: dict[str, set[int]] = {}
    for sample in samples:
        host = of_block.setdefault(sample.block, sample.host)
        if host != sample.host:
            raise UserError(
                f"experiment {sample.experiment}: block {sample.block} has samples of several "
                f"hosts: {printable(host)} and {printable(sample.host)}",
                hint="remove the samples of one of the hosts: a block is measured on one host",
            )
        if sample.status == SampleStatus.OK and not sample.warmup:
            good.setdefault(host, set()).add(sample.block)
    names = dict(known)
    times = Counter(names.values())
    found = []
    for host, name in names.items():
        shown = name if times[name] == 1 else f"{name} {host}".strip()
        shown = printable(shown or host)
        found.append(UsedHost(id=host, name=shown, blocks=len(good.get(host, ()))))
    return tuple(sorted(found, key=lambda one: (one.name, one.id)))

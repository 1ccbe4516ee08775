"""The hosts of an experiment, and how its effects differ between them, in sentences. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from labctl.lab.metrics import MetricKind
from labctl.reports import words
from labctl.stats.host_types import BetweenHosts, HostEffect, UsedHost
from labctl.stats.report_types import Cell, Experiment, Report
from labctl.stats.verdict import strict
from labctl.units import counted

_MOST = 12  # hosts named in a line
_MANY = 100


def lines(experiment: Experiment) -> list[str]:
    """Return the hosts with their blocks, then what differs between them; none without hosts."""
    if not experiment.hosts:
        return []
    found = [used(experiment.hosts)]
    cells = [cell for cell in experiment.cells if cell.between_hosts]
    if not cells:
        return found
    alpha = 1 - strict(experiment.confidence)
    differing = [cell for cell in cells if _differs(cell, alpha)]
    alike = [cell for cell in cells if cell not in differing]
    found += [_on_each(cell, experiment) for cell in differing]
    if len(alike) == 1:
        found.append(_on_each(alike[0], experiment))
    elif alike:
        found.append(_alike(alike, experiment.kind))
    noun = f"{words.estimate_noun(experiment.kind)}s"
    found.append(
        f"{noun}, intervals and verdicts are over hosts (random effects): with few hosts, "
        "intervals are wide however many blocks there are"
    )
    return found


def used(hosts: Sequence[UsedHost]) -> str:
    """Return the hosts, each with its number of blocks."""
    shown = [f"{one.name} ({counted(one.blocks, 'block')})" for one in hosts[:_MOST]]
    rest = hosts[_MOST:]
    more = f" and {len(rest)} more ({sum(one.blocks for one in rest)} blocks)" if rest else ""
    return f"{'hosts' if len(hosts) > 1 else 'host'}: {', '.join(shown)}{more}"


def facts(document: Report) -> list[tuple[str, str]]:
    """Return name and facts of each host that measured blocks, if there are several or names."""
    known = document.hosts or {}
    names = {one.id: one.name for each in document.experiments for one in each.hosts or ()}
    return [
        (name, words.host(known[host]))
        for host, name in sorted(names.items(), key=lambda pair: pair[1])[:_MOST]
        if host in known
    ]


def _differs(cell: Cell, alpha: float) -> bool:
    between = cell.between_hosts
    if not between:
        return False
    return bool(between.differing) or (between.p is not None and between.p <= alpha)


def _on_each(cell: Cell, experiment: Experiment) -> str:
    """Return the effect on each host, those that differ first."""
    between, metric = cell.between_hosts, experiment.kind
    assert between
    names = {host.id: host.name for host in experiment.hosts or ()}
    named = between.differing
    rest = [one for one in between.hosts if not one.differs]
    order = [*named, *rest]
    shown = ", ".join(f"{names[one.host]} {_effect(one, metric)}" for one in order[:_MOST])
    more = f" and {len(order) - _MOST} more" if len(order) > _MOST else ""
    level = words.level(experiment.confidence)
    figures = _figures(between, metric)
    what = _what([names[one.host] for one in named], len(rest), between, experiment)
    return f"{words.cell(cell)}: {what}: {shown}{more} ({level} of each; {figures})"


def _what(named: Sequence[str], others: int, between: BetweenHosts, experiment: Experiment) -> str:
    if named and others:
        verb = "differs" if len(named) == 1 else "differ"
        return f"{' and '.join(named[:_MOST])} {verb} from the other hosts"
    if named:
        return "the hosts differ from each other"
    alpha = 1 - strict(experiment.confidence)
    if between.p is not None and between.p <= alpha:
        return "the effect differs between hosts"
    return "no difference between hosts shown"


def _effect(one: HostEffect, metric: MetricKind) -> str:
    if metric.is_difference:
        value = words.value(one.difference or 0.0, metric)
    else:
        value = words.ratio(one.ratio or 0.0)
    return value if one.ci is None else f"{value} ({words.estimate_interval(one.ci, metric)})"


def _figures(between: BetweenHosts, metric: MetricKind) -> str:
    """Return Cochran's Q with its p, I squared and tau."""
    if between.q is None or between.tau is None or between.i_squared is None:
        return "not tested: too few blocks that differ"
    q = f"{between.q:.0f}" if between.q >= _MANY else f"{between.q:.3g}"
    return (
        f"Cochran's Q {q}, p {words.p_value(between.p)}, I² {100 * between.i_squared:.0f} %, "
        f"SD between hosts {_sd(between.tau, metric)}"
    )


def _sd(tau: float, metric: MetricKind) -> str:
    return words.value(tau, metric) if metric.is_difference else words.percent(tau)


def _alike(cells: Sequence[Cell], metric: MetricKind) -> str:
    """Return one line on the cells in which hosts do not differ."""
    found = [cell.between_hosts for cell in cells if cell.between_hosts]
    tested = [one for one in found if one.p is not None]
    if not tested:
        return f"differences between hosts: not tested in {counted(len(found), 'cell')}"
    least = min(one.p or 0.0 for one in tested)
    share = max(one.i_squared or 0.0 for one in tested)
    tau = max(one.tau or 0.0 for one in tested)
    return (
        f"no difference between hosts shown in {counted(len(found), 'cell')} (Cochran's Q: p "
        f"{words.p_value(least)} or more; I² up to {100 * share:.0f} %, SD between hosts up to "
        f"{_sd(tau, metric)})"
    )

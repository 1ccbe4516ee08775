"""The rule that turns p values into a verdict: faster, slower, same or undecided. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from labctl.lab.metrics import ELAPSED, MetricKind
from labctl.stats.cells import failures
from labctl.stats.failures import whose_failures
from labctl.stats.kinds import Verdict
from labctl.stats.paired import MINIMUM_BLOCKS, Paired, more_blocks, more_hosts
from labctl.stats.scale import effect_of, margin_of
from labctl.units import counted

# Of 100 intervals at the confidence level, 5 may miss the true value; 3.75 are allowed to
# miss it by the tests. The rest is what the stopping rule and blocks that are not normally
# distributed cost, by simulation (docs/explanation/methodology.md).
_SHARE = 0.75


def strict(confidence: float) -> float:
    """Return the level of tests and intervals with which they keep `confidence` in all."""
    return 1 - _SHARE * (1 - confidence)


@dataclass(frozen=True, slots=True)
class Rule:
    """The thresholds of a verdict; `margin` is the minimum effect on the metric's scale.

    `alpha` and `confidence` are those of the tests (see `strict`).
    """

    alpha: float
    confidence: float
    margin: float
    metric: MetricKind = ELAPSED

    @classmethod
    def of(cls, confidence: float, minimum_effect: float, metric: MetricKind = ELAPSED) -> Rule:
        """Return the rule for the `statistics` of a lab.yaml; 0.02 is an effect of 2 %.

        With differences, the effect is in the unit of the values.
        """
        level, margin = strict(confidence), margin_of(minimum_effect, metric)
        return cls(alpha=1 - level, confidence=level, margin=margin, metric=metric)

    @property
    def margin_text(self) -> str:
        """The margin for messages: in percent, or in the unit of the values."""
        effect = effect_of(self.margin, self.metric)
        if not self.metric.is_difference:
            return f"{100 * effect:.3g} %"
        return f"{effect:.4g} {self.metric.value_unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Conclusion:
    """A verdict; if undecided, with the reason and, where more blocks help, their number.

    Of a run on several hosts, it is the number of hosts.
    """

    verdict: Verdict
    reason: str = ""
    blocks_needed: int | None = None
    hosts_needed: int | None = None


def conclude(
    result: Paired | None,
    *,
    p_corrected: float | None,
    p_beyond: float | None,
    p_same: float | None,
    not_ok: Mapping[str, int],
    rule: Rule,
    family: int,
    host_is_trusted: bool,
) -> Conclusion:
    """Return the verdict for one cell; the p values are those after Holm's correction.

    `not_ok` counts the cell's samples that were not ok, and the crashes of its
    kernel in other cells. A cell with failures can be slower, but never faster or
    same. A cell whose series was not exercised is undecided, as is every cell of a
    host whose A/A control differs.
    """
    if missed := not_ok.get("not-exercised"):
        reason = f"series not exercised in {counted(missed, 'sample')}"
        return Conclusion(Verdict.UNDECIDED, reason)
    verdict = word(result, p_beyond, p_same, rule)
    if failures(not_ok) and verdict is not Verdict.SLOWER:
        what = "timings" if rule.metric.is_time else "values"
        return Conclusion(Verdict.UNDECIDED, f"{whose_failures(not_ok)}; {what} are disregarded")
    if result is None:
        return Conclusion(
            Verdict.UNDECIDED,
            "no block has valid values for the cell and its baseline",
            MINIMUM_BLOCKS,
        )
    more = more_blocks(result, alpha=rule.alpha, margin=rule.margin, family=family)
    if result.blocks < MINIMUM_BLOCKS:
        blocks = counted(result.blocks, "paired block")
        reason = f"{blocks}, needs at least {MINIMUM_BLOCKS}"
        return Conclusion(Verdict.UNDECIDED, reason, more)
    if verdict is not Verdict.UNDECIDED:
        if host_is_trusted:
            return Conclusion(verdict)
        return Conclusion(
            Verdict.UNDECIDED,
            f"would be {rule.metric.spoken(verdict)}, but the A/A control also differs",
        )
    reason = why_undecided(p_corrected, rule, len(result.hosts.means) if result.hosts else 1)
    if result.hosts:
        more = more_hosts(result, alpha=rule.alpha, margin=rule.margin, family=family)
    if more is None:
        units = "hosts" if result.hosts else "blocks"
        reason += f"; effect too close to {rule.margin_text}: more {units} would not decide it"
    if result.hosts:
        return Conclusion(Verdict.UNDECIDED, reason, hosts_needed=more)
    return Conclusion(Verdict.UNDECIDED, reason, more)


def why_undecided(p_corrected: float | None, rule: Rule, hosts: int = 1) -> str:
    """Return why the tests of enough blocks give no verdict: a small difference, or noise."""
    if p_corrected is not None and p_corrected <= rule.alpha:
        return f"differs, but not shown to differ by more than {rule.margin_text}"
    if hosts > 1:
        return f"difference not distinguishable from noise between {hosts} hosts"
    return "difference not distinguishable from noise"


def word(
    result: Paired | None, p_beyond: float | None, p_same: float | None, rule: Rule
) -> Verdict:
    """Return the verdict of the tests alone, ignoring failures.

    The p values are corrected for the cells of the family, each by Holm's method.
    """
    if result is None:
        return Verdict.UNDECIDED
    if p_beyond is not None and p_beyond <= rule.alpha:
        return Verdict.FASTER if result.mean > 0 else Verdict.SLOWER
    if p_same is not None and p_same <= rule.alpha:
        return Verdict.SAME
    return Verdict.UNDECIDED

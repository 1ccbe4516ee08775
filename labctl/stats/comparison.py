"""Types of results: the comparison of a cell with its baseline, and of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from labctl.lab.metrics import ELAPSED, Better, MetricKind
from labctl.runs.sample import Scalar
from labctl.stats.crash_rates import CrashRate
from labctl.stats.explanation_types import Observed
from labctl.stats.failures import Failure
from labctl.stats.health import Health
from labctl.stats.host_types import BetweenHosts, UsedHost
from labctl.stats.kinds import Verdict
from labctl.stats.report_types import Second


@dataclass(frozen=True, slots=True)
class Comparison:
    """One cell against its baseline.

    `ratio` is baseline time / cell time (cell / baseline where higher is better):
    above 1 is better. With differences it is None: `difference` is cell minus baseline in the
    unit of the values, `ci` its interval, `spread` and `sd_difference` are the standard
    deviations of the blocks' values and of their differences, also in this unit.
    `blocks` counts complete pairs, `blocks_visited` all measured
    blocks, `n` good repetitions. `failed` counts samples by status, except ok; `retried` those
    that a fresh boot measured again, by fault. `p` tests
    no difference; `p_corrected` is the same after Holm; `p_beyond` tests no difference
    beyond the minimum effect, `p_same` a difference at least as large, both after Holm:
    they determine the verdict. `blocks_needed` is the approximate number of further blocks
    that would decide an undecided cell.
    `p_sign_flip` checks `p` by a test that does not assume normal blocks, `p_wilcoxon` by
    one in which outlying blocks have little weight. `independent` is how many independent
    blocks say as much as the blocks, fewer if some in a row are alike. `sd_log` is the
    standard deviation of the blocks' log ratios, as in `Paired`. `smallest_effect` (0.05 is
    5 %; or a difference) is called faster in 80 % of the runs with this number of blocks,
    spread and family. Values that cannot be computed are None.
    With blocks of several hosts, `hosts` has the effect on each, and `hosts_needed` is the
    approximate number of further hosts that would decide.
    """

    cell: str
    kernel: str
    label: str
    setting: Mapping[str, Scalar]
    parameters: Mapping[str, Scalar]
    blocks: int
    n: int
    failed: Mapping[str, int]
    median_seconds: float | None
    spread_percent: float | None
    ratio: float | None
    ci: tuple[float, float] | None
    p: float | None
    p_corrected: float | None
    p_beyond: float | None
    verdict: Verdict
    blocks_needed: int | None = None
    p_sign_flip: float | None = None
    p_wilcoxon: float | None = None
    sd_log: float | None = None
    independent: float | None = None
    blocks_visited: int = 0
    smallest_effect: float | None = None
    reason: str = ""
    counters: Mapping[str, float] = field(default_factory=dict)
    p_same: float | None = None
    secondary: Mapping[str, Second] = field(default_factory=dict)
    difference: float | None = None
    spread: float | None = None
    sd_difference: float | None = None
    retried: Mapping[str, int] = field(default_factory=dict)
    hosts: BetweenHosts | None = None
    hosts_needed: int | None = None

    @property
    def control_differs(self) -> bool:
        """Whether an A/A control differs, on all hosts together or on one of them."""
        return self.verdict.is_difference or bool(self.hosts and self.hosts.differing)


@dataclass(frozen=True, slots=True)
class ExperimentResult:
    """All comparisons of one experiment; the baseline's cells are first in `cells`.

    `health` is the host's load during the run, None if not requested; `failures` the
    reasons of failed samples; `observed` what the observers found, None without any.
    `further` has the results of the metrics after the first, `crashes` how often the boots of
    each kernel crashed, if any did. `hosts` are those on which blocks were measured, if they are
    several or have names.
    """

    name: str
    baseline: str
    aa_control: Comparison | None
    cells: tuple[Comparison, ...]
    warnings: tuple[str, ...]
    blocks: int
    confidence: float
    minimum_effect: float
    better: Better
    metric: MetricKind = ELAPSED
    health: Health | None = None
    failures: tuple[Failure, ...] = ()
    observed: Observed | None = None
    further: tuple[ExperimentResult, ...] = ()
    crashes: tuple[CrashRate, ...] = ()
    hosts: tuple[UsedHost, ...] = ()

    @property
    def control_differs(self) -> bool:
        """Whether the baseline differs from itself, so that no verdict is valid."""
        return self.aa_control is not None and self.aa_control.control_differs

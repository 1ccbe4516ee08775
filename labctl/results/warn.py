"""What a reader must know before believing a comparison, the worst first. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from labctl.results.cells import Cell, baseline_for, crashed_boots, crashes, primary
from labctl.results.comparison import Comparison
from labctl.results.verdict import Rule
from labctl.units import counted

_NAMED_OUTLIERS = 4


def warnings_of(
    *,
    baselines: Sequence[Cell],
    controls: Sequence[Cell],
    others: Sequence[Cell],
    aa: Comparison | None,
    rows: Sequence[Comparison],
    rule: Rule,
) -> tuple[str, ...]:
    """Return one line each; `rows` are the verdicts on `others`, in their order."""
    alpha, spoken = rule.alpha, rule.metric.spoken
    lines = _on_host(aa, spoken)
    for cell in (*baselines, *controls):
        lines += _on_failures(cell)
    for cell, row in zip(others, rows, strict=True):
        lines += _on_failures(cell)
        # Of few blocks no sign flip is rare enough to contradict.
        could_flip = 2.0 ** (1 - row.blocks) <= alpha
        if row.verdict.is_difference and could_flip and (row.p_sign_flip or 0) > alpha:
            lines.append(
                f"{cell.name} is {spoken(row.verdict)} by the t test, and by the sign-flip test it "
                f"is not (p {row.p_sign_flip:.2g}): driven by a few blocks"
            )
        if row.verdict == "undecided":
            needed = row.blocks_needed
            more = f"; about {counted(needed, 'more block')} would decide it" if needed else ""
            lines.append(f"{cell.name} is undecided: {row.reason}{more}")
        if _only_by_ranks(row, alpha, len(rows)):
            lines.append(
                f"{cell.name} differs by Wilcoxon's signed-rank test (p {row.p_wilcoxon:.2g}), "
                "and by the t test it does not: blocks that lie far out reduce its power"
            )
    lines += _on_crashes(baselines, others)
    for cell in (*baselines, *controls, *others):
        lines += _on_outliers(cell)
    for cell in (*controls, *others):
        lines += _on_pairs(cell, baseline_for(cell, baselines))
    return tuple(lines)


def _only_by_ranks(row: Comparison, alpha: float, rows: int) -> bool:
    """Whether Wilcoxon's test sees a difference and the t test sees none."""
    t_sees_it = row.p_corrected is not None and row.p_corrected <= alpha
    return row.verdict == "undecided" and not t_sees_it and (row.p_wilcoxon or 1) <= alpha / rows


def _on_host(aa: Comparison | None, spoken: Callable[[str], str]) -> list[str]:
    if aa is None:
        return ["there is no A/A control: nothing shows that this host measures the same twice"]
    if not aa.verdict.is_difference or aa.ratio is None or aa.ci is None:
        return []
    low, high = aa.ci
    return [
        "this host cannot be trusted today: the baseline differs from itself (A/A control "
        f"{spoken(aa.verdict)}, ratio {aa.ratio:.3g}, interval {low:.3g} to {high:.3g}); "
        "no verdict of this experiment is valid"
    ]


def _on_failures(cell: Cell) -> list[str]:
    not_ok = cell.not_ok()
    if not not_ok:
        return []
    counts = ", ".join(f"{count} {status}" for status, count in not_ok.items())
    number = sum(not_ok.values())
    were = "was" if number == 1 else "were"
    return [f"{cell.name}: {counted(number, 'sample')} {were} not ok ({counts})"]


def _on_crashes(baselines: Sequence[Cell], others: Sequence[Cell]) -> list[str]:
    """Compare how often kernels crashed: who leaves the crashed boots out compares survivors."""
    if not any(crashes(others).values()):
        return []
    base, of_base = crashed_boots(baselines)
    lines = []
    for kernel in dict.fromkeys(cell.kernel for cell in others):
        crashed, boots = crashed_boots(cell for cell in others if cell.kernel == kernel)
        if not crashed or not of_base:
            continue
        from scipy.stats import fisher_exact

        p = fisher_exact([[crashed, boots - crashed], [base, of_base - base]]).pvalue
        lines.append(
            f"{kernel}: {crashed} of {counted(boots, 'boot')} crashed, {base} of {of_base} of the "
            f"baseline's (Fisher's exact test: p {p:.2g})"
        )
    return lines


def _on_outliers(cell: Cell) -> list[str]:
    found = cell.outliers()
    if not found:
        return []
    worst = sorted(found, key=lambda each: -abs(math.log(each[1])))[:_NAMED_OUTLIERS]
    named = ", ".join(f"block {block}: {factor:.2g} times" for block, factor in sorted(worst))
    more = f", and {len(found) - len(worst)} more" if len(found) > len(worst) else ""
    is_one = len(found) == 1
    lie, they, their = ("lies", "it counts", "its") if is_one else ("lie", "they count", "their")
    return [
        f"{cell.name}: {len(found)} of {cell.count(primary)} repetitions {lie} far from its median "
        f"({named}{more}); {they}, within the median of {their} block"
    ]


def _on_pairs(cell: Cell, base: Cell | None) -> list[str]:
    if base is None:
        return [f"{cell.name} has no baseline of the same workload parameters"]
    # A cell that has ended is no longer visited, and lacks no block.
    last = max(cell.seen_blocks, default=math.inf)
    seen = {block for block in cell.seen_blocks | base.seen_blocks if block <= last}
    dropped = sorted(seen - (cell.logs(primary).keys() & base.logs(primary).keys()))
    if not dropped:
        return []
    numbers = ", ".join(str(block) for block in dropped)
    blocks = "block" if len(dropped) == 1 else "blocks"
    return [
        f"{cell.name}: {len(dropped)} of {counted(len(seen), 'block')} dropped, without a good "
        f"value of it or of its baseline ({blocks} {numbers})"
    ]

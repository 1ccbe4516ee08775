"""What a reader must know before believing a comparison, the worst first. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from labctl.results.cells import Cell, baseline_for, crashed_boots, crashes, primary
from labctl.results.comparison import Comparison

_NAMED_OUTLIERS = 4


def warnings_of(
    *,
    baselines: Sequence[Cell],
    controls: Sequence[Cell],
    others: Sequence[Cell],
    aa: Comparison | None,
    rows: Sequence[Comparison],
    alpha: float,
) -> tuple[str, ...]:
    """Return one line each; `rows` are the verdicts on `others`, in their order."""
    lines = _on_host(aa)
    for cell in (*baselines, *controls):
        lines += _on_failures(cell)
    for cell, row in zip(others, rows, strict=True):
        lines += _on_failures(cell)
        if row.verdict in ("faster", "slower") and (row.p_sign_flip or 0) > alpha:
            lines.append(
                f"{cell.name} is {row.verdict} by the t test, and by the sign-flip test it is "
                f"not (p {row.p_sign_flip:.2g}): a few blocks carry it"
            )
        if row.verdict == "undecided":
            more = f"; about {row.blocks_needed} more blocks" if row.blocks_needed else ""
            lines.append(f"{cell.name} is undecided: {row.reason}{more}")
        if row.verdict == "undecided" and (row.p_wilcoxon or 1) <= alpha / len(rows):
            lines.append(
                f"{cell.name} differs by Wilcoxon's signed-rank test (p {row.p_wilcoxon:.2g}): "
                "a few blocks lie far out, and take the t test its power"
            )
    lines += _on_crashes(baselines, others)
    for cell in (*baselines, *controls, *others):
        lines += _on_outliers(cell)
    for cell in (*controls, *others):
        lines += _on_pairs(cell, baseline_for(cell, baselines))
    return tuple(lines)


def _on_host(aa: Comparison | None) -> list[str]:
    if aa is None:
        return ["there is no A/A control: nothing shows that this host measures alike twice"]
    if aa.verdict not in ("faster", "slower") or aa.ratio is None or aa.ci is None:
        return []
    low, high = aa.ci
    return [
        "this host cannot be trusted today: the baseline differs from itself, the A/A control "
        f"came out {aa.verdict} (ratio {aa.ratio:.3g}, interval {low:.3g} to {high:.3g}); "
        "no verdict of this experiment stands"
    ]


def _on_failures(cell: Cell) -> list[str]:
    not_ok = cell.not_ok()
    if not not_ok:
        return []
    counts = ", ".join(f"{count} {status}" for status, count in not_ok.items())
    return [f"{cell.name}: {sum(not_ok.values())} samples were not ok ({counts})"]


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
            f"{kernel}: {crashed} of {boots} boots crashed, {base} of {of_base} of the baseline's "
            f"(Fisher's exact test: p {p:.2g})"
        )
    return lines


def _on_outliers(cell: Cell) -> list[str]:
    found = cell.outliers()
    if not found:
        return []
    worst = sorted(found, key=lambda each: -abs(math.log(each[1])))[:_NAMED_OUTLIERS]
    named = ", ".join(f"block {block}: {factor:.2g} times" for block, factor in sorted(worst))
    more = f", and {len(found) - len(worst)} more" if len(found) > len(worst) else ""
    return [
        f"{cell.name}: {len(found)} of {cell.count(primary)} repetitions lie far from its median "
        f"({named}{more}); they count, within the median of their block"
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
    return [
        f"{cell.name}: {len(dropped)} of {len(seen)} blocks dropped, which lack a good value of "
        f"it or of its baseline (block {numbers})"
    ]

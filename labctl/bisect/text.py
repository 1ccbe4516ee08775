"""The answer of `labctl bisect` as text. Pure."""

from __future__ import annotations

from tabulate import tabulate

from labctl.bisect.types import Bisection
from labctl.reports import words


def terminal(content: Bisection) -> str:
    """Return the answer, its risk, and a table of the decisions."""
    rows = [
        {
            "step": one.step,
            "verdict": one.verdict,
            "blocks": one.blocks or "-",
            "ratio to the good end": words.ratio(one.ratio),
            "run": one.run or "-",
            "": ": ".join(filter(None, [one.why, one.reason])),
        }
        for one in content.decisions
    ]
    lines = [_answer(content), ""]
    if rows:
        lines.append(tabulate(rows, headers="keys", tablefmt="simple", disable_numparse=True))
    return "\n".join(lines).rstrip() + "\n"


def _answer(content: Bisection) -> str:
    of = f"{content.of} of {content.kernel}"
    candidates = content.candidates
    if content.step is not None:
        (patch,) = candidates
        return (
            f"{of}: step {patch.step} changed it: {patch.subject} ({patch.patch}).\n"
            f"Probability of a wrong answer: at most {100 * content.risk_spent:.2g} %."
        )
    named = [f"  {each.step}. {each.subject}" for each in candidates]
    return "\n".join([f"{of}: not found: {content.problem}. Candidates:", *named])

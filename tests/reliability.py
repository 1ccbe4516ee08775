"""The sections of docs/explanation/reliability.md, each written by one suite."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from labctl.host import identity

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "explanation" / "reliability.md"
FIGURES = ROOT / "tests" / "fuzz" / "figures.json"


def section(name: str) -> str:
    """Return the section of a suite as it is on the page, "" if there is none."""
    _, _, after = PAGE.read_text().partition(_begin(name))
    text, end, _ = after.partition(_end(name))
    return text if end else ""


def put(name: str, text: str) -> None:
    """Replace the section of a suite, or append it to the page."""
    page = PAGE.read_text()
    before, begin, after = page.partition(_begin(name))
    _, end, rest = after.partition(_end(name))
    if not (begin and end):
        before, rest = f"{page}\n", "\n"
    PAGE.write_text(f"{before}{_begin(name)}{text}{_end(name)}{rest}")


def command(suite: str, words: Sequence[str]) -> str:
    """Return a suite's command line without the folder of its findings, which others lack."""
    shown = []
    rest = iter(words)
    for word in rest:
        if word == "--found":
            next(rest, None)
        elif not word.startswith("--found="):
            shown.append(word)
    return shlex.join(["python", suite, *shown])


def where(command: str, seconds: float, seed: int | None = None) -> str:
    """Return the sentence on how the figures of a section were made."""
    words = [
        f"`{command}`, {seconds:.0f} s on {host()}",
        *([] if seed is None else [f"seed {seed}"]),
        f"commit {commit()}",
    ]
    return "; ".join(words) + "."


def host() -> str:
    """Return what the figures were made on."""
    found = identity.describe()
    return f"{found.cpu_model}, {found.cores} cores, Linux {found.kernel}"


def commit() -> str:
    """Return the commit; edits of the page, which the suites make, do not count as edits."""
    begin = _git("rev-parse", "--short=12", "HEAD")
    made = [f":!{path.relative_to(ROOT)}" for path in (PAGE, FIGURES)]
    others = _git("status", "--porcelain", "-uno", "--", ".", *made)
    return begin + ("-dirty" if others else "")


def _git(*words: str) -> str:
    argv = ["git", "-C", str(ROOT), *words]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def _begin(name: str) -> str:
    return f"<!-- {name}: written by its suite -->\n\n"


def _end(name: str) -> str:
    return f"\n<!-- end of {name} -->\n"

"""One figure of labctl's own speed: printed, and kept for docs/reference/performance.md."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

# Set by performance.py: the file to which each bench adds its figures, one JSON object a line.
FILE = "LABCTL_BENCH_FIGURES"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """`value`, in `unit` ("" for a ratio), and the `goal` that it should not miss.

    `spread` says in words how sure the value is: an interval, or the range of n rounds.
    """

    name: str
    value: float
    goal: float
    unit: str = ""
    at_least: bool = False
    spread: str = ""

    @property
    def is_met(self):
        return self.value >= self.goal if self.at_least else self.value <= self.goal

    @property
    def goal_text(self):
        sign = "≥" if self.at_least else "≤"
        return f"{sign} {self.goal:g} {self.unit}".strip()

    @property
    def value_text(self):
        # Three digits: 0.0123, 12.3 and 1048, not 0.01, 12.345 and 1.05e+03.
        text = f"{self.value:.0f}" if self.value >= 100 else f"{self.value:#.3g}"
        return f"{text} {self.unit}".strip()


def report(figure):
    """Print the figure, keep it if asked to, and return whether it meets its goal."""
    spread = f" ({figure.spread})" if figure.spread else ""
    print(f"{figure.name}: {figure.value_text}{spread}, goal {figure.goal_text}", flush=True)
    if os.environ.get(FILE):
        with Path(os.environ[FILE]).open("a") as file:
            file.write(json.dumps(asdict(figure)) + "\n")
    return figure.is_met


def read(path):
    """Return the figures of a file."""
    return [Figure(**json.loads(line)) for line in Path(path).read_text().splitlines()]

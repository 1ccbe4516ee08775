"""What every generated page is made of."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Sequence
from typing import Any

from click.testing import CliRunner

from labctl.cli import labctl


def cell(text: str) -> str:
    """Return text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines) + "\n"


def paragraphs(doc: str | None) -> str:
    """Return the help of a command as Markdown: columns that click keeps become code."""
    parts = []
    for part in inspect.cleandoc(doc or "").split("\n\n"):
        lines = part.splitlines()
        if lines[:1] == ["\b"]:
            code = [line for line in lines if "  " in line or line.startswith("labctl ")]
            text = [line for line in lines[1:] if line not in code]
            parts += ["\n".join(text), "\n".join(f"    {line.strip()}" for line in code)]
        else:
            parts.append("\n".join(lines))
    return "\n\n".join(part for part in parts if part) + "\n"


def first_line(doc: str | None) -> str:
    """Return the first paragraph of a docstring on one line."""
    return " ".join(inspect.cleandoc(doc or "").split("\n\n")[0].split())


def anchor(title: str) -> str:
    """Return the anchor that the site gives a heading."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower())


def schema_of(*options: str) -> dict[str, Any]:
    """Return what `labctl schema` prints."""
    done = CliRunner().invoke(labctl, ["schema", *options], catch_exceptions=False)
    found: dict[str, Any] = json.loads(done.stdout)
    return found

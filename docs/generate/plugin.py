"""Fixtures, markers and options of the pytest plugin."""

from __future__ import annotations

import inspect
import re
from typing import Any

from page import first_line, paragraphs, table

from labctl import pytest_plugin
from labctl.testing.guest import LabGuest
from labctl.testing.measuring import Compared, Measure, Measured


class Options:
    """Collects what the plugin adds to pytest's own options."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, ...]] = []

    def getgroup(self, *_: str) -> Options:
        """Return this collection as the group."""
        return self

    def addoption(self, name: str, metavar: str = "", help: str = "", **_: Any) -> None:  # noqa: A002, ANN401
        """Collect an option."""
        self.rows.append((f"`{name} {metavar}`".replace(" `", "`"), help))

    def addini(self, name: str, help: str, **_: Any) -> None:  # noqa: A002, ANN401
        """Collect a key of the ini-file."""
        self.rows.append((f"`{name} =` in the ini-file", help))


def members(one: type, names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the named methods and attributes of a class with their first lines."""
    rows: list[tuple[str, ...]] = []
    for name in names:
        found = getattr(one, name)
        if callable(found):
            signature = str(inspect.signature(found)).replace("(self, ", "(").split(" -> ")[0]
            signature = re.sub(r": (?:[^,()=\[]|\[[^\]]*\])+(?=[,)=])", "", signature).replace(
                "= ", "="
            )
            shown = f"{name}{signature.replace('(self)', '()')}".replace("__call__", "measure")
        else:
            shown = name
        rows.append((f"`{shown}`", first_line(found.__doc__)))
    return rows


def plugin_page() -> str:
    """Return the page on the pytest plugin."""
    fixtures = []
    for name, one in vars(pytest_plugin).items():
        marker = getattr(one, "_fixture_function_marker", None)
        if marker is not None and not name.startswith("_"):
            fixtures.append((f"`{name}`", str(marker.scope), first_line(one.__doc__)))
    options = Options()
    pytest_plugin.pytest_addoption(options)  # type: ignore[arg-type]
    markers = [tuple(f"`{m}`" if i == 0 else m for i, m in enumerate(line.split(": ", 1)))
               for line in pytest_plugin._MARKERS]  # fmt: skip
    text = (
        "# pytest fixtures\n\nThe plugin is active wherever labctl is installed. [Ten lines of "
        "pytest](../tutorials/pytest.md) shows it at work.\n\n## Fixtures\n\n"
    )
    text += table(("fixture", "scope", "is"), fixtures)
    text += "\n## Markers\n\n" + table(("marker", "does"), markers)
    text += "\n## Options\n\n" + table(("option", "does"), options.rows)
    text += "\n## A guest\n\n" + table(
        ("member", "does"),
        members(
            LabGuest,
            ("run", "output", "read", "write", "put", "get", "check", "console_tail", "pause",
             "resume", "boot_id", "log"),
        ),
    )  # fmt: skip
    text += (
        "| `tolerated` | Set of splat kinds that do not fail the test: "
        '`guest.tolerated = frozenset({"oom-kill"})`. |\n'
    )
    text += "\n## measure\n\n" + table(
        ("member", "does"), members(Measure, ("__call__", "compare"))
    )
    text += f"\n`measure(…)` returns: {paragraphs(Measured.__doc__)}"
    text += f"\n`measure.compare(…)` returns: {paragraphs(Compared.__doc__)}"
    return text

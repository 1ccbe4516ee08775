"""The JUnit XML of every report. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree

from labctl.printable import layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test case; `failures` are pairs of message and text, `skipped` is a reason."""

    name: str
    failures: Sequence[tuple[str, str]] = ()
    skipped: str | None = None
    seconds: float | None = None
    properties: Mapping[str, str] = field(default_factory=dict)


def render(name: str, suites: Mapping[str, Sequence[Case]]) -> str:
    """Return suites of test cases as XML; suites are keyed by their names."""
    root = ElementTree.Element("testsuites", name=name)
    for of, cases in suites.items():
        suite = ElementTree.SubElement(root, "testsuite", name=of)
        for case in cases:
            _add(suite, of, case)
        suite.set("tests", str(len(cases)))
        suite.set("failures", str(len(suite.findall("*/failure"))))
        suite.set("skipped", str(len(suite.findall("*/skipped"))))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _add(suite: ElementTree.Element, of: str, case: Case) -> None:
    found = ElementTree.SubElement(suite, "testcase", name=case.name, classname=of)
    if case.seconds is not None:
        found.set("time", str(case.seconds))
    if case.properties:
        properties = ElementTree.SubElement(found, "properties")
        for name, value in case.properties.items():
            ElementTree.SubElement(properties, "property", name=name, value=value)
    for message, text in case.failures:
        ElementTree.SubElement(found, "failure", message=layout(message)).text = layout(text)
    if case.skipped is not None and not case.failures:
        ElementTree.SubElement(found, "skipped", message=layout(case.skipped))

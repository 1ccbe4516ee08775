"""Names and values in the SVG of a plot, for pointer, keyboard and screen reader. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from html import escape

_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
_SIZE = re.compile(r' width="[\d.]+pt" height="[\d.]+pt"')
_ID = re.compile(r' id="([^"]*)"')
_REFERENCE = re.compile(r"""(?<=href="#)[^"]+|(?<=url\(#)[^)]+""")
_POINT = re.compile(r"<use ([^>]*?)( style=\"[^\"]*\")?/>")


class Values:
    """The texts of a plot's points, by the id of their group in the SVG."""

    def __init__(self) -> None:
        self.groups: dict[str, list[str]] = {}

    def add(self, texts: Sequence[str]) -> str:
        """Return the `gid` for markers, one text for each in their order."""
        name = f"values-{len(self.groups)}-"
        self.groups[name] = list(texts)
        return name


def labelled(svg: str, name: str, values: Values | None = None) -> str:
    """Return matplotlib's SVG with a name, and with the text of each point as its title.

    Ids that nothing refers to are removed; the others are unique in a page.
    """
    svg = _METADATA.sub("", svg, count=1)
    if values is not None:
        svg = _with_titles(svg, values.groups)
    used = set(_REFERENCE.findall(svg))
    own = hashlib.sha256(svg.encode()).hexdigest()[:6]
    svg = _ID.sub(lambda found: f' id="{own}-{found[1]}"' if found[1] in used else "", svg)
    svg = _REFERENCE.sub(lambda found: f"{own}-{found[0]}", svg)
    svg = _SIZE.sub("", svg, count=1)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(name)}" ', 1)


def _with_titles(svg: str, groups: Mapping[str, Sequence[str]]) -> str:
    parts, done = [], 0
    # A group without a point, as of values that are not finite, is not drawn.
    begins = sorted((svg.find(f'<g id="{name}">'), name) for name in groups)
    for begin, name in begins:
        if begin < 0:
            continue
        # The markers of a line: <g id=…><defs>…</defs><g clip-path=…><use …/>…</g></g>.
        end = svg.index("</g>", svg.index("</g>", begin) + 1)
        markers = svg[begin:end].replace(f' id="{name}"', ' class="values"', 1)
        parts += [svg[done:begin], _titled(markers, groups[name])]
        done = end
    return "".join([*parts, svg[done:]])


def _titled(markers: str, texts: Sequence[str]) -> str:
    """Return a group with a title in each marker; a style that all share is the group's.

    A group that lacks a marker is returned as it is.
    """
    styles = [found[2] or "" for found in _POINT.finditer(markers)]
    if len(styles) != len(texts):  # a point is not drawn, and none says which
        return markers
    is_shared = len(set(styles)) == 1
    rest = iter(texts)

    def point(found: re.Match[str]) -> str:
        style = "" if is_shared else found[2] or ""
        return f"<use {found[1]}{style}><title>{escape(next(rest))}</title></use>"

    titled = _POINT.sub(point, markers)
    if is_shared:
        titled = titled.replace(' class="values"', f' class="values"{styles[0]}', 1)
    return titled

"""A flame graph of the difference between two kernels, as self-contained SVG. Pure.

Callers are above the functions that they call. The width of a box is the mean of its times in
the two kernels, so that functions of either kernel are seen and the boxes below one fill it
at most.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

from labctl.observers.stacks import SEPARATOR
from labctl.reports import explanation
from labctl.stats.explanation_types import FrameTime

_WIDTH = 440  # units: one is a pixel on a phone
_ROW = 17
_BASE_LINE = 12  # of text, below the top of its row
_LETTER = 6.2
_GAP = 1.0  # between boxes, so that outlines do not overlap
_NARROWEST = 0.4
_STEPS = 4  # colours of each sign
_WHOLE = "all"


@dataclass(slots=True)
class _Node:
    time: FrameTime
    children: list[_Node] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.time.frame.rpartition(SEPARATOR)[2]

    @property
    def mean(self) -> float:
        return (self.time.baseline + self.time.cell) / 2


@dataclass(frozen=True, slots=True)
class _Box:
    node: _Node
    x: float
    width: float
    depth: int


def graph(frames: Sequence[FrameTime], *, baseline: str, cell: str, name: str) -> str:
    """Return the graph; `baseline` and `cell` name the two kernels, `name` the picture.

    The boxes of frames that changed have a colour and an outline: solid if the time is longer
    in the cell, dashed if it is shorter.
    """
    root = _tree(frames)
    boxes = list(_boxes(root, 0.0, _WIDTH / root.mean if root.mean else 0.0, 0))
    height = _ROW * (1 + max(box.depth for box in boxes))
    widest = max((abs(each.difference) for each in frames if each.changed), default=0.0)
    drawn = "\n".join(_box(box, root, widest, baseline, cell) for box in boxes)
    return (
        f'<svg role="img" aria-label="{escape(name)}" class="flame" '
        f'viewBox="0 0 {_WIDTH} {height}" xmlns="http://www.w3.org/2000/svg">\n'
        f'<g class="values">{drawn}</g></svg>'
    )


def text(frame: FrameTime, whole: FrameTime, *, baseline: str, cell: str) -> str:
    """Return a frame's times in words."""
    share = 100 * (frame.baseline + frame.cell) / ((whole.baseline + whole.cell) or 1.0)
    verdict = "changed" if frame.changed else "within noise"
    return (
        f"{explanation.time(frame.baseline)} in {baseline}, "
        f"{explanation.time(frame.cell)} in {cell}: "
        f"{difference(frame)}, {verdict}; {share:.2g} % of both"
    )


def difference(frame: FrameTime) -> str:
    """Return the difference of a frame with its sign."""
    return explanation.time(frame.difference, sign="+")


def whole_of(frames: Sequence[FrameTime]) -> FrameTime:
    """Return the time of all stacks as a frame."""
    outermost = [each for each in frames if SEPARATOR not in each.frame]
    return FrameTime(
        frame=_WHOLE,
        baseline=math.fsum(each.baseline for each in outermost),
        cell=math.fsum(each.cell for each in outermost),
        difference=math.fsum(each.difference for each in outermost),
        changed=any(each.changed for each in outermost),
    )


def _tree(frames: Sequence[FrameTime]) -> _Node:
    root = _Node(whole_of(frames))
    nodes = {each.frame: _Node(each) for each in frames}
    for path, node in nodes.items():
        caller, separator, _ = path.rpartition(SEPARATOR)
        (nodes[caller] if separator else root).children.append(node)
    return root


def _boxes(node: _Node, x: float, scale: float, depth: int) -> Iterator[_Box]:
    """Return a node's box, and those of what it calls: from left to right the longest first."""
    yield _Box(node, x, node.mean * scale, depth)
    for child in sorted(node.children, key=lambda each: (-each.mean, each.name)):
        if child.mean * scale >= _NARROWEST:
            yield from _boxes(child, x, scale, depth + 1)
        x += child.mean * scale


def _box(box: _Box, root: _Node, widest: float, baseline: str, cell: str) -> str:
    frame = box.node.time
    said = f"{box.node.name}: {text(frame, root.time, baseline=baseline, cell=cell)}"
    y = box.depth * _ROW
    rect = (
        f'<rect x="{box.x + _GAP / 2:.2f}" y="{y + _GAP / 2}"'
        f' width="{max(box.width - _GAP, _NARROWEST / 2):.2f}" height="{_ROW - _GAP}"'
        f' class="{_style(frame, widest)}"><title>{escape(said)}</title></rect>'
    )
    label = _label(box)
    if not label:
        return rect
    return f'{rect}<text x="{box.x + 3:.2f}" y="{y + _BASE_LINE}">{escape(label)}</text>'


def _style(frame: FrameTime, widest: float) -> str:
    if not frame.changed or not widest or not frame.difference:
        return "equal"
    step = min(_STEPS, max(1, math.ceil(_STEPS * abs(frame.difference) / widest)))
    return f"worse-{step} longer" if frame.difference > 0 else f"better-{step} shorter"


def _label(box: _Box) -> str:
    """Return the name, with the difference if there is room; part of it in a narrow box."""
    letters = int((box.width - 5) / _LETTER)
    name, frame = box.node.name, box.node.time
    whole = f"{name} {difference(frame)}" if frame.changed else name
    if len(whole) <= letters:
        return whole
    if len(name) <= letters:
        return name
    return f"{name[: letters - 1]}…" if letters >= 3 else ""


def rows(frames: Sequence[FrameTime]) -> list[tuple[FrameTime, str, str]]:
    """Return each frame, the largest first, with its function and the caller of it."""
    named = ((each, each.frame.split(SEPARATOR)) for each in frames)
    found = [(each, names[-1], (["", *names])[-2]) for each, names in named]
    return sorted(found, key=lambda row: -abs(row[0].difference))

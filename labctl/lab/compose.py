"""Compose a YAML text to nodes: by libyaml where it gives the nodes of PyYAML's own parser."""

from __future__ import annotations

import re

import yaml

_MAX_BRACKETS = 200
# Outside comment lines: tabs, explicit keys, tags, block scalars and directives, which the two
# parsers read differently.
_UNLIKE = re.compile(r"^%|^(?! *#).*[\t?!|>]", re.MULTILINE)


class TooDeep(Exception):
    """Brackets are nested too deeply; `mark` is the place of the bracket."""

    def __init__(self, mark: yaml.Mark) -> None:
        super().__init__("nesting is too deep")
        self.mark = mark


class _Loader(yaml.BaseLoader):
    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        # The scanner looks at all open brackets for each token.
        if self.flow_level >= _MAX_BRACKETS:
            raise TooDeep(self.get_mark())
        super().fetch_flow_collection_start(token)


def compose(text: str) -> yaml.Node | None:
    """Return the root node, None if there is none; plain scalars have the style "" or None.

    Raises:
        TooDeep, yaml.YAMLError, ValueError, OverflowError, RecursionError: the text is not valid.
    """
    fast = getattr(yaml, "CBaseLoader", None)  # PyYAML may have been built without libyaml
    if fast is not None and not _UNLIKE.search(text):
        try:
            node = yaml.compose(text, Loader=fast)
            if node is None or not _has_empty(node, set()):
                return node
        except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
            pass  # errors have other texts and positions
    found: yaml.Node | None = yaml.compose(text, Loader=_Loader)
    return found


def _has_empty(node: yaml.Node, seen: set[int]) -> bool:
    """Return whether a value is missing: libyaml puts it at another column."""
    if isinstance(node, yaml.ScalarNode):
        return not node.value and not node.style
    if id(node) in seen:
        return False
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        return any(_has_empty(one, seen) for pair in node.value for one in pair)
    return any(_has_empty(one, seen) for one in node.value)

"""Parse YAML to a tree that keeps each value's raw text, quoting and position.

Values are not typed by their form: `6.10`, `off` and `1:30` stay text, and the
declared type of their key converts them later. A duplicate key is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from labctl.lab.compose import TooDeep, compose

_MAX_NODES = 20_000
_MAX_DEPTH = 40
_ENTRY_KEYS = 3
_CORE_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "seq", "map", "merge")}

KeyPath = tuple[str | int, ...]


class Text(str):
    """A scalar's raw text; `quoted` is true for quoted and block scalars."""

    __slots__ = ("quoted",)
    quoted: bool

    def __new__(cls, text: str, *, quoted: bool = False) -> Text:
        new = super().__new__(cls, text)
        new.quoted = quoted
        return new


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A position in a file; line and column count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class YamlProblem:
    """A syntax or structure error; `path` is that of the key, () if there is none."""

    mark: Mark
    what: str
    hint: str | None = None
    path: KeyPath = ()
    no_value: bool = False


Plain = dict[str, "Plain"] | list["Plain"] | Text | None


@dataclass(slots=True)
class Document:
    """A file as dicts, lists and `Text`, with the position of each key path.

    `keys` has the position of a key or list item, `values` that of a value on the
    same line as its key. A `broken` document has no values.
    """

    plain: Plain = None
    keys: dict[KeyPath, Mark] = field(default_factory=dict)
    values: dict[KeyPath, Mark] = field(default_factory=dict)
    problems: list[YamlProblem] = field(default_factory=list)
    broken: bool = False

    def key_mark(self, path: KeyPath) -> Mark:
        """Return the position of the key, or of the nearest enclosing key."""
        while path and path not in self.keys:
            path = path[:-1]
        return self.keys.get(path, Mark(1, 1))

    def mark(self, path: KeyPath) -> Mark:
        """Return the position of the value, or of the nearest enclosing key."""
        return self.values.get(path) or self.key_mark(path)


def parse(text: str) -> Document:
    """Return the parsed document, with its errors in `problems`; nothing is raised.

    After a syntax error the result is `broken` and has no values.
    """
    try:
        root = compose(text)
    except TooDeep as error:
        return _broken(YamlProblem(_position(error.mark), str(error)))
    except yaml.MarkedYAMLError as error:
        return _broken(_syntax(error))
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        mark = Mark(before.count("\n") + 1, len(before) - before.rfind("\n"))
        what = f"the character U+{_code(error.character):04X} is not allowed in YAML"
        return _broken(YamlProblem(mark, what))
    except RecursionError:
        return _broken(YamlProblem(Mark(1, 1), "nesting is too deep"))
    except (ValueError, OverflowError):  # an escape like "\U99999999"
        return _broken(YamlProblem(Mark(1, 1), "invalid character escape"))
    builder = _Builder()
    if root is not None:
        builder.build(root)
    return builder.document


def _broken(problem: YamlProblem) -> Document:
    return Document(problems=[problem], broken=True)


def _code(character: object) -> int:
    return character if isinstance(character, int) else ord(str(character)[:1] or "\0")


_OPENED = re.compile("flow (?:sequence|mapping)|quoted scalar")
_ADVICE = (
    ("expected a single document", "a lab.yaml is one document: remove the `---`"),
    ("found duplicate anchor", "use a different name for each anchor"),
    ("mapping values are not allowed", "check the indentation, and quote text with ': '"),
    ("expected <block end>", "check the indentation: keys of a mapping start in the same column"),
    ("could not find expected ':'", "add a colon and a space after the key"),
    ("expected ',' or", "close the `[` or `{`, or add the missing comma"),
    ("cannot start any token", "quote text that starts with this character"),
    ("found unexpected end of stream", "add the missing closing quote"),
)


def _syntax(error: yaml.MarkedYAMLError) -> YamlProblem:
    place = error.problem_mark or error.context_mark
    problem = error.problem or "syntax error"
    context = f"{error.context}: " if error.context else ""
    opening = error.context_mark
    if place and opening and opening.line < place.line and _OPENED.search(context):
        # The parser reports an unclosed bracket or quote lines below its start.
        problem, place = f"{problem} in line {place.line + 1}", opening
    mark = _position(place) if place else Mark(1, 1)
    hint = next((text for sign, text in _ADVICE if sign in f"{context}{problem}"), None)
    return YamlProblem(mark, f"invalid YAML: {context}{problem}", hint)


class _TooMuch(Exception):
    pass


class _Builder:
    """Converts nodes to plain values, with a limit on their number because of aliases."""

    def __init__(self) -> None:
        self.document = Document()
        self._count = 0
        self._open: list[yaml.Node] = []

    def build(self, root: yaml.Node) -> None:
        try:
            self.document.plain = self._value(root, ())
        except _TooMuch as error:
            self.document.broken = True
            self._problem(root, str(error), ())

    def _problem(self, node: yaml.Node, what: str, path: KeyPath, hint: str | None = None) -> None:
        self.document.problems.append(YamlProblem(_place(node), what, hint, path))

    def _value(self, node: yaml.Node, path: KeyPath) -> Plain:
        self._count += 1
        if self._count > _MAX_NODES:
            raise _TooMuch(f"more than {_MAX_NODES} values after expansion of aliases")
        if len(path) > _MAX_DEPTH:
            raise _TooMuch(f"nesting is deeper than {_MAX_DEPTH} levels")
        if any(node is other for other in self._open):
            what = "anchor contains itself"
            problem = YamlProblem(_place(node), what, "remove the alias inside it", path, True)
            self.document.problems.append(problem)
            return None
        if node.tag not in _CORE_TAGS:
            name = node.tag.replace("tag:yaml.org,2002:", "!!")
            self._problem(node, f"unsupported tag {name}", path, "remove it")
        if not isinstance(node, yaml.CollectionNode) or node.flow_style:
            self.document.values[path] = _place(node)  # a block starts below its key
        self._open.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return self._sequence(node, path)
        finally:
            self._open.pop()
        text = _text(node)
        return None if not text.quoted and text in ("~", "null") else text

    def _sequence(self, node: yaml.SequenceNode, path: KeyPath) -> list[Plain]:
        result = []
        for index, item in enumerate(node.value):
            self.document.keys[(*path, index)] = _place(item)
            result.append(self._value(item, (*path, index)))
        return result

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Plain]:
        result: dict[str, Plain] = {}
        first: dict[str, Mark] = {}
        merged: list[tuple[yaml.Node, yaml.Node]] = []
        again: list[yaml.Node] = []  # consecutive duplicate keys
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._problem(key, "expected one word as key", path)
            elif key.value == "<<" and not key.style:
                merged += self._merged(value, path)
            elif key.value in first:
                again.append(key)
                continue
            else:
                first[key.value] = _place(key)
                result[key.value] = self._entry(key, value, path)
            self._twice(again, first, path)
            again = []
        self._twice(again, first, path)
        for key, value in merged:  # a mapping's own keys win over merged ones
            if key.value not in result:
                result[key.value] = self._entry(key, value, path)
        return result

    def _twice(self, keys: list[yaml.Node], first: dict[str, Mark], path: KeyPath) -> None:
        if len(keys) >= _ENTRY_KEYS:  # a whole second entry, whose name is missing
            names = ", ".join(key.value for key in keys)
            what = f"duplicate keys {names}"
            self._problem(keys[0], what, path, "is a line `NAME:` missing above?")
            return
        for key in keys:
            line = first[key.value].line
            what = f"duplicate key '{key.value}', first in line {line}"
            self._problem(key, what, (*path, key.value), "remove or rename one of them")

    def _entry(self, key: yaml.Node, value: yaml.Node, path: KeyPath) -> Plain:
        self.document.keys[(*path, key.value)] = _place(key)
        return self._value(value, (*path, key.value))

    def _merged(self, node: yaml.Node, path: KeyPath) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for source in sources:
            self._count += 1
            if self._count > _MAX_NODES:
                raise _TooMuch("too many merged mappings")
            if not isinstance(source, yaml.MappingNode) or any(source is o for o in self._open):
                what = "`<<`: expected a mapping or a list of mappings"
                self._problem(source, what, path, "write `<<: *anchor`")
                continue
            nested = []
            for key, value in source.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue  # reported at the merged mapping itself
                if key.value == "<<":
                    nested.append(value)
                else:
                    yield key, value
            # The first value of a key wins, so own keys come before merged ones.
            for value in nested:
                self._open.append(source)
                yield from self._merged(value, path)
                self._open.pop()


def _text(node: yaml.Node) -> Text:
    return Text(node.value, quoted=bool(getattr(node, "style", None)))


def _place(node: yaml.Node) -> Mark:
    return _position(node.start_mark)


def _position(mark: yaml.Mark) -> Mark:
    return Mark(mark.line + 1, mark.column + 1)

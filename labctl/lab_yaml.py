"""YAML as a tree that keeps what the writer wrote: raw text, quotes and places.

Nothing is guessed from the looks of a value: `6.10`, `off` and `1:30` stay
text, and the declared type of their key decides later. A key that stands twice
is a mistake here, not a silent win of the last one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

_MAX_NODES = 20_000
_MAX_DEPTH = 40
_ENTRY_KEYS = 3
_CORE_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "seq", "map", "merge")}

KeyPath = tuple[str | int, ...]


class Text(str):
    """A scalar's raw text; `quoted` if it stood in quotes or in a block."""

    __slots__ = ("quoted",)
    quoted: bool

    def __new__(cls, text: str, *, quoted: bool = False) -> Text:
        new = super().__new__(cls, text)
        new.quoted = quoted
        return new


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in a file; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class YamlProblem:
    """A mistake of form; `path` is the key's, () where there is none."""

    mark: Mark
    what: str
    hint: str | None = None
    path: KeyPath = ()
    no_value: bool = False


Plain = dict[str, "Plain"] | list["Plain"] | Text | None


@dataclass(slots=True)
class Document:
    """A file's content as dicts, lists and `Text`, and where each key path stands.

    `keys` holds the place of a key or list item's first character, `values` that
    of the value when it stands beside its key.
    """

    plain: Plain = None
    keys: dict[KeyPath, Mark] = field(default_factory=dict)
    values: dict[KeyPath, Mark] = field(default_factory=dict)
    problems: list[YamlProblem] = field(default_factory=list)
    broken: bool = False

    def key_mark(self, path: KeyPath) -> Mark:
        """Return the place of the key itself, or of the nearest one around it."""
        while path and path not in self.keys:
            path = path[:-1]
        return self.keys.get(path, Mark(1, 1))

    def mark(self, path: KeyPath) -> Mark:
        """Return the place of the value, or of the nearest key around it."""
        return self.values.get(path) or self.key_mark(path)


def parse(text: str) -> Document:
    """Read one YAML document; mistakes are in the result, nothing is raised.

    After a mistake of syntax the result is `broken`: it says where, and holds nothing.
    """
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        return _broken(_syntax(error))
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        mark = Mark(before.count("\n") + 1, len(before) - before.rfind("\n"))
        what = f"the character U+{_code(error.character):04X} is not allowed in YAML"
        return _broken(YamlProblem(mark, what))
    except RecursionError:
        return _broken(YamlProblem(Mark(1, 1), "is nested too deeply"))
    except (ValueError, OverflowError):  # an escape like "\U99999999"
        return _broken(YamlProblem(Mark(1, 1), "holds an escape that is no character"))
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
    ("found duplicate anchor", "give each anchor a name of its own"),
    ("mapping values are not allowed", "check the indentation, and put text with ': ' in quotes"),
    ("expected <block end>", "check the indentation: keys of one mapping start in one column"),
    ("could not find expected ':'", "each key is followed by a colon and a space"),
    ("expected ',' or", "a `[` or `{` is not closed, or a comma is missing"),
    ("cannot start any token", "put text that begins with this character in quotes"),
    ("found unexpected end of stream", "a quote is not closed"),
)


def _syntax(error: yaml.MarkedYAMLError) -> YamlProblem:
    place = error.problem_mark or error.context_mark
    problem = error.problem or "is not YAML"
    context = f"{error.context}: " if error.context else ""
    opening = error.context_mark
    if place and opening and opening.line < place.line and _OPENED.search(context):
        # what is not closed is found missing lines below the place to mend
        problem, place = f"{problem} in line {place.line + 1}", opening
    mark = Mark(place.line + 1, place.column + 1) if place else Mark(1, 1)
    hint = next((text for sign, text in _ADVICE if sign in f"{context}{problem}"), None)
    return YamlProblem(mark, f"this is not YAML: {context}{problem}", hint)


class _TooMuch(Exception):
    pass


class _Builder:
    """Turns nodes into plain values; counts what it makes, so aliases cannot explode."""

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
            raise _TooMuch(f"holds more than {_MAX_NODES} values once its aliases are filled in")
        if len(path) > _MAX_DEPTH:
            raise _TooMuch(f"is nested more than {_MAX_DEPTH} deep")
        if any(node is other for other in self._open):
            what = "this anchor contains itself"
            problem = YamlProblem(_place(node), what, "remove the alias inside it", path, True)
            self.document.problems.append(problem)
            return None
        if node.tag not in _CORE_TAGS:
            name = node.tag.replace("tag:yaml.org,2002:", "!!")
            self._problem(node, f"the tag {name} means nothing here", path, "remove it")
        if not isinstance(node, yaml.CollectionNode) or node.flow_style:
            self.document.values[path] = _place(node)  # a block starts lines below its key
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
        again: list[yaml.Node] = []  # keys in a row that stand twice
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._problem(key, "a key must be one word", path)
            elif key.value == "<<" and key.style is None:
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
        for key, value in merged:  # what stands here wins over what is merged in
            if key.value not in result:
                result[key.value] = self._entry(key, value, path)
        return result

    def _twice(self, keys: list[yaml.Node], first: dict[str, Mark], path: KeyPath) -> None:
        if len(keys) >= _ENTRY_KEYS:  # so many in a row are another entry, its name is missing
            names = ", ".join(key.value for key in keys)
            what = f"the keys {names} stand twice in one mapping"
            self._problem(keys[0], what, path, "is the line with a name missing above?")
            return
        for key in keys:
            line = first[key.value].line
            what = f"the key '{key.value}' stands twice: it is already in line {line}"
            self._problem(key, what, (*path, key.value), "remove or rename one of them")

    def _entry(self, key: yaml.Node, value: yaml.Node, path: KeyPath) -> Plain:
        self.document.keys[(*path, key.value)] = _place(key)
        return self._value(value, (*path, key.value))

    def _merged(self, node: yaml.Node, path: KeyPath) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for source in sources:
            self._count += 1
            if self._count > _MAX_NODES:
                raise _TooMuch("merges too much into one mapping")
            if not isinstance(source, yaml.MappingNode) or any(source is o for o in self._open):
                what = "`<<` takes another mapping or a list of mappings"
                self._problem(source, what, path, "write `<<: *anchor`")
                continue
            nested = []
            for key, value in source.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue  # reported where the source itself stands
                if key.value == "<<":
                    nested.append(value)
                else:
                    yield key, value
            # The first of a name wins: a mapping's own keys before what it merges itself.
            for value in nested:
                self._open.append(source)
                yield from self._merged(value, path)
                self._open.pop()


def _text(node: yaml.Node) -> Text:
    return Text(node.value, quoted=getattr(node, "style", None) is not None)


def _place(node: yaml.Node) -> Mark:
    return Mark(node.start_mark.line + 1, node.start_mark.column + 1)

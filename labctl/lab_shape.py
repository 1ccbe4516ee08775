"""From a YAML document to a `LabFile`: keys, types and ranges, told in plain sentences."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from pydantic import ValidationError

from labctl import units
from labctl.lab_entries import (
    ExperimentEntry,
    KernelEntry,
    LabFile,
    TargetEntry,
    TunableEntry,
    WorkloadEntry,
)
from labctl.lab_findings import Findings, nearest, suggestion
from labctl.lab_topology import Topology
from labctl.lab_types import Model
from labctl.lab_yaml import Document, KeyPath, Plain, Text

_NAMED: dict[str, type[Model]] = {
    "guests": Topology,
    "targets": TargetEntry,
    "kernels": KernelEntry,
    "tunables": TunableEntry,
    "workloads": WorkloadEntry,
    "experiments": ExperimentEntry,
}
_MAX_ROUNDS = 50  # each round leaves out what the one before found; a few are enough
_MAY_BE_EMPTY = {"set", "parameters", "kconfig", "statistics", "defaults", "distances"}
_SECTIONS_MAY_BE_EMPTY = {
    "targets",
    "tunables",
    "workloads",
    "experiments",
    "statistics",
    "defaults",
    "verify",
}


@cache
def file_schema() -> dict[str, Any]:
    """Return the JSON Schema of lab.yaml as pydantic makes it."""
    return LabFile.model_json_schema()


def read(document: Document, found: Findings) -> LabFile | None:
    """Return what of the file is sound, and record in `found` what is not.

    A faulty value is left out and its default stands in; None if nothing is left.
    """
    plain = copy.deepcopy(document.plain)
    if not isinstance(plain, dict):
        what = "the file is empty" if plain in (None, "") else "the file is not a mapping"
        found.add((), what, "`labctl init` writes one to start from")
        return None
    _drop_empty(plain, found)
    for section, entry in _NAMED.items():
        _drop_nameless(plain, section, set(entry.model_fields), found)
    for _ in range(_MAX_ROUNDS):
        try:
            return LabFile.model_validate(plain)
        except ValidationError as error:
            wrong = error.errors(include_url=False)
        wrong.sort(key=lambda one: one["type"] != "extra_forbidden")  # they explain missing keys
        for one in wrong:
            _report(one, plain, found)
            if not _prune(plain, _path(one), one["type"]):
                return None
    return None


def _drop_nameless(
    plain: dict[str, Plain], section: str, fields: set[str], found: Findings
) -> None:
    """Find entries whose line with the name is missing, so that their keys stand in its place."""
    entries = plain.get(section)
    if not isinstance(entries, dict):
        return
    nameless = [key for key in entries if key in fields]
    if any(not isinstance(entries[key], dict) for key in nameless):
        first = nameless[0]
        what = f"a name is missing: `{first}` is a key of what stands under a name here"
        hint = f"put `NAME:` in a line of its own above it, or write {section}: {{NAME: {{…}}}}"
        found.add((section, first), what, hint, at_key=True)
        found.silence((section,))
        for key in nameless:
            del entries[key]


def _drop_empty(plain: dict[str, Plain], found: Findings) -> None:
    for path, value in list(_walk(plain, ())):
        empty = isinstance(value, Text) and value == "" and not value.quoted
        if not empty and value is not None:
            continue
        key, in_list = path[-1], isinstance(path[-1], int)
        if key == "stop_at_half_width" and value is None:
            continue
        if not in_list and (key in _MAY_BE_EMPTY or path in _empty_sections()):
            _prune(plain, path)
        elif len(path) == 2 and path[0] == "guests":
            _put(plain, path, {})
        elif _is_absent(path, value) or not found.sound(*path):
            _prune(plain, path)
        else:
            found.add(path, "has no value", _example(path), at_key=not in_list)
            _prune(plain, path)


def _is_absent(path: KeyPath, value: Plain) -> bool:
    """Say whether `~` or `null` stands where it means the same as no key at all."""
    is_setting = path[-2:-1] in (("set",), ("matrix",), ("parameters",))
    return value is None and not isinstance(path[-1], int) and not is_setting


def _empty_sections() -> set[KeyPath]:
    return {(name,) for name in _SECTIONS_MAY_BE_EMPTY}


def _walk(value: Plain, path: KeyPath) -> Iterator[tuple[KeyPath, Plain]]:
    if path:
        yield path, value
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = reversed(list(enumerate(value)))  # so that pruning keeps the indices before it
    for key, inner in items:
        yield from _walk(inner, (*path, key))


def _path(one: Any) -> KeyPath:  # noqa: ANN401 - pydantic's ErrorDetails
    return tuple(part for part in one["loc"] if part != "[key]")


def _at(plain: Any, path: KeyPath) -> Any:  # noqa: ANN401 - any part of the document
    for part in path:
        try:
            plain = plain[part]
        except (KeyError, IndexError, TypeError):
            return None
    return plain


def _put(plain: dict[str, Plain], path: KeyPath, value: Plain) -> None:
    _at(plain, path[:-1])[path[-1]] = value


def _prune(plain: dict[str, Plain], path: KeyPath, kind: str = "") -> bool:
    """Take the faulty value out; of a list the whole list, of a missing key its entry."""
    if kind == "missing" and len(path) == 1:
        plain[str(path[0])] = {"stock": {}}  # stands in, so that the rest can still be judged
        return True
    if kind == "missing":
        path = path[:-1]
    while path and not isinstance(_at(plain, path[:-1]), dict):
        path = path[:-1]
    if not path:
        return False
    _at(plain, path[:-1]).pop(path[-1], None)
    return True


def _schema_at(path: KeyPath) -> dict[str, Any]:
    """Return the part of the schema that describes a path, {} if none does."""
    schema = file_schema()
    for part in path:
        schema = _target(schema)
        if isinstance(part, int):
            schema = schema.get("items", {})
        else:
            inner = schema.get("properties", {}).get(part)
            named = schema.get("patternProperties", {}).values()
            rest: list[Any] = [schema.get("additionalProperties"), *named]
            schema = inner or next((one for one in rest if one), {})
    return _target(schema)


def _target(schema: dict[str, Any]) -> dict[str, Any]:
    for option in [schema, *schema.get("anyOf", [])]:
        if "$ref" in option:
            target: dict[str, Any] = file_schema()["$defs"][option["$ref"].rpartition("/")[2]]
            return target
    parts = [part for part in schema.get("anyOf", []) if part.get("type") in ("array", "object")]
    return parts[0] if parts else schema


def _example(path: KeyPath) -> str | None:
    schema = file_schema() if not path else _schema_at(path[:-1])
    described = schema.get("properties", {}).get(path[-1], {}).get("description")
    if not described:
        return "add a value, or remove the key"
    return re.split(r"\.(?: |$)", described, maxsplit=1)[0]  # the first sentence


def _report(one: Any, plain: dict[str, Plain], found: Findings) -> None:  # noqa: ANN401
    path, kind = _path(one), one["type"]
    if not found.sound(*path):
        return
    if kind == "extra_forbidden":
        known = list(_schema_at(path[:-1]).get("properties", {}))
        near = nearest(str(path[-1]), known)
        found.add(path, "unknown key", suggestion(str(path[-1]), known, "keys"), at_key=True)
        if near is not None and near not in (_at(plain, path[:-1]) or {}):
            found.silence((*path[:-1], near))
    elif kind == "missing":
        what = f"the key `{path[-1]}` is missing"
        found.add(path, what, _missing_hint(path), mark=found.document.key_mark(path[:-1]))
    elif one["loc"][-1:] == ("[key]",) and kind == "string_too_long":
        what = f"the name {units.quote(str(path[-1]))} has {len(str(path[-1]))} characters"
        found.add(path, what, f"at most {one['ctx']['max_length']} are allowed", at_key=True)
    elif one["loc"][-1:] == ("[key]",):
        what = f"{units.quote(str(path[-1]))} is not a name"
        found.add(path, what, "a name has letters, digits, and _ . - after the first", at_key=True)
    else:
        what, hint = _sentence(one, path)
        found.add(path, what, hint)


def _missing_hint(path: KeyPath) -> str | None:
    examples = {
        "kernels": "kernels: {stock: {source: debian:linux-source-6.1}}",
        "workload": "workload: NAME, one of `workloads:`",
        "command": "command: freebench",
    }
    if path[-1] == "kernels" and len(path) > 1:
        return "kernels: [stock, patched]"
    return examples.get(str(path[-1]))


def _sentence(one: Any, path: KeyPath) -> tuple[str, str | None]:  # noqa: ANN401
    kind, value, context = one["type"], one["input"], one.get("ctx", {})
    if kind == "value_error":
        error = context["error"]
        return str(error), getattr(error, "hint", None)
    if kind in ("string_type", "literal_error") and not isinstance(value, str):
        return f"must be one word or text, and is {units.kind(value)}", _example(path)
    if kind == "literal_error":
        known = [str(word).strip("'") for word in re.split(r", | or ", context["expected"])]
        near = nearest(str(value), known)
        choice = known[0] if len(known) == 1 else f"{', '.join(known[:-1])} or {known[-1]}"
        return (
            f"must be {choice}, and is {units.quote(str(value))}",
            near and f"did you mean {near}?",
        )
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        hint = f"write it as {{{path[-1] if path else 'key'}: {{key: value}}}}"
        return f"must be a mapping (keys and values), and is {units.kind(value)}", hint
    if kind in ("tuple_type", "list_type"):
        word = value if isinstance(value, str) and value else "first, second"
        return f"must be a list, and is {units.kind(value)}", f"write it in brackets: [{word}]"
    if kind in ("too_short", "string_too_short"):
        return "must not be empty", _empty_hint(path)
    if kind == "string_pattern_mismatch":
        return f"{units.quote(str(value))} is not what belongs here", _pattern_hint(path)
    return _range(kind, value, context, path)


def _empty_hint(path: KeyPath) -> str | None:
    if "matrix" in path:
        return f"give it values, as in {path[-1]}: [1, 2, 4], or remove the key"
    return "put something in it, or remove the key"


def _pattern_hint(path: KeyPath) -> str:
    if path[-1] == "file":
        return "an absolute path in the guest, like /proc/sys/vm/swappiness"
    return "letters, digits and _"


def _range(
    kind: str,
    value: Any,  # noqa: ANN401
    context: dict[str, Any],
    path: KeyPath,
) -> tuple[str, str | None]:
    limits = {
        "greater_than_equal": ("ge", "at least"),
        "greater_than": ("gt", "more than"),
        "less_than_equal": ("le", "at most"),
        "less_than": ("lt", "less than"),
        "multiple_of": ("multiple_of", "a multiple of"),
    }
    if kind not in limits:
        return f"is not valid: {kind.replace('_', ' ')}", _example(path)
    name, words = limits[kind]
    limit = context[name]
    is_size = path[-1] == "memory_per_node"
    shown = units.format_size(int(limit)) if is_size else f"{limit:g}"
    hint = None
    if is_size and re.fullmatch(r"[0-9]+", str(value)):
        hint = f"a size needs its unit: did you mean {value}MiB?"
    return f"must be {words} {shown}, and is {units.quote(str(value)).strip(chr(39))}", hint

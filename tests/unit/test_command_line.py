"""The kernel's command line, read back as Linux reads it; and what QEMU makes of names."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_virtme import spec, values

from labctl.errors import UserError
from labctl.guests import launchers, qemu
from labctl.lab.command_line import (
    LONGEST_BYTES,
    line_fault,
    parameter,
    parameters,
    value_fault,
    words,
)
from labctl.lab.names import safe_name


def as_linux_reads(line):
    """Return names and values as next_arg() of lib/cmdline.c finds them, byte by byte."""
    rest = line.encode()
    found = []
    while rest := rest.lstrip(b" \t\n\xa0"):
        quoted = rest.startswith(b'"')
        rest = rest[1:] if quoted else rest
        in_quote, equals, end = quoted, 0, len(rest)
        for i, byte in enumerate(rest):
            if byte in b" \t\n\xa0" and not in_quote:
                end = i
                break
            if not equals and byte == ord("="):
                equals = i
            if byte == ord('"'):
                in_quote = not in_quote
        word, rest = rest[:end], rest[end:]
        if not equals:
            found.append((word.removesuffix(b'"') if quoted else word, None))
            continue
        name, value = word[:equals], word[equals + 1 :]
        if value.startswith(b'"'):
            value = value[1:].removesuffix(b'"')
        if quoted:
            value = value.removesuffix(b'"')
        found.append((name, value))
    return found


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("1,3-5", "a=1,3-5"),
        ("file a.c +p", 'a="file a.c +p"'),
        ("/dev/x", "a=/dev/x"),
        ("a\\b", "a=a\\b"),
        ("it's", "a=it's"),
        (0.00001, "a=0.00001"),
        (7, "a=7"),
        ("", "a="),
        ("\u00e0", 'a="\u00e0"'),
    ],
)
def test_a_value_is_quoted_if_it_has_blanks(value, word):
    assert parameter("a", value) == word


@given(st.lists(st.text(st.characters(exclude_characters='"'))))
def test_linux_reads_the_intended_values(texts):
    good = [text for text in texts if value_fault(text) is None]
    line = parameters([(f"p{n}", text) for n, text in enumerate(good)])
    assert as_linux_reads(line) == [(f"p{n}".encode(), t.encode()) for n, t in enumerate(good)]
    assert line_fault(line) is None
    assert len(words(line)) == len(good)


@pytest.mark.parametrize("value", ['a"b', '"', "a\tb", "a\nb", "\0"])
def test_a_value_that_linux_cannot_read_is_refused(value):
    what, hint = value_fault(value)
    assert what.isprintable()
    assert hint


def test_an_open_quote_is_rejected():
    assert line_fault('a="b c" d') is None
    assert line_fault("a\nb\n") is None
    assert "unclosed" in line_fault('a="b c')[0]


def test_a_line_is_cut_into_words_as_linux_does():
    line = ' a="b  c" "d=e f" g '
    assert words(line) == ['a="b  c"', '"d=e f"', "g"]


def test_a_command_line_that_linux_would_cut_off_is_refused(tmp_path):
    def line_of(more):
        guest = dataclasses.replace(spec(tmp_path), launcher="qemu", command_line=more)
        (line,) = values(launchers.command(guest), "-append")
        return line

    room = LONGEST_BYTES - len(line_of("x")) + 1
    assert len(line_of("x" * room)) == LONGEST_BYTES
    with pytest.raises(UserError, match="2048 bytes; Linux reads at most 2047"):
        line_of("x" * (room + 1))


def test_a_comma_in_a_name_is_no_option_of_qemu(tmp_path):
    guest = dataclasses.replace(spec(tmp_path), launcher="qemu", name="a,debug-threads=on")
    assert values(qemu.command(guest), "-name") == ["labctl-a,,debug-threads=on"]


@given(st.text())
def test_a_safe_name_is_safe(text):
    name = safe_name(text)
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+-")
    assert len(name) <= 90


def test_safe_names_are_different():
    texts = ["a b", "a_b", "a,b", "a/b", "a" * 81, "a" * 82]
    assert len({safe_name(text) for text in texts}) == len(texts)
    assert safe_name("stock-aa-x.1") == "stock-aa-x.1"

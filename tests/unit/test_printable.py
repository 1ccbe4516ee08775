"""Output for a terminal: only colours pass, no other escape sequences."""

import io
import re
import time

import pytest
from click.testing import CliRunner

from labctl.cli import guests, labctl
from labctl.printable import Coloured, coloured, layout, printable

HARMFUL = (
    "\x1b]0;title\x07",
    "\x1b]52;c;cm0gLXJmIH4=\x1b\\",  # the clipboard
    "\x1bP$q\"p\x1b\\",  # DCS
    "\x1b_Gf=100;x\x1b\\",  # APC: pictures
    "\x1b^x\x1b\\",
    "\x1bX\x1b\\",
    "\x1bc\x1b[2J\x1b[?7l",
    "\x1b[21t\x1b[6n\x1b[c\x05",  # the terminal answers as if it was typed
    "\x9b2J\x9d0;x\x9c\x90x",
    "\x1b[31\x1b]0;x\x07m",
    "\x1b[>4;2m\x1b[?1m\x1b[0 m",
    "\x08\x0b\x0c\x0e\x0f\x7f\x00\r",
    "\u202ereversed\u2066\ufeff",
)  # fmt: skip


def passed(text):
    """Return the unprintable characters of a text, except tabs and newlines."""
    return re.sub(r"[\t\n]", "", "".join(c for c in text if not c.isprintable()))


@pytest.mark.parametrize("text", HARMFUL)
def test_only_colour_sequences_reach_a_terminal(text):
    assert passed(coloured(f"a{text}b")) == ""
    assert passed(layout(text)) == passed(printable(text)) == ""
    stream = Coloured()
    pieces = [stream.feed(bytes([byte])) for byte in f"a{text}b".encode()]
    assert "".join(pieces) == coloured(f"a{text}b")


def test_colours_tabs_and_words_stay():
    text = "\x1b[1;31mNode 0\x1b[0m:\t1536 MiB, 4.5 \u00b5s\n\x1b[38:2::1:2:3m\u6f22\x1b[m"
    assert coloured(text) == text
    stream = Coloured()
    assert "".join(stream.feed(bytes([byte])) for byte in text.encode()) == text


def test_invalid_utf8_is_shown_as_replacement():
    assert Coloured().feed(b"a\x9b2J\xff\xfeb") == "a\ufffd2J\ufffd\ufffdb"


@pytest.mark.parametrize("text", ["\x1b", "\x1b[", "\x1b[1;"])
def test_the_time_grows_with_the_length(text):
    def seconds(times):
        began = time.perf_counter()
        Coloured().feed((text * times).encode())
        return time.perf_counter() - began

    assert seconds(200_000) < 100 * seconds(10_000) + 1


@pytest.mark.parametrize("options", [["-n", "9"], ["-f"], ["-f", "-n", "2"]])
def test_a_guest_cannot_set_the_terminal_from_its_console(tmp_path, monkeypatch, options):
    (tmp_path / "bzImage").touch()
    (tmp_path / "lab.yaml").write_text("version: 1\nkernels: {stock: {source: 'image:bzImage'}}\n")
    guest = tmp_path / ".labctl" / "guests" / "stock"
    guest.mkdir(parents=True)
    (guest / "console.log").write_text("".join(f"{text}\r\n" for text in (*HARMFUL, "\tdone")))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(labctl, ["console", *options, "stock"], color=True)
    assert done.exit_code == 0
    assert done.stdout.endswith("\tdone\n")
    assert passed(done.stdout) == ""


class Terminal(io.TextIOWrapper):
    """A stream that is a terminal, or is not."""

    def __init__(self, *, is_terminal):
        super().__init__(io.BytesIO(), encoding="utf-8")
        self.is_terminal = is_terminal

    def isatty(self):
        return self.is_terminal


@pytest.mark.parametrize("number", [1, 2])
def test_a_command_in_a_guest_cannot_set_the_terminal(number):
    streams = [Terminal(is_terminal=True), Terminal(is_terminal=True)]
    pass_on = guests._passing(*streams)
    for byte in "".join(HARMFUL).encode() + b"\x1b[31mred\x1b[m 50%\r\n":
        pass_on(number, bytes([byte]))
    shown = streams[number - 1].buffer.getvalue().decode()
    assert "\x1b[31mred\x1b[m 50%\n" in shown
    assert passed(shown.replace("\x1b[31m", "").replace("\x1b[m", "")) == ""


def test_files_and_pipes_get_all_bytes_of_a_command():
    streams = [Terminal(is_terminal=False), Terminal(is_terminal=True)]
    data = "".join(HARMFUL).encode() + b"\xff\0\r\n"
    guests._passing(*streams)(1, data)
    assert streams[0].buffer.getvalue() == data

"""The `series` file: what quilt reads is honoured, all else refused with its line."""

import pytest

from labctl.series.listing import Entry, SeriesFault, entries


@pytest.mark.parametrize(
    ("line", "strip", "reverse"),
    [
        ("a.patch", 1, False),
        ("  a.patch\t-p0  ", 0, False),
        ("a.patch -p 0", 0, False),
        ("a.patch --strip=2", 2, False),
        ("a.patch --strip 2", 2, False),
        ("a.patch -pab", 1, False),
        ("a.patch -p ab", 1, False),
        ("a.patch -p0 -p2", 2, False),  # as patch: the last one
        ("a.patch -R", 1, True),
        ("a.patch --reverse -p0", 0, True),
        ("a.patch -Rp0", 0, True),
        ("a.patch -p2 -R # taken back", 2, True),
        ("a.patch -p0\r", 0, False),
        ("a.patch\t#-R", 1, False),
    ],
)
def test_options_are_those_of_quilt(line, strip, reverse):
    assert entries(f"# one\n\n{line}\n".encode()) == [Entry(3, "a.patch", strip, reverse)]


def test_names_keep_their_folders_and_signs():
    text = b"# all\r\n\r\nmm/a.patch\r\nnet/a.patch\n#b.patch\n c#d.patch\n../e.patch"
    names = ["mm/a.patch", "net/a.patch", "c#d.patch", "../e.patch"]
    assert [entry.name for entry in entries(text)] == names


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        (b"a.patch -F3\n", 1, "-F3"),
        (b"# x\na.patch --fuzz=2\n", 2, "--fuzz=2"),
        (b"\na.patch -p\n", 2, "-p"),
        (b"a.patch -p-1\n", 1, "-p-1"),
        (b"a.patch -pone\n", 1, "-pone"),
        (b"a.patch -l -p1\n", 1, "-l"),
        (b"a.patch b.patch\n", 1, "b.patch"),
        (b"a.patch\n-p1 b.patch\n", 2, "expected a patch before -p1"),
        (b"a.patch\nb.patch\n./a.patch\n", 3, "first in line 1"),
        (b"a.patch\nmm/../a.patch -R\n", 2, "first in line 1"),
        (b"a.patch\nb\xff.patch\n", 2, "UTF-8"),
        (b"a\0b.patch\n", 1, "invalid file name"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_its_line(text, line, what):
    with pytest.raises(SeriesFault) as caught:
        entries(text)
    assert caught.value.line == line
    assert what in caught.value.what

"""Texts that people read use the field's words: phrases that were replaced do not come back."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
# Replaced phrases, as expressions over text in lower case with single spaces. A phrase that
# is also good English elsewhere has the words that it had with it.
PHRASES = [
    "where the report goes",
    "look into the method",
    "look after patch series",
    "only checks of such names",
    "end a kernel's checks with a failure",
    "fails on the base as well is none",
    "of a decision, at most",
    "is no name=value",
    "(?:stand|stands) still",
    "they are witnesses",
    "is no text",
    "also what was measured",
    r"(?:^|[^\w ]) ?up: [{%]",
    "go on with what comes",
    "a run measures, or gdb has it",
    "wait for the end of the other",
    "how long it may take",
    "builds and all",
    "so many seconds",
    "try what the lab needs",
    "say what mends",
    "stands beside",
    "stands twice",
    "is not what belongs here",
    "it is not said",
    "is not there for",
    "a tab stands here",
    "is not who it should be",
    "does not let us in",
    "is no night",
    r"\bdid not hold",
    "time of this night",
    "too near, or",
    "host too loud",
    r"\bloud(?:er)? host",
    "was not entered",
    "handovers stayed",
    "no time outweighs",
    "a few blocks carry it",
    "take the t test its power",
    "somebody's git",
    "only ever looked at",
    "memory .{0,20}that nobody has",
    "so many blocks see",
    "four times in five",
    r"\bothers took",
    r"\bmind: ",
    "the host stayed loaded",
    # One word for one thing.
    r"\bown machine\b",
    r"\bvisit(?:ed)?\b",
    r"\bsecond self\b",
    r"\bcontrol that differs\b",
    r"\b(?:told|tells)\b",
    r"\bknobs?\b(?!-refused)",
]
# Patches have the words of their authors.
LEFT_OUT = re.compile(r"(?:^patches/|^tests/(?:mutants|bisect)/|\.svg$|^COPYING$)")


def texts():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git work tree")
    for name in listed.stdout.decode().split("\0")[:-1]:
        path = ROOT / name
        if LEFT_OUT.search(name) or path == Path(__file__) or not path.is_file():
            continue
        try:
            yield name, plain(path.read_text())
        except UnicodeDecodeError:
            continue


def plain(text):
    """Return text in lower case, with sentences of several lines or literals in one line."""
    joined = re.sub(r'"\s*\n\s*f?"', "", text)
    return re.sub(r"\s+(?:(?:[#*]|//)\s+)?", " ", joined).lower()


def test_phrases_over_several_lines_are_found():
    assert "they are witnesses" in plain("# They are\n    # witnesses")
    assert "they are witnesses" in plain('"They are "\n        f"witnesses"')


def test_replaced_phrases_are_not_used():
    found = [
        f"{name}: {match[0]!r}"
        for name, text in texts()
        for phrase in PHRASES
        for match in re.finditer(phrase, text)
    ]
    assert found == []

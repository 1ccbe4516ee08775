"""README, CONTRIBUTING and docs: links lead somewhere, commands exist, the site builds."""

import configparser
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from labctl.cli import labctl

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")])
WRITTEN = [page for page in PAGES if page.parent.name != "reference"]  # the others: generated
SOURCES = sorted([*ROOT.glob("labctl/**/*.py"), *ROOT.glob("bench/*")])
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def name_of(path):
    return str(path.relative_to(ROOT))


def commands(text):
    """Return the words of each labctl command in code: `labctl run smoke`, `$ labctl plan`."""
    inline = re.findall(r"`labctl ([^`]+)`", text.replace("\n", " "))
    lines = re.findall(r"^(?:\$ |    )labctl ([^#\n]*)", text, re.MULTILINE)
    found = []
    for command in [*inline, *lines]:
        words = shlex.split(re.sub(r"[\[\]]| …|[>|].*", " ", command))
        found += [words] if words else []
    return found


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files(page):
    text = FENCED.sub("", page.read_text())
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_commands_and_their_options_exist(page):
    for words in commands(page.read_text()):
        command, rest = labctl, list(words)
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            name = rest.pop(0).rstrip(",.")
            assert name in command.commands, f"labctl {' '.join(words)}"
            command = command.commands[name]
        known = {opt for param in command.params for opt in param.opts} | {"--help", "-h"}
        if command.name in ("exec", "ssh"):  # what follows the guest is its command
            continue
        rest = rest[: rest.index("--")] if "--" in rest else rest  # of another program
        unknown = [w for w in rest if w.startswith("-") and w.split("=")[0] not in known]
        assert not unknown, f"labctl {' '.join(words)}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_pages_that_the_code_names_exist(path):
    if path.is_file():
        named = re.findall(r"\bdocs/[\w/.-]+\.md\b", path.read_text())
        assert all((ROOT / page).is_file() for page in named)


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=name_of)
def test_targets_of_make_and_paths_exist(page):
    text = page.read_text()
    targets = set(re.findall(r"\bmake ([a-z0-9]+)", text))
    known = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets <= known
    paths = re.findall(
        r"`(?:\.venv/bin/pytest )?((?:labctl|guest|patches|tests|bench|docs|contrib|\.github)"
        r"/[\w./-]*)`",
        text,
    )
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_pre_commit_runs_what_lint_runs():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    (repo,) = config["repos"]
    assert repo["repo"] == "local"  # needs no network
    hooks = {hook["id"]: hook["entry"].removeprefix(".venv/bin/") for hook in repo["hooks"]}
    subject = re.compile(hooks.pop("subject"), re.MULTILINE | re.DOTALL)
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini")
    commands = tox["testenv:lint"]["commands"]
    assert len(commands.strip().splitlines()) == len(hooks)
    for entry in hooks.values():
        assert entry.replace(" --force-exclude", "") in commands
    assert subject.search("kernels: read the work tree with git status only\n\nWhy.\n")
    assert not subject.search("Read the work tree\n")
    assert not subject.search(f"docs: {'x' * 70}\n")


def test_the_reference_matches_the_code():
    argv = [sys.executable, "docs/generate", "--check"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_site_builds_without_a_broken_link(tmp_path):
    pytest.importorskip("material")
    argv = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 20
    # What a page fetches comes from the site itself.
    fetched = re.compile(r'<(?:script|img|link rel="stylesheet")[^>]+(?:src|href)="https?:')
    assert not any(fetched.search(page.read_text()) for page in pages)

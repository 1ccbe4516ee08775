"""Shell completion and man pages, both made from click's commands."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def labctl(*words, **environment):
    argv = [sys.executable, "-m", "labctl", *words]
    return subprocess.run(
        argv, capture_output=True, text=True, env={**os.environ, **environment}, check=True
    ).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_a_script_it_can_read(shell):
    script = labctl("completion", shell)
    assert f"_LABCTL_COMPLETE={shell}_complete" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_bash_completes_commands_and_options(tmp_path):
    program = tmp_path / "labctl"
    program.write_text(f"""#!{sys.executable}
import sys
sys.path.insert(0, {str(ROOT)!r})
from labctl.cli import main
main()
""")
    program.chmod(0o755)
    script = labctl("completion", "bash")

    def completed(*words):
        line = " ".join(f"'{word}'" for word in words)
        ask = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _labctl_completion labctl"
        done = subprocess.run(
            ["bash", "-c", f'{script}\n{ask}; printf "%s\\n" "${{COMPREPLY[@]}}"'],
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
            check=True,
        )
        return done.stdout.split()

    assert completed("labctl", "bis") == ["bisect"]
    assert completed("labctl", "series", "") == ["check"]
    assert completed("labctl", "run", "--res") == ["--resume"]


def test_every_command_has_a_man_page(tmp_path):
    pytest.importorskip("click_man")
    subprocess.run([sys.executable, "docs/generate/man.py", str(tmp_path)], cwd=ROOT, check=True)
    pages = {path.name for path in tmp_path.iterdir()}
    assert {"labctl.1", "labctl-run.1", "labctl-series-check.1"} <= pages
    if shutil.which("groff"):
        roff = ["groff", "-man", "-Tascii", "-P-c", "-ww", *sorted(tmp_path.iterdir())]
        done = subprocess.run(roff, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert re.search(r"labctl init {2,}\S", done.stdout)  # columns are kept

"""`labctl exec` with a stopped guest, and with input while the command runs."""

import os
import signal
import subprocess
from pathlib import Path

# Longer than labctl's own deadlines.
SECONDS = 120


def test_a_stopped_guest_is_named_and_a_living_one_streams(labctl):
    labctl("up", "stock")
    (pid,) = labctl.guests_running()

    os.kill(pid, signal.SIGSTOP)
    for words in (["status"], ["exec", "--timeout", "4", "stock", "true"]):
        done = subprocess.run(
            labctl.argv(*words), cwd=labctl.folder, capture_output=True, text=True, timeout=SECONDS
        )
        assert done.returncode == (0 if words == ["status"] else 1), done.stderr
        assert "hung" in done.stdout or "did not answer within 4 s" in done.stderr
    os.kill(pid, signal.SIGCONT)

    # The command runs, and its output arrives, before its input ends.
    with subprocess.Popen(
        labctl.argv("exec", "stock", "cat"),
        cwd=labctl.folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        labctl.started.append(process)
        process.stdin.write(b"first\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"first\n"
        process.stdin.close()
        assert process.wait(SECONDS) == 0
    with Path("/dev/zero").open("rb") as zeros:
        assert labctl("exec", "stock", "exit 3", check=False, stdin=zeros).returncode == 3
    labctl("down")

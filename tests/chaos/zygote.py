"""Runs labctl in forked processes of one that has imported it, with `fault.c` preloaded.

Reads requests from stdin, one JSON object a line, and answers each with a line. A child
is armed, then runs `labctl ARGV` in its folder.
"""

import contextlib
import ctypes
import json
import os
import pkgutil
import signal
import sys
import time
from pathlib import Path


def preload():
    """Import everything, so that no case of a test waits for it."""
    import labctl

    for module in pkgutil.walk_packages(labctl.__path__, "labctl."):
        if not module.name.endswith(("__main__", "pytest_plugin")):
            with contextlib.suppress(ImportError):
                __import__(module.name)
    __import__("pytest")


def lock_in(folder):
    """Let runs wait only for each other, not for a measurement of this host."""
    from labctl.host import lock

    lock._OF_ROOT, lock._OF_ALL = Path(folder), ()


def child(request):
    os.setsid()
    os.chdir(request["folder"])
    for number, name in ((0, "/dev/null"), (1, request["out"]), (2, request["err"])):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), number)
    os.environ.update(request["env"])
    if "sources" in request:
        from labctl.kernels import sources

        sources.DEBIAN_FOLDER = Path(request["sources"])
    main = main_of(request["argv"])
    sys.argv = ["labctl", *request["argv"]]
    status = 70
    arm = ctypes.CDLL(None).chaos_arm
    words = [request[name].encode() for name in ("counter", "root")]
    if arm(*words, request["mode"], ctypes.c_uint64(request["at"]), request["log"].encode()):
        os._exit(99)
    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
    finally:
        os._exit(status)


def main_of(argv):
    """Return what runs the words of a command line: those of labctl, or `pytest ...`."""
    import pytest

    from labctl.cli import main

    return main if argv[0] != "pytest" else lambda: sys.exit(pytest.main(argv[1:]))


def wait(pid, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "timeout"


def serve(locks):
    preload()
    lock_in(locks)
    for name in ("LD_PRELOAD",):
        os.environ.pop(name, None)  # labctl's programs run without it
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "wait":
            answer = wait(request["pid"], request["seconds"])
        else:
            answer = os.fork()
            if answer == 0:
                with contextlib.suppress(BaseException):
                    child(request)
                os._exit(98)
        print(json.dumps(answer), flush=True)


serve(sys.argv[1])

"""A machine with nothing but Python: an empty root without network, and an ordinary user in it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from labctl.arch import X86_64
from labctl.workloads.closure import closure

USER = 65534
_DEVICES = ("null", "zero", "urandom")
# Private mounts, PIDs and network. $1 is the root, $2 the user, the rest the command.
_ENTER = """\
set -e
root=$1; user=$2; shift 2
mount -t proc proc "$root/proc"
for name in null zero urandom; do mount --bind "/dev/$name" "$root/dev/$name"; done
exec chroot $user "$root" "$@"
"""
# With nothing of the test's environment.
_START = """\
import os, sys
os.chdir("/home")
os.execve(sys.executable, [sys.executable, *sys.argv[1:]], {"HOME": "/home"})
"""


def _rest_of_glibc(system):
    """Return the libraries of the glibc package that Python itself does not need."""
    libc = next(Path(path) for path in system if Path(path).name == "libc.so.6")
    names = ("libdl.so.2", "libm.so.6", "libpthread.so.0", "librt.so.1", "libutil.so.1")
    return {f"/lib/{one}": libc.with_name(one).resolve() for one in names}


class Bare:
    """The machine; its files are in `root`."""

    def __init__(self, root):
        self.root = root
        self.home = root / "home"
        for name in ("proc", "dev", "tmp", "home"):
            (root / name).mkdir(parents=True)
        for name in _DEVICES:
            (root / "dev" / name).touch()
        (root / "tmp").chmod(0o1777)
        self.python = Path(sys.executable).resolve()
        found = closure(self.python, X86_64)
        libraries = {f"/lib/{name}": path for name, path in found.libraries.items()}
        libraries |= _rest_of_glibc(found.system)
        python = {str(self.python): self.python}
        for path, source in {**libraries, **found.system, **python}.items():
            inside = root / path.lstrip("/")
            inside.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(source, str):
                inside.symlink_to(source)
            else:
                shutil.copy(source, inside)
        if os.geteuid() == 0:
            os.chown(self.home, USER, USER)

    def argv(self, *words):
        own = () if os.geteuid() == 0 else ("--map-root-user",)
        user = f"--userspec={USER}:{USER}" if os.geteuid() == 0 else "--userspec=0:0"
        spaces = ("unshare", *own, "--mount", "--net", "--pid", "--fork", "--kill-child")
        return [*spaces, "sh", "-c", _ENTER, "sh", self.root, user, *words]

    def __call__(self, *words, check=True):
        """Run Python with these words in the home folder."""
        argv = self.argv(self.python, "-c", _START, *words)
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env={"HOME": "/home", "PATH": os.environ["PATH"]},
        )
        assert "Traceback" not in done.stderr
        if check:
            assert done.returncode == 0, done.stderr
        return done

    def json(self, *words):
        return json.loads(self(*words).stdout)

    def refusal(self):
        """Return why this host cannot make such a machine, "" if it can."""
        done = subprocess.run(self.argv(self.python, "-c", ""), capture_output=True, text=True)
        return done.stderr.strip() if done.returncode else ""

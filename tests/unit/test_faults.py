"""What the host did to a build is not what the source did."""

import shutil
import subprocess
import sys

import pytest

from labctl.kernels import faults

KILLED = [
    "gcc: fatal error: Killed signal terminated program cc1\ncompilation terminated.",
    "collect2: fatal error: ld terminated with signal 9 [Killed]",
    "make[3]: *** [scripts/Makefile.build:250: mm/memory.o] Killed",
    "make[1]: *** [Makefile:1255: vmlinux] Error 137",
    "Killed",
    "/bin/sh: line 1: 4711 Killed                  ld -m elf_x86_64",
    "cc1: out of memory allocating 65536 bytes after a total of 1245184 bytes",
    "virtual memory exhausted: Cannot allocate memory",
]


@pytest.mark.parametrize("output", KILLED)
def test_a_killed_compiler_is_the_hosts_fault(output):
    fault = faults.of_host(f"  CC      mm/memory.o\n{output}\n", "it fails", "the.log", "disk")
    assert "OOM killer" in str(fault)
    assert "the.log" in str(fault)


@pytest.mark.parametrize(
    "output",
    [
        "mm/oom_kill.c:9:2: error: 'Killed' undeclared\n    9 |   Killed = 1;",
        "mm/oom_kill.c:9:2: error: expected ';'\nmake[1]: *** [x] Error 1\nKilled",
        '  pr_err("Killed process %d")',
        "make: *** [Makefile:1: all] Error 2",
    ],
)
def test_a_mistake_in_the_source_is_not(output):
    assert faults.of_host(output, "it fails", "the.log", "disk") is None


BUILD = """
import sys; from pathlib import Path
from labctl import cli
from labctl.guests import initramfs
cli._quietly(lambda: initramfs.build(Path(sys.argv[1]) / ".labctl"))
"""


@pytest.mark.parametrize("kib", [8, 64, 900, 3500])
def test_a_full_disk_is_named_wherever_it_comes(tmp_path, kib):
    if not shutil.which("unshare") or not shutil.which("gcc"):
        pytest.skip("needs unshare and gcc")
    mount = f'mount -t tmpfs -o size={kib}k tmpfs "$0" 2>/dev/null || exit 77; exec "$@"'
    unshare = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, tmp_path]
    words = [*unshare, sys.executable, "-c", BUILD, tmp_path]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("mounting is not allowed here")
    assert "Traceback" not in done.stderr
    assert done.returncode == 3, done.stderr
    assert str(tmp_path) in done.stderr
    assert "No space left on device" in done.stderr or "disk is full" in done.stderr

"""A full disk is reported as that, with the file, wherever it comes: a real one of some KiB."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_guest_folder import spec  # noqa: F401 - a fixture

from labctl.errors import GuestHung, HostError, UserError
from labctl.guests.guest import Guest
from labctl.reports import report


def on_a_small_disk(place, kib, program, *words):
    """Run Python with a disk of `kib` KiB mounted at `place`; skip if mounting is not allowed."""
    if not shutil.which("unshare"):
        pytest.skip("needs unshare")
    mount = f'mount -t tmpfs -o size={kib}k tmpfs "$0" 2>/dev/null || exit 77; exec "$@"'
    unshare = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, str(place)]
    argv = [*unshare, sys.executable, "-c", program, str(place), *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("mounting is not allowed here")
    assert "Traceback" not in done.stderr
    return done


REPORT = """
import sys
from pathlib import Path
from labctl import cli
from labctl.reports import report
place = Path(sys.argv[1])
def write():
    try:
        report.write(place / "report.html", "x" * (1 << 20))
    finally:
        print(sorted(path.name for path in place.iterdir()))
cli._quietly(write)
"""


def test_a_report_that_does_not_fit_is_the_hosts_fault_and_leaves_no_part(tmp_path):
    done = on_a_small_disk(tmp_path, 64, REPORT)
    assert done.returncode == 3, done.stderr
    assert f"{tmp_path}/report.html: cannot write: No space left on device" in done.stderr
    assert "hint: free disk space" in done.stderr
    assert done.stdout == "[]\n"


def test_a_device_that_is_full_is_not_removed():
    with pytest.raises(HostError, match="No space left"):
        report.write(Path("/dev/full"), "text")
    assert Path("/dev/full").exists()


UNPACK = """
import errno, io, sys, tarfile
from pathlib import Path
from labctl.workloads import trees
place = Path(sys.argv[1])
archive = Path(sys.argv[2])
with tarfile.open(archive, "w") as file:
    info = tarfile.TarInfo("usr/large")
    info.size = 1 << 20
    file.addfile(info, io.BytesIO(bytes(info.size)))
try:
    trees.unpack(archive, place)
except OSError as error:
    print(errno.errorcode[error.errno], error.filename)
"""


def test_a_root_that_does_not_fit_is_named(tmp_path):
    (tmp_path / "small").mkdir()
    done = on_a_small_disk(tmp_path / "small", 64, UNPACK, str(tmp_path / "root.tar"))
    assert done.stdout == f"ENOSPC {tmp_path}/small/usr/large\n", done.stderr


SAMPLES = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from samples import sample
from labctl import cli
from labctl.runs.store import Store
store = Store(Path(sys.argv[1]))
count = 0
def fill():
    global count
    try:
        while True:
            store.append(sample(repetition=count))
            count += 1
    finally:
        again = Store(store.path.parent)
        print(count, len(again.samples()), repr(again.torn))
cli._quietly(fill)
"""


def test_no_part_of_a_sample_that_does_not_fit_is_taken_for_a_sample(tmp_path):
    done = on_a_small_disk(tmp_path, 32, SAMPLES, str(Path(__file__).parent))
    assert done.returncode == 3, done.stderr
    assert "samples.jsonl: cannot write sample: No space left on device" in done.stderr
    assert "hint: free disk space, then continue with `labctl run --resume`" in done.stderr
    count, read, torn = done.stdout.split()
    assert int(count) > 0
    assert (read, torn) == (count, "''")


FOLDER = """
import sys
from pathlib import Path
from labctl import cli
from labctl.guests import folder, qemu
from labctl.guests.qemu import GuestSpec
from labctl.kernels.build import Image
from labctl.lab.topology import Topology
place = Path(sys.argv[1])
image = Image("k", place / "bzImage", "0" * 32, "0", None, (), None, "6.1", "")
spec = GuestSpec("k", image, Topology(), place / "initramfs", "tcg", place / "guest")
(place / "guest").mkdir()
with open(place / "filler", "wb", buffering=0) as file:
    try:
        while True:
            file.write(b"x" * 4096)
    except OSError:
        pass
cli._quietly(lambda: folder.prepare_folder(spec))
"""


def test_a_guest_folder_that_does_not_fit_is_named(tmp_path):
    done = on_a_small_disk(tmp_path, 64, FOLDER)
    assert done.returncode == 3, done.stderr
    assert f"{tmp_path}/guest/" in done.stderr
    assert "No space left on device" in done.stderr


def test_a_guest_without_room_for_its_console_is_no_fault(spec, monkeypatch, tmp_path):  # noqa: F811
    """What the kernel said last is missing then, and its silence or end says nothing."""
    with Guest(spec) as guest:
        monkeypatch.setattr("labctl.files.free_bytes", lambda _: 0)
        with pytest.raises(HostError, match="disk full: QEMU cannot write the guest's console"):
            guest._watchdog.explain_silence(GuestHung("no response"), lambda: "running")
    program = tmp_path / "bin" / "qemu-system-x86_64"
    program.write_text("#!/bin/sh\nexit 1\n")
    with Guest(spec) as guest, pytest.raises(HostError, match="disk full"):
        guest.wait_ready(30)


def test_other_errors_of_a_report_stay_the_users(tmp_path):
    with pytest.raises(UserError, match="cannot write: Is a directory"):
        report.write(tmp_path, "text")

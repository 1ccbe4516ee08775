"""The probe guest: its bytes match its source, and each failure has its own message."""

import shutil
import subprocess
from pathlib import Path

import pytest

from labctl.errors import HostError
from labctl.guests import accelerator, probe
from labctl.host import identity

SOURCE = Path(__file__).parent.parent.parent / "guest/probe/probe.S"
RUNS = f'echo "{probe.TOKEN.decode()}"; exit {probe.STATUS}'
# Opens for nobody, not even for root: a kernel's constant under /proc/sys.
DENIED = Path("/proc/sys/kernel/osrelease")


@pytest.fixture
def device(tmp_path):
    path = tmp_path / "kvm"
    path.touch()
    return path


@pytest.fixture
def fake_qemu(tmp_path, monkeypatch):
    """Return a function that puts a QEMU on PATH: one shell script for each accelerator."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def fake(kvm=RUNS, tcg=RUNS):
        path = folder / "qemu-system-x86_64"
        path.write_text(f'#!/bin/sh\ncase "$*" in *"-accel kvm"*) {kvm} ;; *) {tcg} ;; esac\n')
        path.chmod(0o755)

    return fake


@pytest.mark.skipif(not shutil.which("as"), reason="no assembler")
def test_the_code_is_what_the_source_assembles_to(tmp_path):
    built, linked = tmp_path / "probe.o", tmp_path / "probe.bin"
    subprocess.run(["gcc", "-c", "-o", built, SOURCE], check=True)
    subprocess.run(["ld", "--oformat", "binary", "-Ttext", "0", "-o", linked, built], check=True)
    assert linked.read_bytes() == probe.CODE


def test_the_reset_vector_jumps_to_the_code():
    rom = probe.rom()
    assert len(rom) == 65536
    opcode, displacement = rom[0xFFF0], int.from_bytes(rom[0xFFF1:0xFFF3], "little")
    assert opcode == 0xE9
    assert (0xFFF3 + displacement) % 65536 == 0


@pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="no QEMU")
def test_a_real_probe_guest_runs_under_tcg():
    assert probe.failure("tcg", timeout_seconds=60) == ""
    bound = probe.failure("tcg", "memory-backend-ram,policy=bind,host-nodes=127")
    assert bound.startswith("QEMU exited with status 1: ")


def test_a_probe_guest_that_runs_is_no_failure(fake_qemu, device):
    fake_qemu()
    assert accelerator.kvm_failure(device) == ""


def test_a_device_that_opens_and_then_hangs_is_reported_as_hanging(fake_qemu, device):
    fake_qemu(kvm="exec sleep 60")
    result = accelerator.kvm_failure(device, timeout_seconds=0.3)
    assert result == (f"{device} can be opened, but the probe guest hung: no result within 0.3 s")


def test_the_last_words_of_qemu_are_reported(fake_qemu, device):
    words = "kvm.c:1: kvm_buf_set_msrs: Assertion failed."
    fake_qemu(kvm=f'echo noise >&2; echo "qemu-system-x86_64: {words}" >&2; kill -ABRT $$')
    result = accelerator.kvm_failure(device)
    assert result.endswith(f"QEMU was killed by SIGABRT: {words}")


def test_a_status_without_the_token_is_a_failure(fake_qemu, device):
    fake_qemu(kvm=f"exit {probe.STATUS}")
    assert "no output" in accelerator.kvm_failure(device)
    fake_qemu(kvm=f'echo "{probe.TOKEN.decode()}"; exit 1')
    assert "status 1" in accelerator.kvm_failure(device)


def test_a_device_that_cannot_be_opened_is_not_probed(tmp_path):
    assert "Permission denied" in accelerator.kvm_failure(DENIED)
    assert accelerator.kvm_failure(tmp_path / "kvm") == f"{tmp_path}/kvm does not exist"


def test_without_qemu_there_is_no_answer(device, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="not installed"):
        accelerator.kvm_failure(device)


def test_auto_takes_what_works_and_remembers_it(fake_qemu, device, tmp_path):
    facts, cache = identity.describe(), tmp_path / "accelerator.json"
    fake_qemu()
    assert accelerator.choose("auto", host=facts, cache=cache, device=device) == "kvm"
    fake_qemu(kvm="exit 1")  # not asked again in this boot of the host
    assert accelerator.choose("auto", host=facts, cache=cache, device=device) == "kvm"
    assert accelerator.choose("tcg", host=facts, cache=cache, device=device) == "tcg"
    cache.unlink()
    assert accelerator.choose("auto", host=facts, cache=cache, device=device) == "tcg"
    with pytest.raises(HostError, match="status 1") as caught:
        accelerator.choose("kvm", host=facts, cache=cache, device=device)
    assert "labctl doctor" in caught.value.hint


def test_a_lack_of_permission_is_not_remembered(fake_qemu, device, tmp_path):
    facts, cache = identity.describe(), tmp_path / "accelerator.json"
    fake_qemu()
    assert accelerator.choose("auto", host=facts, cache=cache, device=DENIED) == "tcg"
    assert accelerator.choose("auto", host=facts, cache=cache, device=device) == "kvm"

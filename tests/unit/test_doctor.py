"""The doctor on this host and on fake hosts with faults."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import synthetic
from test_probe import DENIED, RUNS

from labctl.doctor import building, running, trials
from labctl.doctor.diagnosis import Diagnosis, ok, worst
from labctl.doctor.host_tests import HostTests
from labctl.experiments.needs import needs_of
from labctl.guests import virtme
from labctl.host.facts import read_facts
from labctl.host.procfs import numbers
from labctl.lab.models import Kernel
from labctl.lab.topology import Topology

GIB = 2**30
MEMINFO = "MemTotal: {total} kB\nMemFree: 1 kB\nMemAvailable: {available} kB\n"


def give_host(root, cpus=8, nodes=1, available_gib=64, flags="vmx", governor="performance"):
    """Write /proc and /sys of a host below `root`: two threads per core, equal nodes."""

    def put(path, text):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")

    kibibytes = int(available_gib * 2**20)
    put("proc/meminfo", MEMINFO.format(total=kibibytes + 2**20, available=kibibytes))
    put("proc/cpuinfo", f"processor\t: 0\nflags\t\t: fpu {flags}\n")
    for cpu in range(cpus):
        folder = f"sys/devices/system/cpu/cpu{cpu}"
        put(f"{folder}/topology/thread_siblings_list", f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}")
        put(f"{folder}/cpufreq/scaling_governor", governor)
    each = cpus // nodes
    for node in range(nodes):
        folder = f"sys/devices/system/node/node{node}"
        put(f"{folder}/cpulist", f"{node * each}-{node * each + each - 1}")
        put(
            f"{folder}/meminfo",
            f"Node {node} MemFree: {kibibytes // nodes} kB\n"
            f"Node {node} Active(file): 1024 kB\nNode {node} Inactive(file): 1024 kB",
        )
        put(f"{folder}/hugepages/hugepages-2048kB/free_hugepages", 512)
    put("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", 512 * nodes)
    put("sys/module/kvm_intel/parameters/nested", "Y")
    return read_facts(root, range(cpus))


@pytest.fixture
def good_tools(tmp_path, monkeypatch):
    """Put fake tools and a fake QEMU on PATH; return their folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in (*building.PACKAGES, "ccache"):
        script(folder / name, f'[ "$1" = --version ] && echo {name} 1.0; exit 0')
    script(folder / "qemu-system-x86_64", QEMU)
    for name in ("sh", "sleep", "kill", "cat", "env"):
        (folder / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def lab_of():
    """Return a function that makes a lab with additional keys for its guest."""

    def give(**keys):
        lab = synthetic.lab()
        return lab.model_copy(update={"guests": {"numa4": Topology(**keys)}})

    return give


QEMU = f"""\
case "$*" in
*--version*) echo "QEMU emulator version 8.2.0"; exit 0 ;;
*"-accel kvm"*) eval "${{FAKE_KVM:-{RUNS.replace('"', chr(92) + '"')}}}" ;;
*) {RUNS} ;;
esac"""


def script(path, text):
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def diagnose(tmp_path, good_tools):
    """Return a function that runs the doctor on a host and returns diagnoses by name."""
    device = tmp_path / "kvm"
    device.touch()
    usual = synthetic.lab()

    def diagnoses(facts=None, accel="auto", lab=usual, **more):
        defaults = lab.defaults.model_copy(update={"accel": accel})
        tests = HostTests(
            lab=lab.model_copy(update={"defaults": defaults}),
            state=tmp_path / "state",
            facts=facts or give_host(tmp_path / "host"),
            progress=lambda what: None,
            **{"kvm_device": device, "probe_seconds": 10.0, "load_seconds": 0.05, **more},
        )
        return {one.name: one for one in tests.diagnoses()}

    return diagnoses


def test_a_good_host_passes_every_test(diagnose):
    found = diagnose()
    # Load and Debian packages are those of the real host: do not check them.
    for name in ("load", "ccache", "sources", "disk"):
        found.pop(name)
    assert {one.name: one.status for one in found.values()} == dict.fromkeys(found, "ok"), found
    assert found["qemu"].what == "8.2.0"
    assert {"tcg", "kvm", "memory", "cores", "numa", "hugepages", "compilers"} <= set(found)


def test_missing_qemu_fails_and_other_tests_still_run(diagnose, good_tools):
    (good_tools / "qemu-system-x86_64").unlink()
    found = diagnose()
    assert found["qemu"].status == "fail"
    assert "apt-get install qemu-system-x86" in found["qemu"].mend
    assert "not tested" in found["kvm"].what
    assert "tcg" not in found
    assert found["memory"].status == "ok"


def test_an_old_qemu_fails(diagnose, good_tools):
    script(good_tools / "qemu-system-x86_64", "echo QEMU emulator version 4.2.1")
    assert "too old" in diagnose()["qemu"].what


@pytest.mark.parametrize(("accel", "status"), [("auto", "warn"), ("kvm", "fail"), ("tcg", "ok")])
def test_no_permission_on_the_device(diagnose, accel, status):
    kvm = diagnose(accel=accel, kvm_device=DENIED)["kvm"]
    assert kvm.status == status
    assert "Permission denied" in kvm.what
    assert status == "ok" or "usermod -aG kvm" in kvm.mend


def test_hanging_kvm_is_reported_as_hanging(diagnose, monkeypatch):
    monkeypatch.setenv("FAKE_KVM", "exec sleep 60")
    kvm = diagnose(probe_seconds=0.5)["kvm"]
    assert kvm.status == "warn"
    assert "can be opened, but the probe guest hung" in kvm.what
    assert "0.5 s" in kvm.what


def test_crash_under_kvm_reports_qemus_last_output(diagnose, monkeypatch):
    monkeypatch.setenv("FAKE_KVM", "echo 'Assertion x failed.' >&2; kill -ABRT $$")
    kvm = diagnose(accel="kvm")["kvm"]
    assert kvm.status == "fail"
    assert kvm.what.endswith("QEMU was killed by SIGABRT: Assertion x failed.")


@pytest.mark.parametrize(
    ("flags", "word"),
    [("vmx", "modprobe kvm_intel"), ("svm", "modprobe kvm_amd"), ("", "firmware"),
     ("hypervisor", "virtual machine")],
)  # fmt: skip
def test_a_missing_kvm_device_has_the_matching_fix(diagnose, tmp_path, flags, word):
    facts = give_host(tmp_path / "host", flags=flags)
    kvm = diagnose(facts, kvm_device=tmp_path / "nothing")["kvm"]
    assert kvm.status == "warn"
    assert word in kvm.mend


def test_a_run_uses_the_latest_kvm_result(diagnose, tmp_path, monkeypatch):
    (tmp_path / "state").mkdir()
    monkeypatch.setenv("FAKE_KVM", "exit 3")
    diagnose()
    assert "status 3" in json.loads((tmp_path / "state/accelerator.json").read_text())["reason"]
    monkeypatch.delenv("FAKE_KVM")
    diagnose()
    assert json.loads((tmp_path / "state/accelerator.json").read_text())["reason"] == ""


def test_one_gibibyte_is_too_little_for_the_guests(diagnose, tmp_path):
    memory = diagnose(give_host(tmp_path / "host", available_gib=1))["memory"]
    assert memory.status == "fail"
    assert "1 GiB of 2 GiB available" in memory.what
    assert "e needs 18 GiB for 3 guests" in memory.what
    assert "labctl down" in memory.mend
    assert "memory_per_node: 85MiB" in memory.mend  # 1 GiB / 12 nodes


def test_guests_are_counted_as_a_run_boots_them():
    lab = synthetic.lab(matrix={"numa_balancing": (0, 1)})  # a kernel parameter: its own boots
    (need,) = needs_of(lab)
    assert need.guests == 6
    assert need.memory_bytes == 6 * 4 * 1536 * 2**20


def test_fewer_cores_than_vcpus_are_a_warning(diagnose, tmp_path):
    cores = diagnose(give_host(tmp_path / "host", cpus=2))["cores"]
    assert cores.status == "warn"
    assert "2 usable on this host, guests have 4 vCPUs" in cores.what
    assert "at most 2 times" in cores.what


def test_the_governor_matters(diagnose, tmp_path):
    found = diagnose(give_host(tmp_path / "host", governor="powersave"))["cpu governor"]
    assert found.status == "warn"
    assert "scaling_governor" in found.mend


def test_unbindable_memory_is_a_warning(diagnose, good_tools):
    refusal = 'echo "qemu-system-x86_64: cannot bind: Operation not permitted" >&2; exit 1'
    script(good_tools / "qemu-system-x86_64", f'case "$*" in *bind*) {refusal};; esac\n{QEMU}')
    numa = diagnose()["numa"]
    assert numa.status == "warn"
    assert "cannot bind: Operation not permitted" in numa.what


def test_free_hugepages_are_tested(diagnose, good_tools, tmp_path):
    assert "1024 of 2MiB" in diagnose(give_host(tmp_path / "host", nodes=2))["hugepages"].what
    script(good_tools / "qemu-system-x86_64", f'case "$*" in *hugetlb*) exit 1;; esac\n{QEMU}')
    assert diagnose()["hugepages"].status == "warn"


def with_virtme(**kernels):
    """Return a lab with launcher virtme-ng and additional kernels."""
    lab = synthetic.lab()
    defaults = lab.defaults.model_copy(update={"launcher": "virtme-ng"})
    return lab.model_copy(update={"defaults": defaults, "kernels": {**lab.kernels, **kernels}})


def test_limits_of_virtme_ng_are_reported_for_a_lab_that_uses_it(diagnose, good_tools):
    assert not any(name.startswith("virtme-ng") for name in diagnose())
    script(good_tools / "vng", "echo virtme-ng 1.42")
    found = diagnose(lab=with_virtme())
    assert (found["virtme-ng"].status, found["virtme-ng"].what) == ("ok", "virtme-ng 1.42")
    assert all(limit in found["virtme-ng limits"].what for limit in virtme.LIMITS)
    assert "launcher: qemu" in found["virtme-ng limits"].mend
    assert "virtme-ng kernels" not in found


def test_a_missing_vng_fails(diagnose, monkeypatch):
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    found = diagnose(lab=with_virtme())["virtme-ng"]
    assert found.status == "fail"
    assert "pip install" in found.mend


def test_a_prebuilt_image_that_virtme_ng_cannot_boot_fails(diagnose, tmp_path):
    image = tmp_path / "bzImage"
    image.write_bytes(bytes(514) + b"HdrS" + bytes(8) + b"\x10\0" + b"6.1.0 x\0")
    (tmp_path / "bzImage.config").write_text("CONFIG_VIRTIO_PCI=y\nCONFIG_9P_FS=m\n")
    given = Kernel(name="given", source=f"image:{image}")
    missing = Kernel(name="missing", source=f"image:{tmp_path}/none")
    found = diagnose(lab=with_virtme(given=given, missing=missing))["virtme-ng kernels"]
    assert found.status == "fail"
    assert "given has no built-in CONFIG_NET_9P_VIRTIO, CONFIG_9P_FS" in found.what
    assert "missing" not in found.what


def test_missing_tools_are_named_with_their_packages(diagnose, good_tools):
    (good_tools / "flex").unlink()
    (good_tools / "xz").unlink()
    found = diagnose()["compilers"]
    assert found.status == "fail"
    assert "flex, xz" in found.what
    assert found.mend == "sudo apt-get install flex xz-utils"


def test_a_compiler_that_cannot_link_statically_fails(diagnose, good_tools):
    script(
        good_tools / "gcc",
        'case "$*" in *-static*) echo "ld: cannot find -lc" >&2; exit 1;; esac',
    )
    found = diagnose()["compilers"]
    assert found.status == "fail"
    assert found.what == "ld: cannot find -lc"
    assert found.mend == "sudo apt-get install libc6-dev"


def test_ccache_counts_only_if_gcc_goes_through_it(diagnose, good_tools):
    assert "gcc does not use it" in diagnose()["ccache"].what
    (good_tools / "gcc").unlink()
    (good_tools / "gcc").symlink_to("ccache")
    assert diagnose()["ccache"].status == "ok"
    (good_tools / "gcc").unlink()
    (good_tools / "ccache").unlink()
    assert "install ccache" in diagnose()["ccache"].mend


def test_load_and_stolen_time_are_warnings():
    assert running.load(0.05, 0.0).status == "ok"
    assert running.load(1.2, 0.0).status == "warn"
    assert "stolen" in running.load(0.0, 0.2).what


def test_a_small_disk_is_too_small_only_for_what_is_not_built():
    assert building.disk(3 * GIB, 1, "x").status == "fail"
    assert "labctl clean" in building.disk(3 * GIB, 1, "x").mend
    assert building.disk(3 * GIB, 0, "x").status == "ok"


def test_an_unwritable_folder_is_found_by_writing(tmp_path):
    assert trials.write_error(tmp_path / "not/yet") == ""
    assert list(tmp_path.iterdir()) == []
    assert trials.write_error(Path("/proc/self")) != ""
    assert building.state_folder("Permission denied", "x").mend == "sudo chown -R $USER x"


def test_missing_hugepages_of_a_guest_fail(diagnose, lab_of):
    found = diagnose(lab=lab_of(hugepages=2**21))
    assert found["hugepages"].status == "fail"
    assert "e needs 9216 pages of 2MiB for its 3 guests" in found["hugepages"].what
    assert found["hugepages"].mend == (
        "echo 9216 | sudo tee /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
    )
    assert found["memory"].status == "ok"  # hugepages are not part of it


def test_unused_host_nodes_are_a_warning(diagnose, lab_of, tmp_path):
    two = give_host(tmp_path / "host", nodes=2)
    assert diagnose(two)["numa"].mend.startswith("host_nodes: auto")
    assert diagnose(two, lab=lab_of(host_nodes="auto"))["numa"].status == "ok"


def test_a_placement_that_this_host_cannot_satisfy_fails(diagnose, lab_of, tmp_path):
    found = diagnose(lab=lab_of(pin=(0, 99)))["placement"]
    assert (found.status, found.what) == (
        "fail", "guests.numa4.pin: host CPU 99 is not available to labctl"
    )  # fmt: skip
    small = give_host(tmp_path / "host", nodes=2, available_gib=20)
    found = diagnose(small, lab=lab_of(host_nodes=(1,)))["placement"]
    assert "needs 18 GiB of host node 1" in found.what


@pytest.fixture
def arm64_lab(monkeypatch):
    """A lab with an arm64 kernel, on an x86_64 host."""
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    lab = synthetic.lab()
    patched = lab.kernels["patched"].model_copy(update={"arch": "arm64"})
    return lab.model_copy(update={"kernels": {**lab.kernels, "patched": patched}})


def test_missing_arm64_tools_fail_for_a_lab_that_needs_them(diagnose, arm64_lab, monkeypatch):
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    assert "arm64" not in diagnose()
    arm64 = diagnose(lab=arm64_lab)["arm64"]
    assert (arm64.status, arm64.mend) == ("fail", "make arm64")
    for program in ("qemu-system-aarch64", "aarch64-linux-gnu-gcc", "busybox-arm64"):
        assert f"{program} is not installed" in arm64.what


def test_arm64_tools_are_tested(diagnose, arm64_lab, good_tools):
    script(good_tools / "qemu-system-aarch64", "echo QEMU emulator version 7.2.22")
    script(good_tools / "aarch64-linux-gnu-gcc", "exit 0")
    elf = b"\x7fELF" + bytes(14) + (183).to_bytes(2, "little")
    script(good_tools / "busybox-arm64", "")
    (good_tools / "busybox-arm64").write_bytes(elf)
    arm64 = diagnose(lab=arm64_lab)["arm64"]
    assert (arm64.status, "QEMU 7.2.22" in arm64.what) == ("ok", True)
    words = "cannot find -lc: No such file or directory"
    script(good_tools / "aarch64-linux-gnu-gcc", f"echo '{words}' >&2; exit 1")
    arm64 = diagnose(lab=arm64_lab)["arm64"]
    assert (arm64.status, arm64.what) == ("fail", words)


def test_programs_that_workloads_need_are_tested(diagnose, good_tools, tmp_path, monkeypatch):
    lab = synthetic.lab()
    assert "workloads" not in diagnose(lab=lab)
    (workload,) = lab.workloads.values()
    image = tmp_path / "root.qcow2"
    image.write_bytes(b"QFI\xfb" + bytes(100))

    def diagnosis(**keys):
        own = {workload.name: workload.model_copy(update=keys)}
        return diagnose(lab=lab.model_copy(update={"workloads": own}))["workloads"]

    monkeypatch.setattr(trials, "_SYSTEM_PATH", str(good_tools))
    monkeypatch.setattr("shutil.which", _only_in(good_tools))
    for name in ("mke2fs", "debugfs"):
        script(good_tools / name, "")
    debian = diagnosis(root="debian:bookworm", packages=("fio",))
    assert debian.what == f"not installed: {workload.name} needs mmdebstrap"
    assert debian.mend == "sudo apt-get install mmdebstrap"
    qcow2 = diagnosis(root=str(image))
    assert qcow2.mend == "sudo apt-get install qemu-utils"
    assert diagnosis(root=str(tmp_path)).status == "ok"
    (good_tools / "debugfs").unlink()
    packaged = diagnosis(root=str(tmp_path), packages=("fio",))
    assert packaged.mend == "sudo apt-get install e2fsprogs apt dpkg"


def _only_in(folder):
    """Return a `shutil.which` for a host with the programs of a folder only."""
    which = shutil.which
    return lambda program, *_, **__: which(program, path=str(folder))


def test_the_worst_decides():
    warn, fail = Diagnosis("a", "warn", ""), Diagnosis("b", "fail", "")
    assert worst([]) == "ok"
    assert worst([ok("c", ""), warn]) == "warn"
    assert worst([fail, warn]) == "fail"


def test_lists_of_the_kernel_are_read():
    assert numbers("0-2,8") == (0, 1, 2, 8)
    assert numbers("") == ()


def test_facts_of_a_host_are_read_below_a_root(tmp_path):
    facts = give_host(tmp_path, cpus=8, nodes=2, available_gib=4)
    assert [cpu.node for cpu in facts.cpus] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert facts.cpus[5].core == (4, 5)
    assert facts.nodes[1].available_bytes == 2 * GIB + 2 * 2**20
    assert facts.nodes[1].hugepages == {2**21: 512}
    assert facts.hugepages == {2**21: 1024}
    assert (facts.nested, facts.available_bytes) == ("Y", 4 * GIB)


def test_an_empty_root_is_no_error(tmp_path):
    facts = read_facts(tmp_path, [0])
    assert facts.nodes == ()
    assert replace(facts, cpus=()).cores == 0


def doctor(*words, cwd, env):
    return subprocess.run(
        [*words, sys.executable, "-m", "labctl", "doctor", "--json"],
        cwd=cwd,
        env={"PYTHONPATH": str(Path(__file__).parent.parent.parent), **os.environ, **env},
        capture_output=True,
        text=True,
    )


def test_the_command_works_without_a_lab(tmp_path, good_tools):
    done = doctor(cwd=tmp_path, env={})
    document = json.loads(done.stdout)
    assert document["lab"] is None
    assert done.returncode == (3 if document["status"] == "fail" else 0), done.stderr
    names = [one["name"] for one in document["diagnoses"]]
    assert names[:3] == ["qemu", "tcg", "kvm"]
    assert "sources" not in names


def test_the_command_finds_a_full_disk(tmp_path, good_tools):
    state = tmp_path / ".labctl"
    state.mkdir()
    mount = f"{shutil.which('mount', path='/usr/bin:/bin')} -t tmpfs -o size=256k none {state}"
    unshare = shutil.which("unshare", path="/usr/bin:/bin")
    within = [unshare, "-rm", "/bin/sh", "-c", f'{mount} && exec "$@"', "sh"]
    if not unshare or subprocess.run([*within, "/bin/true"], capture_output=True).returncode:
        pytest.skip("no mounts of our own here")
    done = doctor(*within, cwd=tmp_path, env={})
    assert done.returncode == 3, done.stderr
    found = {one["name"]: one for one in json.loads(done.stdout)["diagnoses"]}
    assert found["state folder"]["status"] == "fail"
    assert "No space left" in found["state folder"]["what"]
    assert found["disk"]["status"] == "fail"

"""A machine that is a dictionary: its kernel is changed, panics, hangs and falls back."""

import hashlib
import io
import itertools
import shlex
import tarfile
from dataclasses import replace

import pytest
import test_runner
from synthetic import FACTS, World, lab, panic

from labctl.errors import BootFailed, GuestLost, GuestSplat, HostError, UserError
from labctl.experiments.plan import plan
from labctl.experiments.runner import Runner
from labctl.experiments.target import target_of, with_target
from labctl.host.identity import host_id
from labctl.kernels.images import Image
from labctl.lab.models import Target
from labctl.runs.store import Store
from labctl.targets import kexec, machine, roots
from labctl.targets.boot import TargetBoot
from labctl.targets.kexec import Boot
from labctl.targets.machine import TargetMachine, Tools
from labctl.transports import Outcome

OWN = "BOOT_IMAGE=/boot/vmlinuz root=/dev/sda1 ro quiet panic=5"
HASH = "0123456789abcdef" * 4


class Machine:
    """The other side of the line; `start` decides what comes of a loaded kernel."""

    def __init__(self):
        self.boots = 1
        self.release = "5.10-own"
        self.command_line = OWN
        self.files = {}
        self.loaded = None
        self.log = ["[    0.000000] Linux version"]
        self.start = self.takes_it
        self.root = True
        self.away = 0  # this many connections fail
        self.programs = []

    def boot_into(self, release, command_line):
        self.boots += 1
        self.release, self.command_line = release, command_line
        self.files.clear()
        self.loaded = None

    def takes_it(self):
        self.boot_into(self.files[self.loaded["kernel"]].decode(), self.loaded["line"])

    def falls_back(self):
        self.boot_into("5.10-own", OWN)

    # --- the line ---

    def connect(self, *, silence_seconds):
        return self

    def close(self):
        pass

    def put(self, local, remote):
        self.files[remote] = local.read_bytes()

    def run(self, command, timeout_seconds, stdin=b""):
        if self.away:
            self.away -= 1
            raise GuestLost("cannot connect by SSH")
        text = command if isinstance(command, str) else shlex.join(command)
        return Outcome(text, *self.answer(command, text), 0.0)

    def answer(self, command, text):
        words = [] if isinstance(command, str) else list(command)
        if "\\0%s\\0" in text:
            known = {
                "/proc/sys/kernel/random/boot_id": f"boot-{self.boots}\n",
                "/proc/sys/kernel/osrelease": f"{self.release}\n",
                "/proc/cmdline": f"{self.command_line}\n",
                "/proc/cpuinfo": "processor : 0\nmodel name : Z80\nprocessor : 1\n",
                "/proc/meminfo": "MemTotal: 1024 kB\n",
            }
            asked = [path for path in known if f"r {path}" in text]
            return 0, "".join(f"\0{path}\0{known[path]}" for path in asked).encode(), b""
        if words[:1] == ["sha256sum"]:
            return 0, f"{hashlib.sha256(self.files[words[1]]).hexdigest()}  x".encode(), b""
        if len(words) > 1 and words[1] == "load":
            self.loaded = {"kernel": words[2], "initrd": words[3], "line": words[4]}
            return 0, b"", b""
        if words[-1:] == ["start"]:
            self.start()
        elif words[-1:] == ["reboot"]:
            self.falls_back()
        elif "initrd.img" in text:
            return 0, f"/boot/initrd.img-{words[-1]}\n".encode(), b""
        elif words[-2:] == ["id", "-u"]:
            return 0, b"0\n" if self.root else b"1000\n", b""
        elif words[-1:] == ["dmesg"]:
            return 0, "\n".join(self.log).encode(), b""
        return 0, b"", b""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(machine, "_POLL_SECONDS", 0.001)


@pytest.fixture
def other():
    return Machine()


@pytest.fixture
def box(other, tmp_path):
    for name in ("kexec-0123", "freebench-4567"):
        (tmp_path / name).write_text(name)
    tools = Tools(tmp_path / "kexec-0123", (tmp_path / "freebench-4567",))
    return TargetMachine(target(), other.connect, tools)


def target(**more):
    known = {"name": "box", "kind": "ssh", "host": "box", "port": None, "user": "root"}
    known |= {"key": None, "host_key": None, "initrd": None, "command_line": ""}
    return Target(**{**known, "boot_timeout": 0.2, **more})


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "bzImage"
    path.write_text("6.1-lab")
    return Image("stock", path, HASH, "", None, (), None, "6.1-lab", "")


def test_a_kernel_is_changed_and_known_by_its_images_hash(box, other, image):
    boot = box.change_kernel(image, "thp=never", 1.0)
    assert boot.release == "6.1-lab"
    assert boot.token == HASH[:16]
    assert other.command_line == (
        "root=/dev/sda1 ro quiet labctl.image=0123456789abcdef panic=10 oops=panic thp=never"
    )
    assert f"{machine.FOLDER}/freebench" in other.files


def test_the_second_kernel_inherits_nothing_of_the_first(box, other, image):
    box.change_kernel(image, "one=1", 1.0)
    loads = []
    takes_it, other.start = other.start, lambda: (loads.append(dict(other.loaded)), takes_it())
    box.change_kernel(image, "two=2", 1.0)
    assert "one=1" not in other.command_line
    assert other.command_line.startswith("root=/dev/sda1 ro quiet labctl.image=")
    # What the machine's own kernel was booted with, not what the lab's would have.
    assert loads[0]["initrd"] == "/boot/initrd.img-5.10-own"


def test_a_kernel_that_panics_is_a_failed_boot_and_the_machine_is_its_own_again(box, other, image):
    other.start = other.falls_back
    with pytest.raises(BootFailed, match=r"came back with 5.10-own .* fell back"):
        box.change_kernel(image, "", 1.0)
    other.start = other.takes_it
    assert box.change_kernel(image, "", 1.0).release == "6.1-lab"


def test_a_machine_that_stays_away_is_awaited_until_the_time_limit(box, other, image):
    def stays_away():
        other.away = 10**9

    other.start = stays_away
    with pytest.raises(BootFailed, match="did not come back within"):
        box.change_kernel(image, "", 0.05)


def test_a_machine_that_is_slow_is_waited_for(box, other, image):
    takes_it = other.start

    def slow():
        takes_it()
        other.away = 5

    other.start = slow
    assert box.change_kernel(image, "", 5.0).release == "6.1-lab"


def test_another_kernel_than_the_image_is_no_boot(box, other, image):
    other.start = lambda: other.boot_into("6.6-stranger", other.loaded["line"])
    with pytest.raises(BootFailed, match=r"expected .*, got 6\.6-stranger"):
        box.change_kernel(image, "", 1.0)


def test_an_image_that_arrives_damaged_is_not_started(box, other, image, monkeypatch):
    monkeypatch.setattr(other, "put", lambda _, remote: other.files.update({remote: b"x"}))
    with pytest.raises(BootFailed, match="checksum mismatch"):
        box.change_kernel(image, "", 1.0)
    assert other.boots == 1


def test_an_image_that_is_damaged_here_is_not_sent(box, other, image):
    image = replace(image, bzimage_sha256="0" * 64)
    with pytest.raises(HostError, match="bzImage: file changed"):
        box.change_kernel(image, "", 1.0)
    assert other.boots == 1


def test_the_machine_is_given_back_with_its_own_kernel(box, other, image):
    with box:
        box.change_kernel(image, "", 1.0)
        assert other.release == "6.1-lab"
    assert other.release == "5.10-own"
    boots = other.boots
    with box:
        pass
    assert other.boots == boots  # nothing was changed: nothing is undone


def test_what_is_known_of_a_machine(box, other):
    facts = box.describe()
    assert (facts.cores, facts.cpu_model, facts.memory_bytes) == (2, "Z80", 2**20)
    assert facts.id == host_id(box.target.host, "Z80")
    other.root = False
    with pytest.raises(HostError, match="cannot change the kernel"):
        box.describe()
    other.away = 1
    with pytest.raises(HostError, match="box is not usable"):
        box.describe()


def test_a_kernel_report_is_a_splat_and_reported_once(box, other, image, tmp_path):
    with TargetBoot(box, image, "", tmp_path / "log" / "dmesg.txt") as boot:
        boot.wait_ready(1.0)
        other.log.append("[    9.000000] WARNING: CPU: 0 PID: 1 at mm/x.c:1 x+0x0/0x1")
        with pytest.raises(GuestSplat) as caught:
            boot.run(["true"], timeout_seconds=1)
        assert caught.value.kind == "warning"
        assert boot.run(["true"], timeout_seconds=1).status == 0
    assert "WARNING" in (tmp_path / "log" / "dmesg.txt").read_text()


def test_what_the_kernel_complains_of_at_once_is_one_splat(box, other, image, tmp_path):
    with TargetBoot(box, image, "", tmp_path / "dmesg.txt") as boot:
        boot.wait_ready(1.0)
        other.log += [
            "[    9.000000] prog: Internal error: 0 [#1]\u2028[    9.000000] BUG: of a program",
            "[    9.000000] BUG: unable to handle page fault for address: ffffc90000100000",
            "[    9.000000] Oops: 0002 [#1] SMP",
        ]
        with pytest.raises(GuestSplat, match="BUG: unable to handle"):
            boot.run(["true"], timeout_seconds=1)
        assert boot.run(["true"], timeout_seconds=1).status == 0


def test_a_machine_that_rebooted_by_itself_is_lost(box, other, image, tmp_path):
    with TargetBoot(box, image, "", tmp_path / "dmesg.txt") as boot:
        boot.wait_ready(1.0)
        boot.resume()
        other.falls_back()
        with pytest.raises(GuestLost, match=r"rebooted unexpectedly; it now runs kernel 5.10-own"):
            boot.resume()


def test_one_kernel_at_a_time_in_an_order_of_its_own(tmp_path):
    world = World()
    alive = []
    world.on_boot = lambda guest: alive.append(len(world.alive))
    the_lab = lab(blocks=6, repetitions=2)
    Runner(
        lab=the_lab,
        plan=plan(the_lab, "e", 7),
        store=Store(tmp_path),
        boot=world.boot,
        facts=FACTS,
        together=False,
        clock=world.clock,
        load=world.load,
    ).run()
    assert set(alive) == {1}
    samples = Store(tmp_path).samples()
    assert len([s for s in samples if not s.warmup]) == 6 * 3 * 2
    first = [s for s in samples if s.block == 0]
    assert [s.order for s in first] == list(range(9))
    # All of a kernel's repetitions are together.
    labels = [s.label for s in first]
    assert sum(a != b for a, b in itertools.pairwise(labels)) == 2
    orders = {tuple(dict.fromkeys(s.label for s in samples if s.block == b)) for b in range(6)}
    assert len(orders) > 1


def test_a_kernel_that_does_not_come_up_costs_the_others_nothing(tmp_path):
    world = World()

    def boot(guest):
        if guest.group.kernel == "patched":
            panic()

    world.on_boot = boot
    the_lab = lab(blocks=6, repetitions=2)
    test_runner.runner(tmp_path, world, the_lab, together=False).run()
    samples = Store(tmp_path).samples()
    assert {s.status for s in samples if s.kernel == "stock"} == {"ok"}
    assert {s.status for s in samples if s.kernel == "patched"} == {"panic", "skipped"}


def test_experiments_are_moved_to_a_target_that_there_is():
    known = lab().model_copy(update={"targets": {"box": target()}})
    moved = with_target(known, ["e"], "box")
    assert target_of(moved, [plan(moved, "e", 1)]).name == "box"
    assert target_of(known, [plan(known, "e", 1)]) is None
    with pytest.raises(UserError, match="target bax not found"):
        with_target(known, ["e"], "bax")
    with pytest.raises(UserError, match="experiments run on different targets"):
        target_of(known, [plan(known, "e", 1), plan(moved, "e", 1)])


def test_a_token_is_a_word_of_its_own():
    assert Boot("b", "r", "a labctl.image=ff b").token == "ff"
    assert Boot("b", "r", "xlabctl.image=ff").token is None
    assert Boot("b", "r", "initrd=/x a=b").own_command_line == "a=b"
    quoted = 'a="b  panic=3" "c=d  e"'
    assert Boot("b", "r", f"panic=1 {quoted}").own_command_line == quoted
    assert kexec.command_line(Boot("b", "r", ""), "f" * 64, "").startswith("labctl.image=ffff")


def test_files_of_workloads_are_copied_after_each_boot(other, image, tmp_path):
    (tmp_path / "kexec-0123").write_text("kexec")
    (tmp_path / "data").write_text("7")
    folder = f"{machine.FOLDER}/files/mine"
    tools = Tools(
        tmp_path / "kexec-0123",
        (),
        {f"{folder}/deep/data": tmp_path / "data"},
        {f"{folder}/mybench": "#!/bin/sh\n"},
    )
    commands = []
    answer = other.answer

    def noting(command, text):
        commands.append(text)
        return answer(command, text)

    other.answer = noting
    with TargetMachine(target(), other.connect, tools) as box:
        box.change_kernel(image, "", 1.0)
        packed = f"{machine.FOLDER}/files.tar.gz"
        assert any(text.endswith(f"sh {packed}") for text in commands)
        with tarfile.open(fileobj=io.BytesIO(other.files[packed])) as archive:
            members = {f"/{one.name}": one for one in archive}
            assert archive.extractfile(f"{folder}/deep/data".lstrip("/")).read() == b"7"
        assert set(members) == {f"{folder}/deep/data", f"{folder}/mybench"}
        assert members[f"{folder}/mybench"].mode == 0o755


def test_a_root_is_unpacked_in_memory_after_each_boot(other, image, tmp_path):
    (tmp_path / "kexec-0123").write_text("kexec")
    (tmp_path / "root.tar.gz").write_bytes(b"packed")
    tools = Tools(tmp_path / "kexec-0123", (), roots={"mine": tmp_path / "root.tar.gz"})
    commands = []
    answer = other.answer

    def noting(command, text):
        commands.append(text)
        return answer(command, text)

    other.answer = noting
    with TargetMachine(target(), other.connect, tools) as box:
        box.change_kernel(image, "", 1.0)
        place = roots.mounted("mine")
        assert other.files[roots.packed("mine")] == b"packed"
        mounted = next(i for i, text in enumerate(commands) if text.endswith(f"sh {place}"))
        unpacked = next(i for i, text in enumerate(commands) if "tar -xzpf" in text)
        assert mounted < unpacked

"""What `Guest.check` makes of a console, without a QEMU behind it."""

import pytest

from labctl.errors import GuestLost, GuestPanic, GuestSplat
from labctl.guests.guest import Guest, GuestSpec
from labctl.kernels.build import Image
from labctl.lab.topology import Topology

FIRST = "[    0.000000] Linux version 6.1.192\n"
READY = "[    1.000000] labctl: ready boot=0a1b2c3d-0000-4000-8000-0123456789ab\n"
WARNING = "[    2.000000] WARNING: CPU: 0 PID: 1 at mm/x.c:1 x+0x0/0x1"
PANIC = "[    9.000000] Kernel panic - not syncing: x"


class Running:
    pid = 1

    def poll(self):
        return None


@pytest.fixture
def guest(tmp_path):
    image = Image("stock", tmp_path / "bzImage", "", "", None, (), None, "6.1", "")
    spec = GuestSpec("stock", image, Topology(), tmp_path / "initramfs", "tcg", tmp_path)
    one = Guest(spec)
    one._watchdog.machine = Running()
    return one


def say(guest, text):
    with guest.console.path.open("a") as log:
        log.write(text)


def test_a_complaint_is_reported_once_however_many_were_before(guest):
    say(guest, FIRST + READY)
    guest.check()
    for number in range(3):
        say(guest, f"{WARNING} {number}\n" * 1500)  # more than a console keeps
        with pytest.raises(GuestSplat, match=f"x.0x0/0x1 {number}"):
            guest.check()
        guest.check()


def test_a_guest_that_boots_again_is_lost(guest):
    say(guest, FIRST + READY + FIRST)
    with pytest.raises(GuestLost, match=r"guest rebooted: .* Linux version 6\.1\.192"):
        guest.check()


def test_a_panic_is_not_blamed_on_an_earlier_report(guest):
    say(guest, f"{WARNING}\n")
    with pytest.raises(GuestSplat):
        guest.check()
    say(guest, f"[    8.000000] BUG: Bad page state in process x  pfn:1\n{PANIC}\n")
    with pytest.raises(GuestPanic, match=r"x after: .*Bad page state") as caught:
        guest.check()
    assert "WARNING" not in caught.value.what

"""What a guest's setup reports, compared with what lab.yaml asks for."""

import pytest

from labctl.errors import UserError
from labctl.guests import bring_up
from labctl.lab.topology import Topology
from labctl.transports import Outcome

TIERS = Topology(
    nodes=[{"cpus": 1, "memory": "128MiB"}, {"cpus": 0, "memory": "128MiB"}],
    latency=["80ns", "250ns"],
    bandwidth=["40GiB/s", "8GiB/s"],
)
TIERS_SAID = """\
latency 0 read 80
bandwidth 0 read 40960
latency 0 write 80
bandwidth 0 write 40960
latency 1 read 250
bandwidth 1 read 8192
latency 1 write 250
bandwidth 1 write 8192
"""
SWAP = Topology(nodes=1, swap={"zram": "64MiB", "disk": "128MiB"}, disks=["1GiB"])
SWAP_SAID = "swap /dev/zram0 65532 -2\nswap /dev/vdb 131068 -3\n"


def plugged(state):
    hotplug = {"memory": "256MiB", "state": state}
    return Topology(nodes=[{"cpus": 1, "memory": "128MiB", "hotplug": hotplug}])


def plugged_said(state, zone, grown=262144):
    return f"block 0 {state} {zone}\n" * 2 + f"grown 0 120000 {120000 + grown}\nsize 8000000\n"


def check(topology, said, status=0, errors=b""):
    done = Outcome("script", status, said.encode(), errors, 0.1)
    bring_up.check(topology, done, kernel="stock", where="console.log")


@pytest.mark.parametrize(
    ("topology", "said"),
    [
        (TIERS, TIERS_SAID),
        (SWAP, SWAP_SAID),
        (plugged("online"), plugged_said("online", "Normal")),
        (plugged("online"), plugged_said("online", "Movable")),
        (plugged("online_kernel"), plugged_said("online", "Normal")),
        (plugged("online_movable"), plugged_said("online", "Movable")),
        (plugged("offline"), plugged_said("offline", "Normal Movable", 0)),
    ],
)
def test_a_guest_that_is_as_asked_for_is_kept(topology, said):
    check(topology, said)
    # The console's lines between those of the report are no part of it.
    check(topology, f"block of text\nlatency is high\nswap\n{said}")


@pytest.mark.parametrize(
    ("topology", "said", "message"),
    [
        (TIERS, "", "node 0: expected a read latency of 80 ns, got none"),
        (TIERS, TIERS_SAID.replace("250", "251"), "read latency of 250 ns, got 251 ns"),
        (TIERS, TIERS_SAID.replace("8192", "8191"), "bandwidth of 8192 MiB/s, got 8191 MiB/s"),
        (SWAP, "", "swap on /dev/zram0 is off; swap on /dev/vdb is off"),
        (
            SWAP,
            SWAP_SAID.replace("131068", "65532"),
            "expected 131068 KiB, got 65532 KiB",
        ),
        (SWAP, SWAP_SAID.replace("-3", "-1"), "expected a priority below -2, got -1"),
        (plugged("online"), "size 8000000\n", "expected 256 MiB of hotplugged memory, got none"),
        (plugged("online"), plugged_said("offline", "Normal", 0), "2 memory blocks offline"),
        (plugged("offline"), plugged_said("online", "Normal"), "online, expected offline"),
        (plugged("online_movable"), plugged_said("online", "Normal"), "in zone Normal, expected"),
        (plugged("online_kernel"), plugged_said("online", "Movable"), "in zone Movable, expected"),
        (plugged("online"), plugged_said("online", "Normal", 131072), "MemTotal grew by 128 MiB"),
    ],
)
def test_what_differs_is_named_with_its_option(topology, said, message):
    with pytest.raises(UserError) as caught:
        check(topology, said)
    assert message in str(caught.value)
    assert "kernel stock" in caught.value.what
    assert "CONFIG_" in caught.value.hint


def test_a_setup_that_fails_tells_the_last_error():
    with pytest.raises(UserError) as caught:
        check(SWAP, "", 1, b"first\nmkswap: /dev/vdb: No such file\n\nUsage: mkswap\n\t-L\n")
    assert caught.value.what.endswith("exited with status 1; mkswap: /dev/vdb: No such file")


def test_most_guests_need_no_setup():
    assert not bring_up.is_needed(Topology(nodes=4, disks=["1GiB"]))
    calls = []
    bring_up.bring_up(
        Topology(nodes=1, memory_per_node="64MiB"),
        ["node 0 cpus=0 memory_kib=65536 distances=10"],
        lambda *given, **_: calls.append(given),
        kernel="stock",
        where="",
    )
    assert calls == []


def test_the_setup_covers_what_is_asked_for():
    text = bring_up.script(SWAP)
    assert "swap /dev/zram0\n" in text
    assert "echo 67108864 >/sys/block/zram0/disksize" in text
    assert "swap /dev/vdb\n" in text
    assert "plug 0 online_movable" in bring_up.script(plugged("online_movable"))
    assert bring_up.script(TIERS).count("\nspeed ") == 2

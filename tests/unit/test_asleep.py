"""A host that sleeps during a measurement, and a clock of the host that is set back."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from synthetic import World, lab
from test_runner import runner

from labctl.errors import GuestHung, GuestLost, GuestPanic, GuestSplat
from labctl.experiments import clocks, description
from labctl.experiments.description import RunClock
from labctl.host.load import load, suspended_seconds
from labctl.runs.store import Store
from labctl.stats.crash_rates import HOST_FAULTS
from labctl.stats.health import HealthRule, disturbance, usable

HOUR = 3600.0


class Sleepy(World):
    """A world whose host sleeps for an hour in the middle of the run's n-th workload."""

    def __init__(self, nth, fail=lambda: None):
        super().__init__()
        self.slept, self.count = 5.0, 0  # it has slept before, too
        self.nth, self.fail = nth, fail
        self.on_run = self.maybe_sleep

    def maybe_sleep(self, guest):
        self.count += 1
        if self.count == self.nth:
            self.slept += HOUR
            self.fail()

    def load(self):
        return super().load() | {"suspended_seconds": self.slept}

    def suspended(self):
        return self.slept


def run(tmp_path, world):
    runner(tmp_path, world, lab(blocks=6, repetitions=3), suspended=world.suspended).run()
    return Store(tmp_path).samples()


def test_a_block_in_which_the_host_slept_is_told_and_measured_again(tmp_path):
    samples = run(tmp_path, Sleepy(nth=17))  # one of three repetitions
    (marked,) = [s for s in samples if s.disturbed]
    assert marked.disturbed == "the host was suspended for 3600 s"
    assert marked.load["suspended_seconds"] == HOUR
    assert sorted({s.block for s in samples}) == list(range(7))
    _, health = usable(samples, 6)
    assert health.disturbed == {marked.block: marked.disturbed}
    assert health.left_out == (marked.block,)


def test_a_host_that_sleeps_through_a_warm_up_disturbs_nothing(tmp_path):
    samples = run(tmp_path, Sleepy(nth=1))
    assert sorted({s.block for s in samples}) == list(range(6))


@pytest.mark.parametrize(
    "error",
    [
        GuestSplat("watchdog: BUG: soft lockup", kind="soft-lockup"),
        GuestSplat("rcu: INFO: rcu_sched detected stalls", kind="rcu-stall"),
        GuestHung("no response for 60 s"),
        GuestLost("the guest's clock jumped forwards", fault="clock-jump"),
    ],
)
def test_what_a_guest_reports_because_of_the_sleep_is_the_hosts_fault(error):
    status = error.status
    clocks.explain_sleep(error, HOUR)
    assert error.fault == "host-suspended"
    assert error.fault in HOST_FAULTS
    assert error.what.startswith("the host was suspended for 3600 s, and then: ")
    assert error.status == status


def test_a_guest_lost_to_the_sleep_is_the_hosts_fault_and_booted_again(tmp_path):
    def fail():
        raise GuestSplat("watchdog: BUG: soft lockup", kind="soft-lockup")

    samples = run(tmp_path, Sleepy(nth=5, fail=fail))
    (failed,) = [s for s in samples if s.status != "ok"]
    assert failed.fault == "host-suspended"
    assert failed.message.startswith("the host was suspended for 3600 s, and then: ")
    assert any(s.attempt for s in samples)


def test_the_sleep_explains_no_panic_and_a_nap_nothing():
    panic = GuestPanic("Kernel panic - not syncing: VFS")
    clocks.explain_sleep(panic, HOUR)
    assert (panic.fault, panic.what) == ("panic", "Kernel panic - not syncing: VFS")
    hung = GuestHung("no response")
    clocks.explain_sleep(hung, 0.01)
    assert (hung.fault, hung.what) == ("no-response", "no response")


def test_the_sleep_of_this_host_is_in_its_load():
    assert suspended_seconds() >= 0
    assert load()["suspended_seconds"] >= 0


def test_a_load_of_an_older_run_is_not_asleep():
    assert disturbance({}, HealthRule()) == ""


def test_the_times_of_a_run_do_not_go_back_with_the_clock_of_the_host(monkeypatch):
    class SetBack(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(1999, 1, 1, tzinfo=tz)

    began = datetime.now(UTC)
    clock = RunClock()
    monkeypatch.setattr(description, "datetime", SetBack)
    times = [clock.now() for _ in range(3)]
    assert times == sorted(times)
    assert began <= times[0] < began + timedelta(hours=1)


def test_the_times_of_a_run_include_the_hosts_sleep(monkeypatch):
    clock = RunClock()
    awake = time.clock_gettime
    monkeypatch.setattr(description.time, "clock_gettime", lambda which: awake(which) + HOUR)
    assert clock.now() - clock.start > timedelta(seconds=HOUR - 1)

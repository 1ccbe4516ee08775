"""Whether a guest's clock agrees with the host's, and whether the host was asleep. Pure."""

from __future__ import annotations

from labctl.errors import GuestError, GuestLost
from labctl.status import GuestFault

# The guest's time is within the host's. A rate that differs by more is no clock to measure with.
_SHARE, _LEAST_SECONDS = 0.1, 3.0
# The host's time includes the way to the guest and back, on a busy host some seconds.
_LOST_SHARE, _LEAST_LOST_SECONDS = 0.5, 30.0
# What a kernel or a connection may report because its host has slept.
_AFTER_SLEEP = {
    GuestFault.SOFT_LOCKUP,
    GuestFault.HARD_LOCKUP,
    GuestFault.HUNG_TASK,
    GuestFault.RCU_STALL,
    GuestFault.NO_RESPONSE,
    GuestFault.CLOCK_JUMP,
    GuestFault.LINE_LOST,
}
_SLEPT_SECONDS = 0.5


def check(guest_seconds: float, host_seconds: float) -> None:
    """Check the time that a command took, by the monotonic clocks of the guest and the host.

    Raises:
        GuestLost: the guest's clock jumped.
    """
    more = guest_seconds - host_seconds
    is_ahead = more > _SHARE * host_seconds + _LEAST_SECONDS
    is_behind = -more > max(_LOST_SHARE * host_seconds, _LEAST_LOST_SECONDS)
    if is_ahead or is_behind:
        way = "forwards" if is_ahead else "back"
        raise GuestLost(
            f"the guest's clock jumped {way}: a command took {guest_seconds:.1f} s by the "
            f"guest's clock and {host_seconds:.1f} s by the host's",
            hint="check the guest's clock source, and whether the host was suspended",
            fault=GuestFault.CLOCK_JUMP,
        )


def explain_sleep(error: GuestError, suspended_seconds: float) -> None:
    """Name the host's sleep in the error of a guest, if it may be the cause."""
    if suspended_seconds < _SLEPT_SECONDS or error.fault not in _AFTER_SLEEP:
        return
    error.what = f"the host was suspended for {suspended_seconds:.0f} s, and then: {error.what}"
    error.hint = "keep the host awake: `systemd-inhibit labctl run ...`"
    error.fault = GuestFault.HOST_SUSPENDED

"""Whether a guest's clock agrees with the host's while a command runs. Pure."""

from __future__ import annotations

from labctl.errors import GuestLost
from labctl.status import GuestFault

# The guest's time is within the host's. A rate that differs by more is no clock to measure with.
_SHARE, _LEAST_SECONDS = 0.1, 3.0
# The host's time includes the way to the guest and back, on a busy host some seconds.
_LOST_SHARE, _LEAST_LOST_SECONDS = 0.5, 30.0


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

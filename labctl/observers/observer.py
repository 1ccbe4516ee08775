"""`Observer`: counters of the kernel that are read around a repetition. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from labctl.errors import BadOutput
from labctl.printable import printable

Counters = dict[str, int]
_LONGEST = 8 << 20
_MOST_COUNTERS = 50_000


def _never(_: str) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Observer:
    """Files of a guest with counters, what they need, and how they are parsed.

    `parse` gets the texts of the `files` that exist, by path, and returns counters by name;
    times are in nanoseconds. `is_gauge` returns whether a counter may also fall. `needs` are
    kconfig options, of which one in each group must be on; `fragment` sets them.

    An observer that slows the kernel has `start` and `stop`, shell scripts that reset and
    switch it on, and switch it off. Its files are read after `stop` only. `programs` of
    the host are brought into guests. With `rewrites_code`, the kernel changes its own code at
    the start and the stop.
    """

    name: str
    about: str
    files: tuple[str, ...]
    parse: Callable[[Mapping[str, str]], Counters]
    is_gauge: Callable[[str], bool] = _never
    needs: tuple[tuple[str, ...], ...] = ()
    fragment: str = ""
    start: str = ""
    stop: str = ""
    programs: tuple[str, ...] = ()
    rewrites_code: bool = False

    @property
    def disturbs(self) -> bool:
        """Whether it slows the kernel while it counts."""
        return bool(self.start)

    def missing(self, config: Mapping[str, str]) -> list[str]:
        """Return the options that a complete .config lacks."""
        return [
            " or ".join(group)
            for group in self.needs
            if not any(config.get(option) == "y" for option in group)
        ]

    def difference(self, before: Mapping[str, str], after: Mapping[str, str]) -> Counters:
        """Return how much each counter rose, by its full name `OBSERVER.NAME`.

        A counter that is in one reading only, or fell although it cannot fall (it wrapped
        or was reset), is left out. Names are made printable, as the guest chooses them.

        Raises:
            BadOutput: a file is too long, or has too many counters.
        """
        for path, text in after.items():
            if len(text) > _LONGEST:
                raise BadOutput(f"{path} of the guest is longer than {_LONGEST >> 20} MiB")
        last = self.parse(after)
        if len(last) > _MOST_COUNTERS:
            raise BadOutput(f"observer {self.name} has more than {_MOST_COUNTERS} counters")
        first = dict.fromkeys(last, 0) if self.disturbs else self.parse(before)
        return {
            f"{self.name}.{printable(name)}": value - first[name]
            for name, value in last.items()
            if name in first and (value >= first[name] or self.is_gauge(name))
        }


def is_observed(name: str) -> bool:
    """Return whether a counter of a sample is an observer's; the series' have no dot."""
    return "." in name


def is_time(name: str) -> bool:
    """Return whether a counter is a time in nanoseconds."""
    return name.endswith("nanoseconds")

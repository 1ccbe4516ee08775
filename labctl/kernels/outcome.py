"""What became of a configuration: what was changed for the guest, lost and left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from labctl.kernels import kconfig
from labctl.kernels.configuration import Configuration
from labctl.kernels.kconfig import Option

_OFF = "n"
_DEBUG_INFO = "CONFIG_DEBUG_INFO"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A configuration, the options of its start and those of the final .config.

    `before` is empty for fragments alone.
    """

    configuration: Configuration
    before: Mapping[str, str]
    final: Mapping[str, str]

    def lines(self) -> str:
        """Return the lines for the build log."""
        whole = self.configuration.whole
        changed = [
            f"{o.file}:{o.line}: {o.name}={o.value}, was {self.before.get(o.name, _OFF)}"
            for o in self._changed()
        ]
        lost = [
            f"{whole}:{o.line}: {o.name}={o.value} became {self.final.get(o.name, _OFF)}"
            for o in self._lost()
        ]
        return "".join(f"labctl: {line}\n" for line in (*changed, *lost, *self.notes()))

    def notes(self) -> tuple[str, ...]:
        """Return a sentence for each thing that the user of the image should know."""
        counts: dict[str, int] = {}
        for option in self._changed():
            counts[option.file.name] = counts.get(option.file.name, 0) + 1
        modules = sum(value == "m" for value in self.final.values())
        lost, whole = len(self._lost()), self.configuration.whole
        notes = [f"{_options(count)} set by {name}" for name, count in counts.items()]
        if lost and whole is not None:
            notes.append(f"{_options(lost)} of {whole.name} missing or changed in this source")
        if modules:
            notes.append(f"{_options(modules)} =m left out: modules are not built")
        if self.before and self.final.get(_DEBUG_INFO) == "y":
            notes.append(f"{_DEBUG_INFO}=y: the build needs more time and disk space")
        return tuple(notes)

    def _changed(self) -> list[Option]:
        """The options of fragments that the start of the .config has with another value."""
        asked = sorted(self.configuration.requested if self.before else (), key=lambda o: o.rank)
        return [o for o in asked if not kconfig.holds(o.value, self.before.get(o.name))]

    def _lost(self) -> list[Option]:
        """The options of the whole .config that the final one has with another value."""
        whole = self.configuration.whole
        options = self.configuration.options if whole is not None else ()
        return [
            o
            for o in options
            if o.file == whole and not kconfig.holds(o.value, self.final.get(o.name))
        ]


def _options(count: int) -> str:
    return f"{count} option{'' if count == 1 else 's'}"

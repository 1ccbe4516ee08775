"""Report a stored run against another of its kernels than the run's baseline. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from labctl.errors import UserError
from labctl.reports import words
from labctl.runs.record import RunExperiment, RunRecord
from labctl.runs.sample import Sample
from labctl.stats.cells import Cell, baselines_for, cells_of
from labctl.stats.compare import roles
from labctl.units import Scalar


@dataclass(frozen=True, slots=True)
class Against:
    """A kernel as the baseline; `setting` selects its cells, which must not be ambiguous."""

    kernel: str
    setting: Mapping[str, Scalar] = field(default_factory=dict)

    def applied(
        self, record: RunRecord, samples: Sequence[Sample]
    ) -> tuple[RunRecord, list[Sample], tuple[str, ...]]:
        """Return a run's record and samples with this baseline, and notes for the reader.

        Experiments without the kernel, and its cells with another setting, are left out.

        Raises:
            UserError: the run has no such cell, or a cell could be compared with several.
        """
        kept = [sample for sample in samples if self._is_kept(sample)]
        having = {s.experiment for s in kept if s.kernel == self.kernel and not s.control}
        known = [each for each in record.experiments if each.name in having]
        if not known:
            name = words.named(self.kernel, self.setting)
            cells = sorted({words.named(s.kernel, s.setting) for s in samples if not s.control})
            raise UserError(
                f"run {record.run} has no samples of {name}, the baseline of this report",
                hint=f"cells of the run: {', '.join(cells)}",
            )
        for each in known:
            self._check(each, [sample for sample in kept if sample.experiment == each.name])
        notes = [
            f"{each.name}: compared with {self.kernel} in place of {each.baseline}; the A/A "
            f"control is of {each.baseline}"
            for each in known
            if each.baseline != self.kernel
        ]
        left = [each.name for each in record.experiments if each.name not in having]
        if left:
            notes.append(f"left out, as {self.kernel} was not measured: {', '.join(left)}")
        changed = tuple(replace(each, baseline=self.kernel) for each in known)
        return replace(record, experiments=changed), kept, tuple(notes)

    def _is_kept(self, sample: Sample) -> bool:
        is_own = sample.kernel == self.kernel and not sample.control
        return not is_own or self.setting.items() <= sample.setting.items()

    def _check(self, experiment: RunExperiment, samples: Sequence[Sample]) -> None:
        baselines, _, others = roles(cells_of(samples, experiment.kind.scale), self.kernel)
        for cell in others:
            fitting = baselines_for(cell, baselines)
            if len(fitting) > 1:
                which = ", ".join(words.setting(_own(each, fitting)) for each in fitting)
                raise UserError(
                    f"baseline {self.kernel} has several settings in {experiment.name}: {which}",
                    hint="select one: --set NAME=VALUE",
                )


def _own(cell: Cell, every: Sequence[Cell]) -> dict[str, Scalar]:
    """Return the part of a cell's setting that is not the same in all cells."""
    return {
        name: value
        for name, value in cell.setting.items()
        if any(other.setting.get(name) != value for other in every)
    }

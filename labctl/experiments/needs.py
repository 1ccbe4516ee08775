"""What experiments need of the host at the same time. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from labctl.experiments.plan import Plan, plan
from labctl.lab_models import Lab, Topology


@dataclass(frozen=True, slots=True)
class Need:
    """The guests of an experiment that are up at the same time; all have one topology."""

    experiment: str
    guests: int
    topology: Topology

    @property
    def memory_bytes(self) -> int:
        """The memory of all of them."""
        return self.guests * self.topology.memory_bytes

    @property
    def vcpus(self) -> int:
        """The vCPUs that run at the same time: while one guest is measured, the others pause."""
        return self.topology.nodes * self.topology.cpus_per_node


def need_of(lab: Lab, planned: Plan) -> Need:
    """Return what one planned experiment needs: its kernels, and the baseline's A/A twin."""
    topology = lab.guests[lab.guest_of(planned.experiment)]
    return Need(planned.experiment.name, len(planned.groups()), topology)


def needs_of(lab: Lab) -> list[Need]:
    """Return what each experiment of a lab needs."""
    return [need_of(lab, plan(lab, name, seed=0)) for name in lab.experiments]

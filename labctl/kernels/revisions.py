"""Check the revisions of kernels from git before anything is built."""

from __future__ import annotations

from collections.abc import Iterable

from labctl.errors import ConfigError, Problem, UserError
from labctl.kernels.sources import open_source
from labctl.lab.models import Kernel, Lab


def check_revisions(lab: Lab, kernels: Iterable[str]) -> None:
    """Check that the revisions of kernels exist and are kernel sources.

    Raises:
        ConfigError: they are not; names the lines in lab.yaml.
    """
    problems: dict[str, Problem] = {}
    for name in kernels:
        kernel = _first(lab, lab.kernels[name])
        if kernel.name in problems or not kernel.source.startswith("git:"):
            continue
        try:
            open_source(kernel.source, lab.state)
        except UserError as error:
            what = f"{error.what} ({error.where})" if error.where else error.what
            key = ("kernels", kernel.name, "source")
            problems[kernel.name] = lab.problem(key, what, error.hint)
    if problems:
        raise ConfigError(tuple(problems.values()))


def _first(lab: Lab, kernel: Kernel) -> Kernel:
    """Return the kernel whose `source:` a kernel has by its bases."""
    while kernel.base is not None:
        kernel = lab.kernels[kernel.base]
    return kernel

"""Verifying runs: every byte of every file, and every figure against the answers."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from featcache.errors import FeatcacheError
from featcache.progress import Report
from heads.results import leftovers
from heads.results.store import load, run_folders


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProblem:
    """A damaged run, which tables leave out."""

    run: str
    """Its folder."""
    what: str
    """One sentence: the damage, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsReport:
    """The result of verifying all runs under a root."""

    path: Path
    runs: int
    """Number of runs that were read."""
    problems: tuple[RunProblem, ...]
    unsealed: tuple[str, ...]
    """Runs without a seal, whose figures agree with their answers."""
    unfinished: int
    """Number of temporary folders of interrupted saves; the next save removes them."""

    @property
    def is_sound(self) -> bool:
        """Tell whether no run is damaged."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return one plain object."""
        return {**asdict(self), "path": str(self.path), "sound": self.is_sound}


def verify_runs(root: Path, *, report: Report | None = None) -> RunsReport:
    """Check every run under a root; nothing is changed."""
    folders = list(run_folders(root))
    problems, unsealed = [], []
    for done, folder in enumerate(folders, start=1):
        try:
            if not load(folder, heads=True).sealed:
                unsealed.append(folder.name)
        except FeatcacheError as error:
            problems.append(RunProblem(run=folder.name, what=str(error)))
        if report is not None:
            report("verify", done, len(folders))
    return RunsReport(
        path=root,
        runs=len(folders),
        problems=tuple(problems),
        unsealed=tuple(unsealed),
        unfinished=len(leftovers.find(root)),
    )

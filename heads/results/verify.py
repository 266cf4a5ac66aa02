"""Looking for damage in runs: every byte of every file, and every figure against the answers."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from featcache.errors import FeatcacheError
from featcache.progress import Report
from heads.results import leftovers
from heads.results.store import load, run_folders


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProblem:
    """A run that no table counts, and why."""

    run: str
    """Its folder."""
    what: str
    """One sentence, with the cure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsReport:
    """What a check of all runs under a root found."""

    path: Path
    runs: int
    """How many were read."""
    problems: tuple[RunProblem, ...]
    unsealed: tuple[str, ...]
    """Sound as far as anybody can tell, of before runs were sealed."""
    unfinished: int
    """Folders of runs that were killed while they were stored; the next one removes them."""

    @property
    def is_sound(self) -> bool:
        """Tell whether nothing was found."""
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

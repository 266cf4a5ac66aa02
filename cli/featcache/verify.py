"""`featcache verify`: read every byte of caches, or of all runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.featcache.reports import emit_report
from cli.ui import live, output, units
from cli.ui.commands import Command, empty
from cli.ui.options import (
    CacheDir,
    Json,
    Key,
    OfBackbone,
    OfDataset,
    Positional,
    Quiet,
    one_dataset,
)
from featcache.counts import counted
from featcache.errors import UsageError

if TYPE_CHECKING:
    pass


class RunsAlone(Command):
    """A command whose --runs may stand alone: it then means the usual folder."""

    may_be_empty = frozenset({"--runs"})

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line; `--runs` before another option, or at the end, has no value.

        Raises:
            UsageError: If a value is given, and is empty.
        """
        after = [*args, "-"][1:]  # of no arguments, none
        if "--runs=" in args or ("--runs", "") in zip(args, after, strict=True):
            raise empty("--runs")
        alone = [a == "--runs" and b.startswith("-") for a, b in zip(args, after, strict=True)]
        given = [f"{a}=" if is_alone else a for a, is_alone in zip(args, alone, strict=True)]
        return super().parse_args(ctx, given)


def verify(
    named: Positional = None,
    dataset: OfDataset = None,
    backbone: OfBackbone = None,
    key: Key = None,
    full: Annotated[bool, typer.Option("--full", help="sha256 instead of crc32.")] = False,
    runs: Annotated[
        str | None,
        typer.Option("--runs", metavar="[DIR]", help="Check all runs instead, there or at home."),
    ] = None,
    cache: CacheDir = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Check every byte of the caches that fit against what was written, or of all runs.

    \b
    Example: featcache verify fieldguide --full
    Example: featcache verify --runs
    """
    if runs is not None:
        if [option for option in (named, dataset, backbone, key) if option is not None] or full:
            raise UsageError("--runs checks every run whole; leave the other options away.")
        _verify_runs(Path(runs) if runs else None, quiet=quiet, json_=json_)
        return
    from featcache.store.library import cache_root, find_summaries
    from featcache.store.repair.verify import verify as check

    reports = []
    with live.live(quiet) as line:
        for found in find_summaries(cache_root(cache), one_dataset(named, dataset), backbone, key):
            reports.append(check(found.path, full=full, report=line.counter()))
    for report in reports:
        emit_report(report, json_)
    if not all(report.is_sound for report in reports):
        raise typer.Exit(1)


def _verify_runs(option: Path | None, *, quiet: bool, json_: bool) -> None:
    from featcache.errors import CacheNotFoundError
    from heads.results.store import runs_root
    from heads.results.verify import verify_runs

    with live.live(quiet) as line:
        report = verify_runs(runs_root(option), report=line.counter())
    if not report.runs:
        raise CacheNotFoundError(
            f"There are no runs in {report.path}. Train one with: heads train cmm --shots 16"
        )
    if json_:
        output.emit_json(report.to_json())
    else:
        head = "sound: " if report.is_sound else f"DAMAGED: {len(report.problems)} of "
        output.emit(f"{head}{counted(report.runs, 'run')}: {report.path}")
        for problem in report.problems:
            output.emit(f"  {problem.what}")
        if report.unsealed:
            output.say(
                f"{len(report.unsealed)} runs were stored before runs had seals: their figures "
                f"agree with their answers, and nothing tells whether a byte has changed: "
                f"{units.some(report.unsealed)}."
            )
        if report.unfinished:
            output.say(
                f"{report.unfinished} runs were cut off; the next one that is stored removes them."
            )
    if not report.is_sound:
        raise typer.Exit(1)

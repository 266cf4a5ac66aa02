"""`heads compare`: tables of what was trained."""

from typing import Annotated

import typer

from cli.ui import options, output
from cli.ui.flags import in_flags
from cli.ui.options import CacheDir, Json, RunsDir
from cli.ui.tables import emit_table


def compare(
    dataset: Annotated[
        list[str] | None, typer.Option(help="Only this data set; repeatable.")
    ] = None,
    backbone: Annotated[
        list[str] | None, typer.Option(help="Only this backbone; repeatable.")
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Only this test split; repeatable.")
    ] = None,
    shots: Annotated[
        list[str] | None, typer.Option(help="Only these shots; repeatable, or 'all'.")
    ] = None,
    against: Annotated[
        str, typer.Option(help="Method, or 'METHOD KEY=VALUE', that the differences are to.")
    ] = "zero-shot",
    metric: Annotated[
        str, typer.Option(help="Rank and compare by top1, balanced_accuracy or macro_f1.")
    ] = "top1",
    certainty: Annotated[
        bool,
        typer.Option("--certainty", help="Columns of calibrated heads, too; docs/certainty.md."),
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Tables in Markdown.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="A line for each row, every digit.")] = False,
    where: Annotated[bool, typer.Option("--where", help="Say where the files are.")] = False,
    cache: CacheDir = None,
    runs: RunsDir = None,
    json_: Json = False,
) -> None:
    """Compare what was trained: top-1 with intervals, and paired against zero-shot or another.

    \b
    Example: heads compare --dataset fieldguide
    Example: heads compare --metric balanced_accuracy
    Example: heads compare --certainty
    Example: heads compare --against 'cc-cdfsl control=augment-only'
    """
    from featcache.errors import CacheNotFoundError, UsageError
    from featcache.store.library import cache_root
    from heads.results.compare import compare as comparison
    from heads.results.render import cells
    from heads.results.render.csv import to_csv
    from heads.results.render.json import as_dicts
    from heads.results.render.markdown import to_markdown
    from heads.results.store import runs_root

    if markdown + csv + json_ > 1:
        raise UsageError("--markdown, --csv and --json exclude each other; choose one.")
    root = runs_root(runs)
    found = comparison.compare(
        root,
        dataset=dataset or None,
        backbone=backbone or None,
        split=split or None,
        shots=None if not shots else [options.shots(s) for s in shots],
        against=against,
        metric=metric,
    )
    for problem in found.problems:
        output.say(problem)
    if found.problems:
        output.say(f"Runs that were left out of all tables: {len(found.problems)}.")
    if not found.groups:
        raise CacheNotFoundError(
            f"There are no runs in {root}. Train one with: heads train cmm --shots 16"
        )
    if json_:
        for row in as_dicts(found.groups):
            output.emit_json(row)
    elif csv:
        output.emit_lines(to_csv(found.groups).rstrip("\n"))
    elif markdown:
        output.emit_lines(to_markdown(found.groups, certainty=certainty).rstrip("\n"))
    else:
        for number, group in enumerate(found.groups):
            if number:
                output.emit("")
            output.emit(group.title)
            emit_table(
                cells.columns(group, certainty=certainty),
                cells.cells(group, certainty=certainty),
                right=("seconds",),
                spare=cells.SPARE,
            )
            for note in cells.notes(group, certainty=certainty):
                output.emit(note)
    for group in found.groups:
        if group.lacks is not None:
            made = in_flags([group.lacks])
            joins = " (while the cache has these texts)" if group.texts else ""
            output.say(f"{group.title}: no run of {against} here. Make one{joins}: {made}")
    if any(group.ambiguous for group in found.groups):
        output.say("Tables of one name and several keys: `featcache ls` shows the weights of each.")
    if where:
        output.say(f"Features: {cache_root(cache)}")
        output.say(f"Results:  {root}")

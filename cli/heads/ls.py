"""`heads ls`: the runs and the heads that they keep."""

from typing import Annotated

import typer

from cli.ui import output, tables, units
from cli.ui.options import Json, RunsDir


def list_runs(
    dataset: Annotated[str | None, typer.Option(help="Only this data set.")] = None,
    method: Annotated[str | None, typer.Option(help="Only this method.")] = None,
    runs: RunsDir = None,
    json_: Json = False,
) -> None:
    """List the runs, the one stored last first, with the heads that they keep.

    Example: heads ls --dataset fieldguide
    """
    from featcache.errors import UnknownNameError
    from heads.results.overview import summaries
    from heads.results.store import runs_root

    root = runs_root(runs)
    found, problems = summaries(root)
    for problem in problems:
        output.say(problem)
    for field, what, name in (("dataset", "data set", dataset), ("method", "method", method)):
        known = {str(getattr(one.result, field)) for one in found}
        if name is not None and name not in known:
            raise UnknownNameError(f"{what} of the runs", name, known)
        found = [one for one in found if name in (None, getattr(one.result, field))]
    if json_:
        for one in found:
            output.emit_json(one.to_json())
        return
    if not found:
        output.say(f"No runs in {root} yet; `heads train` makes one.")
        return
    rows = []
    for one in found:
        result = one.result
        kept = str(len(one.heads)) if one.heads else "-"
        rows.append(
            (
                result.run,
                result.dataset,
                result.backbone,
                one.method_text,
                result.split,
                result.shots_text,
                f"{100 * result.metrics['top1'].mean:.1f}",
                f"{kept}, training features" if one.holds else kept,
                units.human_bytes(one.bytes),
            )
        )
    tables.emit_table(
        ("run", "dataset", "backbone", "method", "split", "shots", "top-1 %", "heads", "size"),
        rows,
        right=("top-1 %", "size"),
        # A run's name begins with its time and its method, so the method goes last.
        spare=("backbone", "split", "size", "dataset", "heads", "shots", "method"),
        whole=("run", "method"),
        prose=("heads",),
    )

"""`heads rm`: remove runs with their heads."""

from typing import Annotated

import typer

from cli.ui import output, units
from cli.ui.options import Json, RunsDir, Yes


def rm(
    run: Annotated[list[str], typer.Argument(metavar="RUN...", help="Names of runs.")],
    yes: Yes = False,
    runs: RunsDir = None,
    json_: Json = False,
) -> None:
    """Remove runs, with their answers and the heads that they keep.

    Example: heads rm 20261130T120000-cmm-0a1b2c --yes
    """
    from cli.ui.errors import noting
    from featcache.errors import UsageError
    from featcache.store.removal import count_bytes
    from heads.results import store
    from heads.results.named import LAST, last_run, seeds_of
    from heads.results.removal import remove, served_by
    from heads.results.store import runs_root

    root = runs_root(runs)
    for name in run:
        if name == LAST:
            raise UsageError(
                f"A run is removed by its name only; the one stored last is {last_run(root)}."
            )
        if "@" in name:
            whole = name.partition("@")[0]
            raise UsageError(f"{name} is a head, and runs are removed as a whole; name {whole}.")
    folders = [store.find(root, name) for name in dict.fromkeys(run)]
    for folder in folders:
        kept = len(seeds_of(folder))
        heads = f" with {kept} kept heads" if kept else ""
        what = f"the run {folder.name}{heads}, {units.human_bytes(count_bytes(folder))}: {folder}"
        if others := served_by(root, folder):
            output.say(f"Its heads are also those of {units.some(others)}, which keep none.")
        output.agree(what, yes)
        with noting("The next run that is stored removes the rest."):
            freed = remove(root, folder)
        if json_:
            output.emit_json({"removed": str(folder), "bytes": freed})
        else:
            output.emit(f"Removed {what}")

"""`featcache repair`: restore or encode again what is broken."""

from typing import Annotated

import typer

from cli.featcache.reports import emit_mended
from cli.ui import errors, live, output
from cli.ui.flags import in_flags
from cli.ui.options import (
    CacheDir,
    Device,
    Json,
    Key,
    OfBackbone,
    OfDataset,
    Positional,
    Quiet,
    one_dataset,
)


def repair(
    named: Positional = None,
    dataset: OfDataset = None,
    backbone: OfBackbone = None,
    key: Key = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Where they are now, if `extract` was given a file that has moved."),
    ] = None,
    device: Device = "auto",
    cache: CacheDir = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Mend the caches that fit: restore what has a copy, encode again exactly what is broken.

    Example: featcache repair trashnet
    """
    from featcache.errors import FeatcacheError
    from featcache.store.cache import Cache
    from featcache.store.library import cache_root, find_summaries
    from featcache.store.repair.verify import after_repair
    from featcache.store.repair.verify import repair as take_out

    whole = True
    for found in find_summaries(cache_root(cache), one_dataset(named, dataset), backbone, key):
        report, mended, problem = None, None, ""
        with (
            errors.noting("What was mended is kept; the same command goes on from there."),
            live.live(quiet) as line,
        ):
            try:
                report = take_out(found.path, report=line.counter())
                if report.dropped or Cache.open(found.path).needs_mending():
                    from featcache.pipeline.repair import mend  # loads torch: not for a sound cache

                    mended = mend(
                        found.path,
                        weights=weights,
                        device=device,
                        progress=live.shown_on(line),
                        say=line.say,
                    )
            except FeatcacheError as error:  # keep going: one failure must not block other caches
                problem = in_flags([after_repair(error.parts)])
        whole &= report is not None and report.is_sound and not problem
        whole &= mended is None or not mended.missing
        if json_:
            said = {"path": str(found.path)} if report is None else report.to_json(in_flags)
            more = {} if mended is None else mended.to_json()
            output.emit_json({**said, "mended": more, "problem": problem})
            continue
        if report is not None:
            emit_mended(report, mended, found)
        known = [] if report is None else [in_flags([p.what]) for p in report.problems]
        if problem and problem not in known:
            output.say(problem)
    if not whole:
        raise typer.Exit(1)

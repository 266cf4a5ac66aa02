"""The commands of `featcache` that look after caches: ls, info, verify, repair, rm."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import _reports as reports
from cli import _ui as ui
from cli._options import Command, empty
from cli._ui import CacheDir, Json, OfKey, Quiet
from featcache.counts import counted
from featcache.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


SHOWN = 20
"""Unreadable images that `info` lists."""

OfDataset = Annotated[str | None, typer.Option("--dataset", help="Which data set's cache.")]
Named = Annotated[
    str | None,
    typer.Argument(metavar="DATASET", help="The same as --dataset."),
]
OfBackbone = Annotated[str | None, typer.Option("--backbone", help="Which backbone's cache.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("ls")(list_caches)
    app.command(cls=_RunsAlone)(verify)
    for command in (info, repair, rm):
        app.command()(command)


class _RunsAlone(Command):
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


def list_caches(cache: CacheDir = None, json_: Json = False) -> None:
    """List the caches, the one finished last first.

    Example: featcache ls
    """
    import shlex

    from featcache.store.library import cache_root, caches
    from featcache.store.removal import all_left, digest_of

    found = caches(cache_root(cache))
    for path in all_left(cache_root(cache)):
        words = ["featcache", "rm", path.parent.name]
        words += ["--key", digest_of(path)] if digest_of(path) else []
        words += [] if cache is None else ["--cache", str(cache)]
        ui.say(
            f"{path} is what an interrupted removal has left. Delete it with: {shlex.join(words)}"
        )
    if json_:
        for item in found:
            ui.emit_json(item.to_json())
        return
    if not found:
        ui.say(f"No caches in {cache_root(cache)} yet; `featcache extract` makes one.")
        return
    for item in found:
        if item.problem:
            ui.say(item.problem)
    ui.emit_table(
        ("dataset", "backbone", "weights", "key", "images", "components", "size", "finished"),
        [
            (
                item.dataset,
                item.backbone,
                item.weights,
                item.digest,
                str(item.images),
                " ".join(item.components),
                ui.human_bytes(item.bytes),
                item.finished_text,
            )
            for item in found
        ],
        right=("images", "size"),
        spare=("components", "finished", "size", "images", "weights"),
    )


def info(
    named: Named = None,
    dataset: OfDataset = None,
    backbone: OfBackbone = None,
    key: OfKey = None,
    cache: CacheDir = None,
    json_: Json = False,
) -> None:
    """Explain one cache: what fixed its numbers, what it holds, what could not be read.

    Example: featcache info fieldguide
    """
    from dataclasses import asdict

    from featcache.store.cache import Cache
    from featcache.store.library import cache_root, find_summaries
    from featcache.store.provenance import distinct

    found, *others = find_summaries(cache_root(cache), _one(named, dataset), backbone, key)
    opened = Cache.open(found.path)
    listing, bad = opened.listing(), opened.bad_rows()
    made = distinct(opened.shards)
    fixed = asdict(opened.key)
    splits = {} if listing is None else {name: len(rows) for name, rows in listing.splits.items()}
    names = () if listing is None else listing.classes
    texts = {} if listing is None else listing.count_texts()
    ids = {} if listing is None else {listing.ids[row]: reason for row, reason in bad.items()}
    if json_:
        ui.emit_json(
            {
                **found.to_json(),
                "feature_key": fixed,
                "splits": splits,
                "classes": list(names),
                "texts": texts,
                "root": "" if listing is None else listing.root,
                "made_with": made,
                "unreadable": ids,
            }
        )
        return
    if others:
        more = counted(len(others), "more cache fits", "more caches fit")
        which = "; ".join(f"{reports.told_by(o, (found, *others))} ({o.weights})" for o in others)
        ui.say(f"{more}: {which}.")
    origin = found.weights if opened.key.is_imported else f"{found.weights} weights"
    rows = [("path", str(found.path)), ("finished", found.finished_text), ("from", origin)]
    rows += [(name, str(value)) for name, value in fixed.items()]
    if listing is not None:
        rows += [("images from", listing.root or "(imported)"), ("classes", ui.some(names))]
        rows += [("splits", ", ".join(f"{name} {count}" for name, count in splits.items()))]
        rows += [("texts", ", ".join(f"{kind} {count}" for kind, count in texts.items()))]
    for name, c in found.components.items():
        size = f"{ui.human_bytes(c.bytes)}, {counted(c.shards, 'shard')}"
        rows.append((name, f"{c.rows} rows of {list(c.shape)}, {size}"))
    rows += [("made with", ", ".join(f"{k} {v}" for k, v in one.items())) for one in made]
    rows += [("unreadable", f"{name}: {reason}") for name, reason in list(ids.items())[:SHOWN]]
    ui.emit_table(("", f"{found.dataset}, {found.backbone}"), rows)


def verify(
    named: Named = None,
    dataset: OfDataset = None,
    backbone: OfBackbone = None,
    key: OfKey = None,
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

    checked = []
    with ui.live(quiet) as line:
        for found in find_summaries(cache_root(cache), _one(named, dataset), backbone, key):
            checked.append(check(found.path, full=full, report=line.counter()))
    for report in checked:
        reports.emit_report(report, json_)
    if not all(report.is_sound for report in checked):
        raise typer.Exit(1)


def _verify_runs(option: Path | None, *, quiet: bool, json_: bool) -> None:
    from featcache.errors import CacheNotFoundError
    from heads.results.store import runs_root
    from heads.results.verify import verify_runs

    with ui.live(quiet) as line:
        report = verify_runs(runs_root(option), report=line.counter())
    if not report.runs:
        raise CacheNotFoundError(
            f"There are no runs in {report.path}. Train one with: heads train cmm --shots 16"
        )
    if json_:
        ui.emit_json(report.to_json())
    else:
        head = "sound: " if report.is_sound else f"DAMAGED: {len(report.problems)} of "
        ui.emit(f"{head}{counted(report.runs, 'run')}: {report.path}")
        for problem in report.problems:
            ui.emit(f"  {problem.what}")
        if report.unsealed:
            ui.say(
                f"{len(report.unsealed)} runs were stored before runs had seals: their figures "
                f"agree with their answers, and nothing tells whether a byte has changed: "
                f"{ui.some(report.unsealed)}."
            )
        if report.unfinished:
            ui.say(
                f"{report.unfinished} runs were cut off; the next one that is stored removes them."
            )
    if not report.is_sound:
        raise typer.Exit(1)


def repair(
    named: Named = None,
    dataset: OfDataset = None,
    backbone: OfBackbone = None,
    key: OfKey = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Where they are now, if `extract` was given a file that has moved."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
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
    for found in find_summaries(cache_root(cache), _one(named, dataset), backbone, key):
        report, mended, problem = None, None, ""
        with (
            ui.noting("What was mended is kept; the same command goes on from there."),
            ui.live(quiet) as line,
        ):
            try:
                report = take_out(found.path, report=line.counter())
                if report.dropped or Cache.open(found.path).needs_mending():
                    from featcache.pipeline.repair import mend  # loads torch: not for a sound cache

                    mended = mend(
                        found.path,
                        weights=weights,
                        device=device,
                        progress=ui.shown_on(line),
                        say=line.say,
                    )
            except FeatcacheError as error:  # one that is lost is no reason to leave the others
                problem = after_repair(str(error))
        whole &= report is not None and report.is_sound and not problem
        whole &= mended is None or not mended.missing
        if json_:
            said = {"path": str(found.path)} if report is None else report.to_json()
            more = {} if mended is None else mended.to_json()
            ui.emit_json({**said, "mended": more, "problem": problem})
            continue
        if report is not None:
            reports.emit_mended(report, mended, found)
        if problem and (report is None or problem not in {p.what for p in report.problems}):
            ui.say(problem)
    if not whole:
        raise typer.Exit(1)


def rm(
    dataset: Annotated[str, typer.Argument(help="Data set whose cache goes.")],
    backbone: OfBackbone = None,
    key: OfKey = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    cache: CacheDir = None,
    json_: Json = False,
) -> None:
    """Remove one cache; the images and the results stay.

    What an interrupted removal has left goes first, and then nothing else.

    Example: featcache rm trashnet --backbone tiny --yes
    """
    from featcache.errors import CacheNotFoundError, UnknownNameError, UsageError
    from featcache.store.library import cache_root, find_summaries
    from featcache.store.removal import count_bytes, finish_removal, left_by_removals, remove

    root = cache_root(cache)
    left = left_by_removals(root, dataset, backbone, key)
    try:
        fitting = find_summaries(root, dataset, backbone, key)
    except (CacheNotFoundError, UnknownNameError):
        if not left:
            raise
        fitting = []
    for path in left:
        size = ui.human_bytes(count_bytes(path))
        what = f"what an interrupted removal has left, {size}: {path}"
        _agree(what, yes)
        with ui.noting("The same command removes the rest."):
            freed = finish_removal(path)
        _emit_removed(path, freed, what, json_)
    if left:
        for found in fitting:
            ui.say(f"{found.path} is another cache and stays; the same command again is for it.")
        return
    if len(fitting) > 1:
        which = ", ".join(f"{f.digest} ({f.backbone}, {f.finished_text})" for f in fitting)
        raise UsageError(f"{len(fitting)} caches of '{dataset}' fit: {which}. Add --key of one.")
    (found,) = fitting
    what = f"{found.dataset}, {found.backbone}, {ui.human_bytes(found.bytes)}: {found.path}"
    _agree(what, yes)
    with ui.noting("The same command removes the rest."):
        freed = remove(root, found.path)
    _emit_removed(found.path, freed, what, json_)


def _agree(what: str, yes: bool) -> None:
    """Ask whether something may go, unless that was said; end the command if not."""
    from featcache.errors import UsageError

    if not yes and not ui.can_ask():
        raise UsageError(f"Nobody is there to agree to removing {what}. Add --yes.")
    if not yes and not ui.confirm(f"Remove {what}?"):
        raise typer.Exit(1)


def _emit_removed(path: "Path", freed: int, what: str, json_: bool) -> None:
    if json_:
        ui.emit_json({"removed": str(path), "bytes": freed})
    else:
        ui.emit(f"Removed {what}")


def _one(named: str | None, dataset: str | None) -> str | None:
    """Join the two ways to name a data set."""
    from featcache.errors import UsageError

    if None not in (named, dataset) and named != dataset:
        raise UsageError(
            f"Two data sets are named, '{named}' and --dataset {dataset}; leave one of them away."
        )
    return dataset if named is None else named

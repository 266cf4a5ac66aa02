"""`heads predict`: name the classes of images with a trained head."""

import sys
from collections.abc import Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.heads import answers
from cli.heads.asking import HeadWeights, OneHead, Rule, Top, check_asked, find_head
from cli.ui import errors, live, output
from cli.ui.options import CacheDir, Device, Json, Key, Quiet, RunsDir
from cli.ui.which import head_text
from featcache.counts import counted

if TYPE_CHECKING:
    from featcache.sources.queries.image import Queries
    from featcache.store.cache import Cache
    from heads.predicted import Prediction, Tally

LOT = 64
"""Predictions that are written together."""
SHOWN = 20
"""Unusable images that are named on stderr."""


def predict(
    head: OneHead,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH...",
            help="Images, folders, new.csv, photos.zip, wds:..., or - for paths from stdin.",
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Answer the images of a cached data set instead.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="Backbone of that cache; of images, if the head's file is not trusted."),
    ] = None,
    weights: HeadWeights = None,
    key: Key = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Split of the cache, or of a source with splits.",
            show_default="test; of sources all",
        ),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of a table that holds the paths.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column of a table that holds the class."),
    ] = None,
    top: Top = 5,
    coverage: Annotated[
        float | None,
        typer.Option(help="Name the set of classes that holds the right one this often, e.g. 0.9."),
    ] = None,
    rule: Rule = None,
    reject: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Tell images of no class; this share of others may be taken for such, e.g. 0.05.",
        ),
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", help="table, csv, json or parquet.", show_default="table"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write to FILE.csv, FILE.jsonl or FILE.parquet.")
    ] = None,
    device: Device = "auto",
    cache: CacheDir = None,
    runs: RunsDir = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Name the classes of images with a trained head, best first, with probabilities.

    What cannot be read is listed and stops nothing. Where the images have labels that are classes
    of the head, the accuracy is said. Calibrated heads say how sure they are (docs/certainty.md).

    \b
    Example: heads predict last new/
    Example: heads predict moths.head photo.jpg --top 3 --json
    Example: find new -name '*.jpg' | heads predict last - --out answers.csv
    Example: heads predict last new/ --coverage 0.9 --reject 0.05
    Example: heads predict last --dataset fieldguide --split sketch
    """
    from featcache.errors import UsageError
    from featcache.store.library import cache_root, find_cache

    # What is wrong is told before torch is loaded.
    kind = answers.format_of(format_, out, json_=json_)
    check_asked(top=top, coverage=coverage, rule=rule, reject=reject)
    if rule is not None and coverage is None:
        raise UsageError("--rule says how sets are made; ask for them with --coverage 0.9.")
    if bool(paths) == (dataset is not None):
        raise UsageError(
            "Name images, folders or tables to predict, or a cache with --dataset"
            + ("; not both." if paths else ", as `heads predict last new/` does.")
        )
    if dataset is None and key is not None:
        raise UsageError("--key is for a cache; name it with --dataset.")
    if dataset is not None and weights is not None:
        raise UsageError("--weights is for images; nothing of a cache is encoded.")
    if out is not None:
        answers.check_place(out, [head, *(paths or ())])
    named_columns = {n: c for n, c in (("path", column), ("label", labels)) if c is not None}
    named = find_head(head, runs)
    opened: Cache | None = None
    queries: list[Queries] = []
    with live.live(quiet) as line:
        if dataset is not None:
            if named_columns:
                raise UsageError("--column and --labels are for tables; leave them out.")
            opened = find_cache(cache_root(cache), dataset, backbone, key)
            if (listing := opened.listing()) is not None:
                listing.rows(split or "test")
        for path in paths or ():
            queries.append(_opened(path, cache, named_columns, split, line))

        from heads.api import load
        from heads.certainty.asked import Asked
        from heads.predicted import Tally
        from heads.predicting import Predictor
        from heads.results.named import LAST

        trained = load(
            named or head,
            root=runs,
            backbone=None if dataset else backbone,
            weights=weights,
        )
        line.say(head_text(trained, named, is_last=head == LAST))
        asked = Asked(coverage=coverage, rule=rule or "lac", reject=reject)
        predictor = Predictor(trained, top=top, device=device, asked=asked)
        if caution := asked.caution(trained.calibration):
            line.say(caution)
        columns = answers.Columns(
            predictor.top, sets=coverage is not None, rejects=reject is not None
        )
        tally = Tally(trained.classes)
        total = sum(q.count or 0 for q in queries) if all(q.count for q in queries) else 0
        report = line.counter()
        if opened is not None:
            found = predictor.cached(opened.feature_set(), split or "test")
        else:
            images = chain.from_iterable(q.images for q in queries)
            found = predictor.images(images)
        with (
            errors.noting("" if out is None else f"{out} was not written."),
            answers.writer(kind, out, columns, line.close) as written,
        ):
            for lot in _lots(found):
                written.write(lot)
                _count(lot, tally, line, quiet=quiet)
                report("predicting", tally.total, total)
        for note in dict.fromkeys(note for q in queries for note in q.notes()):
            line.say(note)
        if out is not None:
            line.say(f"Wrote {counted(tally.total, 'row')} to {out}.")
    _conclude(tally)


def _opened(
    path: str, cache: Path | None, columns: dict[str, str], split: str | None, line: live.Live
) -> "Queries":
    from featcache.sources.queries.opening import LONGEST_LINE, of_lines, open_queries
    from featcache.store.library import cache_root

    if path != "-":
        root = cache_root(cache)
        return open_queries(path, root, columns=columns, split=split, report=line.counter())
    read = partial(sys.stdin.buffer.readline, LONGEST_LINE)
    return of_lines(iter(read, b""))


def _lots(predictions: "Iterator[Prediction]") -> "Iterator[list[Prediction]]":
    while lot := list(islice(predictions, LOT)):
        yield lot


def _count(lot: "list[Prediction]", tally: "Tally", line: live.Live, *, quiet: bool) -> None:
    """Count predictions, and name images that could not be used."""
    for prediction in lot:
        tally.add(prediction)
        if prediction.problem and tally.unusable <= SHOWN and not quiet:
            line.say(f"{prediction.id}: {prediction.problem}")
            if tally.unusable == SHOWN:
                line.say("Further images that cannot be used are in the results only.")


def _conclude(tally: "Tally") -> None:
    """Say how many images were answered, and how well.

    Raises:
        SourceError: If there was none.
    """
    from featcache.errors import SourceError

    if not tally.total:
        raise SourceError("No image was named; expected at least one path.")
    if sentence := tally.sentence():
        output.say(sentence)
    if tally.unusable:
        output.say(f"{counted(tally.unusable, 'image')} of {tally.total} could not be used.")
    if not tally.answered:
        raise typer.Exit(1)

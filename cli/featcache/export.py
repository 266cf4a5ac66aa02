"""`featcache export`: a cache as a table for tools that show embeddings."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.heads.asking import find_head
from cli.ui import live, output
from cli.ui.options import (
    CacheDir,
    Json,
    Key,
    OfBackbone,
    OfDataset,
    Positional,
    Quiet,
    RunsDir,
    one_dataset,
)
from cli.ui.which import cache_text, head_text
from featcache.counts import counted

if TYPE_CHECKING:
    from featcache.exporters.parquet import Table

FORMATS = ("parquet",)
OTHER = frozenset({".csv", ".tsv", ".json", ".jsonl", ".npz", ".npy", ".h5", ".hdf5", ".arrow"})
"""Suffixes that promise another format."""


def export(
    named: Positional = None,
    dataset: OfDataset = None,
    backbone: OfBackbone = None,
    key: Key = None,
    to: Annotated[str, typer.Option(help="Format: parquet.")] = "parquet",
    out: Annotated[
        Path | None, typer.Option(help="File to write.", show_default="DATASET.parquet")
    ] = None,
    splits: Annotated[
        str | None, typer.Option(metavar="A,B", help="Splits to write.", show_default="all")
    ] = None,
    projection: Annotated[
        str, typer.Option(help="Coordinates in a plane: pca, tsne or none.")
    ] = "pca",
    neighbors: Annotated[
        int,
        typer.Option(help="Nearest images to name beside each; 0 names none."),
    ] = 0,
    thumbnails: Annotated[
        int, typer.Option(help="Longest side of thumbnails in pixels; 0 writes none.")
    ] = 0,
    run: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Add predictions of a head: RUN@SEED, a file, or `last`."),
    ] = None,
    cache: CacheDir = None,
    runs: RunsDir = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Write features, labels and a map of them to a table that Embedding Atlas opens.

    Example: featcache export fieldguide --thumbnails 128 --neighbors 10 --out moths.parquet
    """
    from featcache.errors import UnknownNameError, UsageError
    from featcache.exporters.asked import check_name, check_place, check_sizes
    from featcache.paths import expand
    from featcache.store.library import cache_root, find_cache

    # What is wrong is told before torch is loaded.
    if to not in FORMATS:
        raise UnknownNameError("format", to, FORMATS)
    check_name(projection)
    check_sizes(neighbors=neighbors, thumbnails=thumbnails)
    if out is not None:
        check_place(expand(out))
    if out is not None and out.suffix.lower() in OTHER:
        raise UsageError(
            f"Features are written as parquet, and {out} says {out.suffix}; name it "
            f"{out.with_suffix('.parquet')} with --out."
        )
    asked = one_dataset(named, dataset)
    found = find_cache(cache_root(cache), asked, backbone, key)
    kept = None if run is None else find_head(run, runs)

    from featcache.exporters.parquet import export_parquet

    features = found.feature_set()
    with live.live(quiet) as line:
        line.say(cache_text(found, is_named=asked is not None))
        answer = None
        if run is not None:
            import heads
            from heads.exporting.predictions import answer_of
            from heads.results.named import LAST

            head = heads.load(kept or run)
            line.say(head_text(head, kept, is_last=run == LAST))
            answer = answer_of(head, features)
        written = export_parquet(
            features,
            Path(f"{features.listing.dataset}.parquet") if out is None else out,
            splits=[] if splits is None else [name.strip() for name in splits.split(",")],
            projection=projection,
            neighbors=neighbors,
            thumbnails=thumbnails,
            answer=answer,
            progress=line.counter(),
        )
    if json_:
        output.emit_json(
            {
                "path": str(written.path),
                "rows": written.rows,
                "columns": list(written.columns),
                "unreadable": written.unreadable,
                "without_thumbnail": written.without_thumbnail,
                "lost": written.lost,
            }
        )
    else:
        output.emit(f"Wrote {counted(written.rows, 'row')} to {written.path}.")
    if not quiet:
        _say(written)


def _say(written: "Table") -> None:
    if written.unreadable:
        output.say(f"{counted(written.unreadable, 'unreadable image')} left out.")
    if written.without_thumbnail:
        without = counted(written.without_thumbnail, "image")
        output.say(f"{without} without a thumbnail: moved, changed or not on this machine.")
    if written.lost:
        output.say(f"Without further columns of the list of images: {written.lost}")
    words = ["embedding-atlas", str(written.path)]
    if "projection_x" in written.columns:
        words += ["--x", "projection_x", "--y", "projection_y"]
    else:
        words += ["--vector", "features"]
    words += ["--neighbors", "neighbors"] if "neighbors" in written.columns else []
    words += ["--image", "image"] if "image" in written.columns else []
    output.say(f"Look at it with: {' '.join(words)}")

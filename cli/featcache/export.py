"""`featcache export`: a cache as a table for tools that show embeddings."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
    thumbnails: Annotated[
        int, typer.Option(help="Longest side of thumbnails in pixels; 0 writes none.")
    ] = 0,
    run: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Add predictions of a kept head: RUN@SEED, or its file."),
    ] = None,
    cache: CacheDir = None,
    runs: RunsDir = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Write features, labels and a map of them to a table that Embedding Atlas opens.

    Example: featcache export fieldguide --thumbnails 128 --out moths.parquet
    """
    from featcache.errors import UnknownNameError, UsageError
    from featcache.exporters.names import check_name
    from featcache.store.library import cache_root, find_cache

    # What is wrong is told before torch is loaded.
    if to not in FORMATS:
        raise UnknownNameError("format", to, FORMATS)
    check_name(projection)
    if out is not None and out.suffix.lower() in OTHER:
        raise UsageError(
            f"Features are written as parquet, and {out} says {out.suffix}; name it "
            f"{out.with_suffix('.parquet')} with --out."
        )
    found = find_cache(cache_root(cache), one_dataset(named, dataset), backbone, key)

    from featcache.exporters.parquet import export_parquet

    features = found.feature_set()
    answer = None
    if run is not None:
        import heads
        from heads.exporting.predictions import answer_of
        from heads.results.store import runs_root

        answer = answer_of(heads.load(run, root=runs_root(runs)), features)
    with live.live(quiet) as line:
        count = line.counter()
        written = export_parquet(
            features,
            Path(f"{features.listing.dataset}.parquet") if out is None else out,
            splits=[] if splits is None else [name.strip() for name in splits.split(",")],
            projection=projection,
            thumbnails=thumbnails,
            answer=answer,
            progress=lambda done, total: count("writing", done, total),
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
        output.say(f"Without the further columns of the list of images: {written.lost}")
    words = ["embedding-atlas", str(written.path)]
    if "projection_x" in written.columns:
        words += ["--x", "projection_x", "--y", "projection_y"]
    else:
        words += ["--vector", "features"]
    words += ["--image", "image"] if "image" in written.columns else []
    output.say(f"Look at it with: {' '.join(words)}")

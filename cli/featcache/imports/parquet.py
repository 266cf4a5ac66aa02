"""`featcache import parquet`: features in tables."""

from typing import Annotated

import typer

from cli.featcache.imports.shared import Backbone, Dataset, LabelColumn, Name, Texts, Weights, bring
from cli.ui.options import CacheDir, Json, Quiet


def parquet(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SPLIT=FILE...",
            help="train=FILE test=FILE, or a folder.",
        ),
    ],
    backbone: Backbone,
    name: Name = None,
    dataset: Dataset = None,
    texts: Texts = None,
    weights: Weights = None,
    features_column: Annotated[str, typer.Option(help="Column of lists of numbers.")] = "",
    label_column: LabelColumn = "",
    path_column: Annotated[str, typer.Option(help="Column of paths or ids.")] = "",
    split_column: Annotated[str, typer.Option(help="Column of train, val, test.")] = "",
    cache: CacheDir = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Import parquet tables with a column of features.

    Labels, paths and splits are found by the names of their columns, or named here.

    Example: featcache import parquet train=a.parquet test=b.parquet --name pets --backbone ViT-B/32
    """
    from featcache.importers.parquet import Columns, read_parquet

    columns = Columns(
        features=features_column, label=label_column, path=path_column, split=split_column
    )
    bring(
        lambda: read_parquet(sources, columns),
        name=name,
        backbone=backbone,
        dataset=dataset,
        texts=texts,
        weights=weights,
        cache=cache,
        quiet=quiet,
        json_=json_,
    )

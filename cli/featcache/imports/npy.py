"""`featcache import npy`: one array a file."""

from pathlib import Path
from typing import Annotated

import typer

from cli.featcache.imports.shared import Backbone, Dataset, Name, Texts, Weights, bring
from cli.ui.options import CacheDir, Json, Quiet


def npy(
    folder: Annotated[Path, typer.Argument(help="train_features.npy, train_labels.npy, ...")],
    backbone: Backbone,
    name: Name = None,
    dataset: Dataset = None,
    texts: Texts = None,
    weights: Weights = None,
    dtype: Annotated[
        str | None, typer.Option(help="Type of raw numbers: float16, float32, float64.")
    ] = None,
    dim: Annotated[int | None, typer.Option(help="Width of a row of raw numbers.")] = None,
    cache: CacheDir = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Import a folder of arrays, one a file.

    Features may be raw numbers, as numpy.memmap writes them: those need --dtype and --dim.

    Example: featcache import npy features/ --name pets --backbone ViT-B/32
    """
    from featcache.importers.npy import read_npy_folder

    bring(
        lambda: read_npy_folder(folder, dtype=dtype, dim=dim),
        name=name,
        backbone=backbone,
        dataset=dataset,
        texts=texts,
        weights=weights,
        cache=cache,
        quiet=quiet,
        json_=json_,
    )

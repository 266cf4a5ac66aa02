"""`featcache import lpclip`: features of CoOp's linear probe."""

from pathlib import Path
from typing import Annotated

import typer

from cli.featcache.imports.shared import Backbone, Dataset, Name, Texts, Weights, bring
from cli.ui.options import CacheDir, Json, Quiet


def lpclip(
    folder: Annotated[Path, typer.Argument(help="<out>/<Dataset>: train.npz, val.npz, test.npz")],
    backbone: Backbone,
    name: Name = None,
    dataset: Dataset = None,
    texts: Texts = None,
    weights: Weights = None,
    cache: CacheDir = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Import features of CoOp's linear probe.

    train.npz, val.npz and test.npz hold feature_list and label_list.

    Example: featcache import lpclip clip_feat/EuroSAT --dataset eurosat --backbone RN50
    """
    from featcache.importers.lpclip import read_lpclip

    bring(
        lambda: read_lpclip(folder),
        name=name,
        backbone=backbone,
        dataset=dataset,
        texts=texts,
        weights=weights,
        cache=cache,
        quiet=quiet,
        json_=json_,
    )

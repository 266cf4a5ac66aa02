"""`featcache import tip-adapter`: caches of Tip-Adapter and TransCLIP."""

from pathlib import Path
from typing import Annotated

import typer

from cli.featcache.imports.shared import Backbone, Dataset, Name, Texts, Weights, bring
from cli.ui.options import CacheDir, Json, Quiet


def tip_adapter(
    folder: Annotated[Path, typer.Argument(help="caches/<dataset>: keys_16shots.pt, ...")],
    backbone: Backbone,
    name: Name = None,
    dataset: Dataset = None,
    texts: Texts = None,
    weights: Weights = None,
    cache: CacheDir = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Import a cache of Tip-Adapter.

    Few-shot sets are keys_16shots.pt and values_16shots.pt, features test_f.pt and test_l.pt.

    Example: featcache import tip-adapter caches/eurosat --dataset eurosat --backbone RN50
    """
    from featcache.importers.tip_adapter import read_tip_adapter

    bring(
        lambda: read_tip_adapter(folder),
        name=name,
        backbone=backbone,
        dataset=dataset,
        texts=texts,
        weights=weights,
        cache=cache,
        quiet=quiet,
        json_=json_,
    )


def transclip(
    folder: Annotated[Path, typer.Argument(help="caches/<dataset>: keys_16shots.pt, ...")],
    backbone: Backbone,
    name: Name = None,
    dataset: Dataset = None,
    texts: Texts = None,
    weights: Weights = None,
    cache: CacheDir = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Import a cache of TransCLIP.

    The files are those of Tip-Adapter, with keys that are not transposed, or views of keys.

    Example: featcache import transclip caches/eurosat --dataset eurosat --backbone ViT-B/16
    """
    from featcache.importers.tip_adapter import read_tip_adapter

    bring(
        lambda: read_tip_adapter(folder),
        name=name,
        backbone=backbone,
        dataset=dataset,
        texts=texts,
        weights=weights,
        cache=cache,
        quiet=quiet,
        json_=json_,
    )

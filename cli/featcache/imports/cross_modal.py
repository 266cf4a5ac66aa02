"""`featcache import cross-modal`: features of cross_modal_adaptation."""

from pathlib import Path
from typing import Annotated

import typer

from cli.featcache.imports.shared import Backbone, Dataset, Name, Texts, Weights, bring
from cli.ui.options import CacheDir, Json, Quiet


def cross_modal(
    folder: Annotated[Path, typer.Argument(help="Folder of one view: shot_16-seed_1.pth, ...")],
    backbone: Backbone,
    name: Name = None,
    dataset: Dataset = None,
    texts: Texts = None,
    weights: Weights = None,
    seed: Annotated[int, typer.Option(help="Which draw of the shots.")] = 1,
    cache: CacheDir = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Import features of cross_modal_adaptation.

    The few-shot sets of one seed are stored, and test.pth beside or above them.

    Example: featcache import cross-modal RN50_0/eurosat/none --dataset eurosat --backbone RN50
    """
    from featcache.importers.cross_modal import read_cross_modal

    bring(
        lambda: read_cross_modal(folder, seed=seed),
        name=name,
        backbone=backbone,
        dataset=dataset,
        texts=texts,
        weights=weights,
        cache=cache,
        quiet=quiet,
        json_=json_,
    )

"""`featcache import clip-benchmark`: features of its linear probe."""

from pathlib import Path
from typing import Annotated

import typer

from cli.featcache.imports.shared import Backbone, Dataset, Name, Texts, Weights, bring
from cli.ui.options import CacheDir, Json, Quiet


def clip_benchmark(
    folder: Annotated[Path, typer.Argument(help="features/<model>-<pretrained>-<dataset>")],
    backbone: Backbone,
    name: Name = None,
    dataset: Dataset = None,
    texts: Texts = None,
    weights: Weights = None,
    cache: CacheDir = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Import features of CLIP_benchmark.

    They are features_train.pt, targets_train.pt, and the same of val and test.

    Example: featcache import clip-benchmark features/cars --name cars --backbone ViT-B/32
    """
    from featcache.importers.clip_benchmark import read_clip_benchmark

    bring(
        lambda: read_clip_benchmark(folder),
        name=name,
        backbone=backbone,
        dataset=dataset,
        texts=texts,
        weights=weights,
        cache=cache,
        quiet=quiet,
        json_=json_,
    )

"""`featcache import clip-retrieval`: embeddings and metadata of its inference."""

from typing import Annotated

import typer

from cli.featcache.imports.shared import Backbone, Dataset, LabelColumn, Name, Texts, Weights, bring
from cli.ui.options import CacheDir, Json, Quiet


def clip_retrieval(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SPLIT=FOLDER...", help="train=FOLDER test=FOLDER, as written."),
    ],
    backbone: Backbone,
    name: Name = None,
    dataset: Dataset = None,
    texts: Texts = None,
    weights: Weights = None,
    label_column: LabelColumn = "",
    cache: CacheDir = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Import the output of clip-retrieval.

    Rows of img_emb/*.npy are joined with the rows of metadata/*.parquet of the same number.

    Example: featcache import clip-retrieval train=a test=b --name pets --backbone ViT-B/32
    """
    from featcache.importers.clip_retrieval import folders_by_split, read_clip_retrieval

    bring(
        lambda: read_clip_retrieval(folders_by_split(sources), label_column=label_column),
        name=name,
        backbone=backbone,
        dataset=dataset,
        texts=texts,
        weights=weights,
        cache=cache,
        quiet=quiet,
        json_=json_,
    )

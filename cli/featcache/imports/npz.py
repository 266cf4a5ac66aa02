"""`featcache import npz`: a cache of features that come from elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

from cli.featcache.imports.shared import KEPT, show, show_notes
from cli.ui import errors, live
from cli.ui.flags import in_flags
from cli.ui.options import CacheDir, Json, Quiet


def npz(
    file: Annotated[Path, typer.Argument(help="train_features, train_labels, test_..., ...")],
    name: Annotated[str, typer.Option(help="Name of the data set.")],
    backbone: Annotated[str, typer.Option(help="Name of the backbone it came from.")],
    cache: CacheDir = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Import features of a NumPy archive: train16_features, val_features, classnames, ...

    Example: featcache import npz clip_features.npz --name pets --backbone ViT-B/32
    """
    from featcache.importers.npz import import_npz
    from featcache.store.library import cache_root

    said: list[str] = []
    with errors.noting(KEPT), live.live(quiet) as line:
        made = import_npz(
            file,
            cache_root(cache),
            name,
            backbone,
            report=line.counter(),
            say=lambda message: said.append(in_flags([message])),
        )
        show_notes(made, line.say)
    show(made, said, json_=json_)

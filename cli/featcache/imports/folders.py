"""Formats that are one folder, read without further options; they differ in reader and help."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from cli.featcache.imports.shared import Backbone, Dataset, Name, Texts, Weights, bring
from cli.ui.options import CacheDir, Json, Quiet


def of_folder(reader: str, holds: str, doc: str) -> Callable[..., None]:
    """Make the command of a format.

    Args:
        reader: Module and function that read the folder, imported when the command runs.
        holds: Help of the folder.
        doc: Help of the command.
    """

    def command(
        folder: Annotated[Path, typer.Argument(help=holds)],
        backbone: Backbone,
        name: Name = None,
        dataset: Dataset = None,
        texts: Texts = None,
        weights: Weights = None,
        cache: CacheDir = None,
        quiet: Quiet = False,
        json_: Json = False,
    ) -> None:
        module, _, function = reader.partition(":")
        read = getattr(import_module(module), function)
        bring(
            lambda: read(folder),
            name=name,
            backbone=backbone,
            dataset=dataset,
            texts=texts,
            weights=weights,
            cache=cache,
            quiet=quiet,
            json_=json_,
        )

    command.__doc__ = doc
    return command


FOLDERS = {
    "tip-adapter": of_folder(
        "featcache.importers.tip_adapter:read_tip_adapter",
        "caches/<dataset>: keys_16shots.pt, ...",
        """Import a cache of Tip-Adapter.

    Few-shot sets are keys_16shots.pt and values_16shots.pt, features test_f.pt and test_l.pt.

    Example: featcache import tip-adapter caches/eurosat --dataset eurosat --backbone RN50
    """,
    ),
    "transclip": of_folder(
        "featcache.importers.tip_adapter:read_tip_adapter",
        "caches/<dataset>: keys_16shots.pt, ...",
        """Import a cache of TransCLIP.

    The files are those of Tip-Adapter, with keys that are not transposed, or views of keys.

    Example: featcache import transclip caches/eurosat --dataset eurosat --backbone ViT-B/16
    """,
    ),
    "lpclip": of_folder(
        "featcache.importers.lpclip:read_lpclip",
        "<out>/<Dataset>: train.npz, val.npz, test.npz",
        """Import features of CoOp's linear probe.

    train.npz, val.npz and test.npz hold feature_list and label_list.

    Example: featcache import lpclip clip_feat/EuroSAT --dataset eurosat --backbone RN50
    """,
    ),
    "clip-benchmark": of_folder(
        "featcache.importers.clip_benchmark:read_clip_benchmark",
        "features/<model>-<pretrained>-<dataset>",
        """Import features of CLIP_benchmark.

    They are features_train.pt, targets_train.pt, and the same of val and test.

    Example: featcache import clip-benchmark features/cars --name cars --backbone ViT-B/32
    """,
    ),
}
"""Name of the command -> command."""

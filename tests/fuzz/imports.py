"""Caches of other people: folders of torch, NumPy and parquet files."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tests.featcache.importers import miniatures
from tests.fuzz.cases import Case, read_case, writable
from tests.fuzz.guard import Target

THEIRS = "theirs"


def _check(read: Callable[[Path], object]) -> Callable[[Path], None]:
    """Read and check a folder; what is accepted is finite, labelled and can be shown."""
    from featcache.importers.contents import Contents
    from featcache.importers.table import check_contents

    def run(folder: Path) -> None:
        contents = read(folder)
        assert isinstance(contents, Contents)
        table = check_contents(contents)
        assert np.isfinite(table.rows).all()
        assert -1 <= table.labels.min() <= table.labels.max() < len(table.classes)
        writable([*table.classes, *table.ids, *table.splits])

    return run


def _seeds(write: Callable[[Path], object]) -> Callable[[Path], list[Case]]:
    def seeds(folder: Path) -> list[Case]:
        write(folder / THEIRS)
        return [read_case(folder / THEIRS)]

    return seeds


def _tip_adapter(folder: Path) -> object:
    from featcache.importers.tip_adapter import read_tip_adapter

    return read_tip_adapter(folder)


def _clip_benchmark(folder: Path) -> object:
    from featcache.importers.clip_benchmark import read_clip_benchmark

    return read_clip_benchmark(folder)


def _lpclip(folder: Path) -> object:
    from featcache.importers.lpclip import read_lpclip

    return read_lpclip(folder)


def _cross_modal(folder: Path) -> object:
    from featcache.importers.cross_modal import read_cross_modal

    return read_cross_modal(folder / "RN50_0" / "eurosat" / "none")


def _npy(folder: Path) -> object:
    from featcache.importers.npy import read_npy_folder

    return read_npy_folder(folder, dtype="float16", dim=miniatures.WIDTH)


def _parquet(folder: Path) -> object:
    from featcache.importers.parquet import read_parquet

    return read_parquet([str(folder)])


def _clip_retrieval(folder: Path) -> object:
    from featcache.importers.clip_retrieval import read_clip_retrieval

    return read_clip_retrieval({split: folder / split for split in ("train", "val", "test")})


READERS: Mapping[str, Callable[[Path], object]] = {
    "tip-adapter": _tip_adapter,
    "clip-benchmark": _clip_benchmark,
    "lpclip": _lpclip,
    "cross-modal": _cross_modal,
    "npy": _npy,
    "parquet": _parquet,
    "clip-retrieval": _clip_retrieval,
}

DEPTH = {"cross-modal": 3, "clip-retrieval": 1}
"""Format -> folders of the case above the folder that the user names."""


def _target(name: str, read: Callable[[Path], object]) -> Target:
    return Target(
        name=f"import-{name}",
        run=_check(read),
        seeds=_seeds(miniatures.FORMATS[name]),
        is_folder=True,
        depth=DEPTH.get(name, 0),
    )


IMPORT_TARGETS = tuple(
    _target(name, read)
    for name, read in READERS.items()
    if name not in miniatures.NEED_PYARROW or find_spec("pyarrow") is not None
)

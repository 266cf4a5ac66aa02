"""The runs under a root with what they keep: heads, their size, and features of images in them."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.store.format.tensor_header import peek
from featcache.store.removal import count_bytes
from heads.results import store
from heads.results.named import file_of, seeds_of
from heads.results.record import Result

METADATA = "featcache_head"
"""Name of the description in the header of a head's file."""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One run."""

    result: Result
    folder: Path
    bytes: int
    """Bytes of all its files."""
    heads: tuple[int, ...]
    """Seeds of the heads that it keeps itself."""
    head_bytes: int
    holds: tuple[str, ...]
    """Tensors of its heads that hold features of training images, as their files say; nothing but
    the description was checked."""

    @property
    def method_text(self) -> str:
        """Return the method, and its settings where they are not the default."""
        return f"{self.result.method} {self.result.variant}".strip()

    def to_json(self) -> dict[str, Any]:
        """Return one plain object."""
        result = self.result
        return {
            "run": result.run,
            "dataset": result.dataset,
            "backbone": result.backbone,
            "key": result.key,
            "method": result.method,
            "variant": result.variant,
            "split": result.split,
            "shots": "all" if result.shots is None else result.shots,
            "seeds": list(result.seeds),
            "top1": result.metrics["top1"].mean,
            "created": result.created,
            "path": str(self.folder),
            "bytes": self.bytes,
            "heads": list(self.heads),
            "head_bytes": self.head_bytes,
            "holds_training_features": list(self.holds),
        }


def summaries(root: Path) -> tuple[list[RunSummary], Sequence[str]]:
    """Summarise all runs under a root, the newest first.

    Returns:
        The runs, and one sentence for each that cannot be read.
    """
    shelf = store.load_all(root)
    runs = [summarise(result, shelf.folders[result.run]) for result in reversed(shelf.results)]
    return runs, shelf.problems


def summarise(result: Result, folder: Path) -> RunSummary:
    """Summarise one run."""
    seeds = tuple(seeds_of(folder))
    files = [folder / file_of(seed) for seed in seeds]
    return RunSummary(
        result=result,
        folder=folder,
        bytes=count_bytes(folder),
        heads=seeds,
        head_bytes=sum(file.lstat().st_size for file in files),
        holds=_holds(files[0]) if files else (),
    )


def _holds(file: Path) -> tuple[str, ...]:
    """Return what a head says that it holds; () where its header cannot be read."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        section: Any = peek(file, METADATA)["sections"]
        return tuple(map(str, section["classifier"]["holds_training_features"]))
    return ()

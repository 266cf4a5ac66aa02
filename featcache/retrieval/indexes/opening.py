"""Read the arrays of an index, which may come from a stranger, and rebuild it in memory.

No reader of faiss sees a file. Sizes and checksums are compared, then dtype and shape with those
that the kind needs, then values are checked; only then does faiss get the arrays.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from featcache.errors import CorruptCacheError, UsageError
from featcache.retrieval.indexes.arrays import CURE, map_array
from featcache.retrieval.indexes.description import Description
from featcache.retrieval.indexes.folder import DESCRIPTION, index_folder
from featcache.retrieval.indexes.order import Order
from featcache.retrieval.kinds.registry import structure_of
from featcache.retrieval.kinds.structure import Layout, Structure, chosen
from featcache.store.format.files import refuse_link


def read_order(root: Path, index: Description) -> Order:
    """Read which vector each id of an index is.

    Raises:
        CorruptCacheError: If a file differs from what was written, or a value is out of range.
        FileNotFoundError: If the arrays are gone, or were replaced meanwhile.
    """
    layout = {"sources": Layout(dtype="<i4", shape=(-1,)), "rows": Layout(dtype="<i8", shape=(-1,))}
    try:
        arrays = _read(root, index, layout)
        parts = [each.parts for each in index.covered]
        sources, rows = (np.array(arrays[name]) for name in ("sources", "rows"))
        return Order(sources, rows, parts, index.vectors)
    except ValueError as error:
        raise _wrong(root, index, str(error)) from error


def read_structure(root: Path, index: Description, *, grows: bool) -> Structure | None:
    """Rebuild an index in memory; call `read_order` first, which ties its size to the caches.

    Args:
        root: Folder of all caches.
        index: Its description.
        grows: Whether vectors are added to it; if not, faiss reads codes in the mapped file.

    Returns:
        The index; None for flat, which has none.

    Raises:
        CorruptCacheError: If a file differs from what was written, or a value is out of range.
        UsageError: If it needs faiss, which is not installed.
        FileNotFoundError: If the arrays are gone, or were replaced meanwhile.
    """
    kind = structure_of(index.kind)
    if kind is None:
        return None
    try:
        parameters = chosen(kind, index.vectors, index.dim, index.parameters)
        if parameters != dict(index.parameters):
            raise ValueError("lacks parameters")
    except (UsageError, ValueError) as error:
        raise _wrong(root, index, f"is not readable: {error}") from error
    try:
        structure = kind(index.dim, parameters)
        arrays = _read(root, index, structure.layout(index.vectors))
        structure.restore(arrays, index.vectors, grows=grows)
    except ValueError as error:
        raise _wrong(root, index, str(error)) from error
    return structure


def _read(
    root: Path, index: Description, layout: dict[str, Layout]
) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Map arrays whose dtype and shape are those of a layout.

    Raises:
        ValueError: If one has another; the message is a predicate.
        CorruptCacheError: If a file differs from what was written.
        FileNotFoundError: If one is gone.
    """
    folder = index_folder(root, index.name) / index.folder
    refuse_link(folder)
    facts = {each.name: each for each in index.arrays}
    for name, wanted in layout.items():
        if name not in facts:
            raise ValueError(f"has no array {name}")
        shape = facts[name].shape
        fits = len(shape) == len(wanted.shape) and all(
            w in (-1, s) for w, s in zip(wanted.shape, shape, strict=True)
        )
        if facts[name].dtype != wanted.dtype or not fits:
            raise ValueError(
                f"has an array {name} of {facts[name].dtype} {list(shape)} where "
                f"{wanted.dtype} {list(wanted.shape)} is needed"
            )
    return {name: map_array(folder, facts[name]) for name in layout}


def _wrong(root: Path, index: Description, what: str) -> CorruptCacheError:
    path = index_folder(root, index.name) / DESCRIPTION
    return CorruptCacheError(f"The index of {path} {what}. {CURE}")

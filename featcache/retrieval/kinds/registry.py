"""Names of the kinds, and which one is chosen for how many vectors."""

from featcache.errors import UnknownNameError
from featcache.faiss_library import INSTALL, has_faiss
from featcache.retrieval.kinds.structure import Structure

INDEX_KINDS = ("flat", "ivf", "hnsw", "ivfpq")
"""Kinds of indexes: exact search; lists; a graph; lists of codes."""
FLAT_UP_TO = 200_000
"""Vectors up to which an exact search takes milliseconds."""
IVF_UP_TO = 4 << 30
"""Bytes of float16 vectors up to which ivf keeps them in memory."""


def default_kind(count: int, dim: int) -> str:
    """Return the kind for this many vectors; flat where faiss is not installed.

    Example:
        >>> default_kind(5_000, 512)
        'flat'
    """
    if count <= FLAT_UP_TO or not has_faiss():
        return "flat"
    return "ivf" if 2 * count * dim <= IVF_UP_TO else "ivfpq"


def told_without_faiss(count: int) -> str:
    """Say that so many vectors would have another kind by default if faiss were installed.

    Example:
        >>> told_without_faiss(5_000)
        ''
    """
    if count <= FLAT_UP_TO or has_faiss():
        return ""
    return (
        f"More than {FLAT_UP_TO} vectors are searched faster by an approximate kind, which needs "
        f"faiss. {INSTALL}."
    )


def structure_of(kind: str) -> type[Structure] | None:
    """Return the class of an approximate kind; None for flat.

    Raises:
        UnknownNameError: If there is no such kind.
    """
    from featcache.retrieval.kinds.hnsw import Hnsw
    from featcache.retrieval.kinds.ivf import Ivf
    from featcache.retrieval.kinds.ivfpq import IvfPq

    if kind not in INDEX_KINDS:
        raise UnknownNameError("kind of index", kind, INDEX_KINDS)
    return {"ivf": Ivf, "hnsw": Hnsw, "ivfpq": IvfPq}.get(kind)

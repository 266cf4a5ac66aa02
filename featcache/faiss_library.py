"""The one place that imports faiss, and only when it is requested."""

from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from featcache.errors import UsageError

INSTALL = "Install it with pip install 'featcache[cpu]' ([gpu] on NVIDIA)"
GPU_MOST = 2048
"""Most neighbours, and most lists, of one search on a GPU."""


def has_faiss() -> bool:
    """Tell whether faiss is installed, without importing it."""
    try:
        return find_spec("faiss") is not None
    except ValueError:  # what is in its place is no module
        return False


def load_faiss(instead: str) -> Any:
    """Import faiss.

    Args:
        instead: What to use without it, as the end of a sentence.

    Raises:
        UsageError: If it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise UsageError(f"faiss is not installed here. {INSTALL}, or {instead}.") from error
    return faiss


def gpus() -> int:
    """Count the GPUs that faiss can use; 0 without faiss."""
    if not has_faiss():
        return 0
    faiss = load_faiss("")
    return int(faiss.get_num_gpus()) if hasattr(faiss, "get_num_gpus") else 0


def on_gpu(index: Any) -> Any:
    """Copy an index to the first GPU; float16 tables, which long codes need there.

    Args:
        index: An inverted file of faiss on the CPU.

    Returns:
        The copy; the same index where faiss sees no GPU, or cannot put this one there: its memory
        is full, or it has no such length of codes.
    """
    if not gpus():
        return index
    faiss = load_faiss("")
    options = faiss.GpuClonerOptions()
    options.useFloat16 = True
    try:
        resources = faiss.StandardGpuResources()
        copy = faiss.index_cpu_to_gpu(resources, 0, index, options)
    except RuntimeError:
        return index
    copy.referenced_objects = [resources]  # freed with the copy; faiss allows this name alone
    return copy


def on_cpu(index: Any) -> Any:
    """Copy an index that `on_gpu` returned back; an index on the CPU is returned as it is."""
    return load_faiss("").index_gpu_to_cpu(index) if _is_on_gpu(index) else index


def search_lists(
    index: Any, queries: Float32[np.ndarray, "q d"], count: int, probes: int
) -> Int64[np.ndarray, "q count"]:
    """Search an inverted file, on the CPU or on a GPU.

    Args:
        index: The file.
        queries: Unit rows.
        count: Candidates of each.
        probes: Lists that are searched.

    Returns:
        Ids, nearest first; -1 where fewer were found, or where a GPU finds no more at once.
    """
    most = GPU_MOST if _is_on_gpu(index) else max(count, probes)
    index.nprobe = min(probes, most)
    _, ids = index.search(np.ascontiguousarray(queries), min(count, most))
    return np.pad(ids, ((0, 0), (0, count - ids.shape[1])), constant_values=-1)


def _is_on_gpu(index: Any) -> bool:
    return "Gpu" in type(index).__name__

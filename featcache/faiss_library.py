"""The one place that imports faiss, and only when it is requested."""

from importlib.util import find_spec
from typing import Any

from featcache.errors import UsageError

INSTALL = "Install it with pip install 'featcache[cpu]' ([gpu] on NVIDIA)"


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
        The copy; the same index where faiss sees no GPU.
    """
    if not gpus():
        return index
    faiss = load_faiss("")
    options = faiss.GpuClonerOptions()
    options.useFloat16 = True
    resources = faiss.StandardGpuResources()
    copy = faiss.index_cpu_to_gpu(resources, 0, index, options)
    copy.kept_resources = resources  # freed with the copy, not before
    return copy


def on_cpu(index: Any) -> Any:
    """Copy an index that `on_gpu` returned back; an index on the CPU is returned as it is."""
    faiss = load_faiss("")
    if not gpus() or "Gpu" not in type(index).__name__:
        return index
    return faiss.index_gpu_to_cpu(index)

"""Messages for a lack of memory, file descriptors or threads."""

import errno
import re
import resource

_MEMORY = re.compile(
    r"out of memory|not enough memory|can(no|')t allocate memory|unable to allocate"
    r"|failed to map segment|alloc_cpu|std::bad_alloc",
    re.IGNORECASE,
)
"""Texts of out-of-memory errors of torch, numpy and the dynamic loader, which have no own type."""
_THREADS = "can't start new thread"
_FILES = frozenset({errno.EMFILE, errno.ENFILE})


def lacking(error: BaseException) -> str:
    """Return a message with advice if an error means a lack of resources; else empty.

    Args:
        error: Any exception.
    """
    if isinstance(error, OSError) and error.errno in _FILES:
        return (
            f"Too many files are open: this process may open "
            f"{_limit(resource.RLIMIT_NOFILE, 1)}. Allow more with: ulimit -n 4096"
        )
    memory = isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM
    if isinstance(error, RuntimeError | ImportError | OSError):
        text = str(error)
        if _THREADS in text:
            return (
                "No further thread could be started. Allow more processes (ulimit -u) or memory "
                "(ulimit -v), or end other programs."
            )
        memory |= _MEMORY.search(text) is not None
    if not memory:
        return ""
    what = "CUDA" if "CUDA" in str(error) else "this process"
    bound = _limit(resource.RLIMIT_AS, 1 << 20)
    limited = "" if bound == "any number" else f" It is limited to {bound} MiB (ulimit -v)."
    return f"There is not enough memory for {what}.{limited} Free some, or allow more."


def _limit(which: int, unit: int) -> str:
    soft = resource.getrlimit(which)[0]
    return "any number" if soft == resource.RLIM_INFINITY else str(soft // unit)


def allow_files() -> None:
    """Raise the limit of open files of this process as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1 << 16 if hard == resource.RLIM_INFINITY else min(hard, 1 << 16)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):  # a lower limit is acceptable
            return


def share_of_files(most: int) -> int:
    """Return how many files one component may keep open: `most`, or a share of a low limit.

    Args:
        most: Number of files if the limit is high enough.
    """
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return most if soft == resource.RLIM_INFINITY else max(1, min(most, soft // 16))

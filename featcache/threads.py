"""Worker threads in which torch operations use one thread each.

There are as many workers as cores. If every operation also used all cores, workers would wait for
each other, and results would depend on the number of cores.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

J = TypeVar("J")
R = TypeVar("R")


def cpu_cores() -> int:
    """Count the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def single_threaded(count: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """Start worker threads; leaving the block cancels queued jobs and waits for running ones.

    Args:
        count: Number of threads.
        name: Thread name for debuggers.
    """
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, name, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        try:
            pool.shutdown(wait=True, cancel_futures=True)
        finally:  # after a second Ctrl-C, too
            torch.set_num_threads(
                threads
            )  # setting 1 in workers also changed the default of new threads


def in_order(
    jobs: Iterable[J], work: Callable[[J], R], *, threads: int, ahead: int
) -> Generator[R, None, None]:
    """Run `work` on threads and yield its results in the order of the jobs.

    Args:
        jobs: Iterated on the calling thread.
        work: Called on the worker threads.
        threads: Number of worker threads.
        ahead: Most jobs in progress before the current one; bounds memory.
    """
    waiting: deque[Future[R]] = deque()
    with single_threaded(threads, "decode") as pool:
        for job in jobs:
            waiting.append(pool.submit(work, job))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

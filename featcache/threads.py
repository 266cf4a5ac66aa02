"""Threads of ours, to each of which torch gives no threads of its own.

As many of them work beside each other as there are cores; an operation that spread over all cores
from each would wait for the others. It would also depend on how many there are.
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
    """Open some threads; leaving the block drops what they have not begun and waits for the rest.

    Args:
        count: How many.
        name: What debuggers show.
    """
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, name, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        try:
            pool.shutdown(wait=True, cancel_futures=True)
        finally:  # after a second Ctrl-C, too
            torch.set_num_threads(threads)  # the workers' 1 was also what later threads begin with


def in_order(
    jobs: Iterable[J], work: Callable[[J], R], *, threads: int, ahead: int
) -> Generator[R, None, None]:
    """Run `work` on threads and yield its results in the order of the jobs.

    Args:
        jobs: Walked on the calling thread.
        work: Called on the others.
        threads: How many.
        ahead: Jobs begun before their turn; bounds the memory in use.
    """
    waiting: deque[Future[R]] = deque()
    with single_threaded(threads, "decode") as pool:
        for job in jobs:
            waiting.append(pool.submit(work, job))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

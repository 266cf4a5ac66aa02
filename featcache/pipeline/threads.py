"""Threads of ours, to each of which torch gives no threads of its own.

As many of them work beside each other as there are cores; an operation that spread over all cores
from each would wait for the others. It would also depend on how many there are.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


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

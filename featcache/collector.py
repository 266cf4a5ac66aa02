"""The garbage collector waits while millions of objects are made without reference cycles.

It looks at all objects anew each time their number has grown by a quarter, and finds nothing: that
was half of the time to list 300,000 files.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def waiting_collector() -> Iterator[None]:
    """Let the collector wait; memory is still given back wherever no reference cycle holds it.

    Where it waits or is off already, nothing changes. Threads share it: the first to end lets it
    run again, which costs another time only.

    Example:
        >>> with waiting_collector():
        ...     gc.isenabled()
        False
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()

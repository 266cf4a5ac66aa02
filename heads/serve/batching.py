"""Items of concurrent requests answered together by one thread, which takes what has come.

While it answers a batch, others gather for the next. Where a batch costs the same however few are
in it, the first of them waits for others as well.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class BusyError(Exception):
    """As many as may wait are waiting."""


class ClosedError(Exception):
    """The server is stopping."""


@dataclass(slots=True)
class _Job(Generic[T, R]):
    item: T
    future: "Future[R]" = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


class Batcher(Generic[T, R]):
    """A thread that answers items in batches.

    Args:
        answer: Answers some items, in order.
        take: Number of waiting items -> how many of them go into the next batch.
        enough: Number of items for which it no longer waits.
        wait: Seconds that the first item of a batch waits for others at most.
        room: Most items that wait.

    Example:
        >>> twice = lambda items: [2 * item for item in items]
        >>> batcher = Batcher(twice, take=lambda waiting: min(waiting, 8), room=9)
        >>> [future.result() for future in batcher.submit([1, 2, 3])]
        [2, 4, 6]
        >>> batcher.close()
    """

    def __init__(
        self,
        answer: Callable[[list[T]], Sequence[R]],
        *,
        take: Callable[[int], int],
        room: int,
        enough: int = 1,
        wait: float = 0.0,
    ) -> None:
        self._answer, self._take = answer, take
        self._enough, self._wait, self._room = enough, wait, room
        self._waiting: deque[_Job[T, R]] = deque()
        self._changed = Condition()
        self._closed = False
        self._thread = Thread(target=self._run, name="batches", daemon=True)
        self._thread.start()

    def submit(self, items: Sequence[T]) -> "list[Future[R]]":
        """Let items wait for an answer, all of them or none.

        Raises:
            BusyError: If there is no room.
            ClosedError: After `close`.
        """
        with self._changed:
            if self._closed:
                raise ClosedError
            if len(self._waiting) + len(items) > self._room:
                raise BusyError
            jobs: list[_Job[T, R]] = [_Job(item) for item in items]
            self._waiting.extend(jobs)
            self._changed.notify()
        return [job.future for job in jobs]

    def close(self) -> None:
        """Answer what waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            jobs = [job for job in batch if job.future.set_running_or_notify_cancel()]
            if not jobs:
                continue
            try:
                answers = self._answer([job.item for job in jobs])
            except BaseException as error:  # whoever waits must hear of it
                for job in jobs:
                    job.future.set_exception(error)
                continue
            for job, answer in zip(jobs, answers, strict=True):
                job.future.set_result(answer)

    def _next(self) -> list[_Job[T, R]]:
        """Wait for a batch; none after the last one."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            while self._waiting and len(self._waiting) < self._enough and not self._closed:
                left = self._waiting[0].since + self._wait - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            count = self._take(len(self._waiting)) if self._waiting else 0
            return [self._waiting.popleft() for _ in range(count)]

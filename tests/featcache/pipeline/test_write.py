import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.errors import CacheError
from featcache.keys import ComponentKey
from featcache.pipeline.write import AHEAD, TARGET_BYTES, Writer, shard_rows_for

KEY = ComponentKey(kind="global")


class Shelf:
    def __init__(self, seconds: float = 0.0, fail_at: int | None = None) -> None:
        self.seen: list[int] = []
        self.seconds, self.fail_at = seconds, fail_at

    def append(
        self, component: ComponentKey, rows: Any, values: Any, bad: Mapping[int, str]
    ) -> None:
        time.sleep(self.seconds)
        if len(self.seen) == self.fail_at:
            raise CacheError("No space is left")
        self.seen.append(int(rows[0]))


def put(writer: Writer, row: int) -> None:
    writer.put(KEY, np.array([row]), np.zeros((1, 4), dtype=np.float16), {})


def feed(shelf: Shelf, count: int, then: BaseException | None = None) -> None:
    with Writer(shelf) as writer:
        for row in range(count):
            put(writer, row)
        if then is not None:
            raise then


def test_leaving_waits_for_everything() -> None:
    shelf = Shelf(0.01)
    watched: list[tuple[str, float, float]] = []
    with Writer(shelf, lambda *work: watched.append(work)) as writer:
        for row in range(5):
            put(writer, row)
    assert shelf.seen == list(range(5))
    assert writer.bytes == 5 * 8
    assert [stage for stage, _, _ in watched] == ["write"] * 5
    assert sum(end - begin for _, begin, end in watched) > 0.04


def test_an_interruption_drops_what_is_not_begun_and_stops_the_thread() -> None:
    shelf = Shelf(0.05)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        feed(shelf, 3, then=KeyboardInterrupt())
    assert len(shelf.seen) <= 2
    assert threading.active_count() == before


def test_a_full_disk_is_raised_where_the_pass_runs() -> None:
    with pytest.raises(CacheError, match="No space"):
        feed(Shelf(0.001, fail_at=1), 100)
    with pytest.raises(CacheError, match="No space"):
        feed(Shelf(fail_at=0), 1)


def test_the_queue_is_bounded() -> None:
    gate = threading.Event()
    shelf = Shelf()
    shelf.append = lambda *_: gate.wait(5)  # type: ignore[method-assign,assignment]
    done = []

    def fill(writer: Writer) -> None:
        for row in range(AHEAD + 3):
            put(writer, row)
            done.append(row)

    with Writer(shelf) as writer:
        thread = threading.Thread(target=fill, args=(writer,))
        thread.start()
        time.sleep(0.1)
        assert len(done) <= AHEAD + 1
        gate.set()
        thread.join()


@given(
    st.integers(1, 10**6), st.floats(0.01, 5000), st.sampled_from([8, 16, 64, 256]),
    st.sampled_from(["cpu", "cuda", "mps", "xpu"]),
)  # fmt: skip
def test_shards_are_whole_micro_batches_of_bounded_size(
    row_bytes: int, gflops: float, micro_batch: int, kind: str
) -> None:
    rows = shard_rows_for(row_bytes, gflops, micro_batch, kind)
    assert rows % micro_batch == 0
    assert rows >= micro_batch
    assert rows == micro_batch or rows * row_bytes <= TARGET_BYTES

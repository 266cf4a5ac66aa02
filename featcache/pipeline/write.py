"""Writing finished shards on a separate thread, so that the encoder does not wait for fsync."""

import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, Shaped

from featcache.encoding.encoder import Watch
from featcache.keys import ComponentKey
from featcache.quantise import pack
from featcache.store.cache import Cache

TARGET_BYTES = 128 * 2**20
"""Maximum bytes of a shard."""

TARGET_GFLOPS = {"cpu": 1_500.0, "cuda": 600_000.0, "mps": 20_000.0}
"""Work in a shard by kind of device, some ten seconds. An interruption costs the shards that were
not written yet; on a CPU with many cores several can be in work."""

AHEAD = 2
"""Shards that may wait for the disk."""


@runtime_checkable
class Sink(Protocol):
    """Receiver of finished shards."""

    def append(
        self,
        component: ComponentKey,
        rows: Int64[np.ndarray, " r"],
        values: Shaped[np.ndarray, "r ..."],
        bad: Mapping[int, str],
    ) -> object:
        """Write one shard and enter it in the manifest."""
        ...


@dataclass(frozen=True)
class Recorder:
    """Adds shards to a cache with their provenance."""

    cache: Cache
    provenance: Mapping[str, str]

    def append(
        self,
        component: ComponentKey,
        rows: Int64[np.ndarray, " r"],
        values: Shaped[np.ndarray, "r ..."],
        bad: Mapping[int, str],
    ) -> None:
        """Write one shard and enter it in the manifest."""
        self.cache.append(component, rows, values, bad, self.provenance)


def shard_rows_for(row_bytes: int, gflops: float, micro_batch: int, kind: str) -> int:
    """Choose the rows of a shard: a multiple of the micro-batch, bounded by bytes and by work.

    Args:
        row_bytes: Bytes of a row of the widest requested component.
        gflops: GFLOP of one image for all requested components.
        micro_batch: Views in a batch.
        kind: Type of device: cpu, cuda, mps.
    """
    work = TARGET_GFLOPS.get(kind, TARGET_GFLOPS["cpu"])
    rows = min(TARGET_BYTES // max(row_bytes, 1), int(work / max(gflops, 1e-3)))
    return max(1, rows // micro_batch) * micro_batch


@dataclass(frozen=True)
class _Shard:
    component: ComponentKey
    rows: Int64[np.ndarray, " r"]
    values: Shaped[np.ndarray, "r ..."]
    bad: Mapping[int, str]


class Writer:
    """Context that writes shards on a thread; leaving it waits for the disk, unless by an error."""

    def __init__(self, sink: Sink, watch: Watch = lambda stage, begin, end: None) -> None:
        self._sink = sink
        self._watch = watch
        self._queue: queue.Queue[_Shard | None] = queue.Queue(AHEAD)
        self._error: BaseException | None = None
        self._dropping = False
        self._thread = threading.Thread(target=self._work, name="write", daemon=True)
        self.bytes = 0
        """Written so far."""

    def put(
        self,
        component: ComponentKey,
        rows: Int64[np.ndarray, " r"],
        values: Shaped[np.ndarray, "r ..."],
        bad: Mapping[int, str],
    ) -> None:
        """Queue one shard; wait while `AHEAD` shards are unwritten.

        Raises:
            FeatcacheError: If an earlier shard could not be written.
        """
        self._check()
        self._queue.put(_Shard(component, rows, values, bad))

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._dropping = error is not None
        self._queue.put(None)
        self._thread.join()
        if error is None:
            self._check()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (shard := self._queue.get()) is not None:
            if self._dropping or self._error is not None:
                continue
            start = time.perf_counter()
            try:
                values = _packed(shard)
                self._sink.append(shard.component, shard.rows, values, shard.bad)
                self.bytes += values.nbytes
            except BaseException as error:
                self._error = error  # raised where the pass can see it
            self._watch("write", start, time.perf_counter())


def _packed(shard: _Shard) -> Shaped[np.ndarray, "r ..."]:
    component = shard.component
    if component.dtype != "int8":
        return shard.values
    return pack(
        shard.values,
        component=component.folder,
        name_of=lambda position: f"row {int(shard.rows[position])} of the listing",
    )

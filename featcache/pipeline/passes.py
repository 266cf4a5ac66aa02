"""One pass over the images: decode on threads, encode here, write behind.

Rows are walked in order and cut into shards at fixed row numbers. Each image is decoded once for
all components that lack it, and no batch spans two shards; so a pass that was interrupted and
taken up again leaves the same bytes as one that was not.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float16, Int64, UInt8

from featcache.errors import SourceError
from featcache.keys import ComponentKey
from featcache.pipeline.decode import UnreadableImageError, in_order, quiet_pillow, read_image
from featcache.pipeline.encode import Encoder, Lane
from featcache.pipeline.plan import Plan, Todo
from featcache.pipeline.views import Preprocess, central_view, random_view, view_stream
from featcache.pipeline.write import Sink, Writer

EVERY = 0.2
"""Seconds between two reports of progress."""

BAD_SHARE, BAD_COUNT = 0.01, 10
"""A pass stops when more images than the larger cannot be read; those of earlier passes count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How things stand, several times a second."""

    stage: str
    """What is being done: encode, or a word for what comes before."""
    done: int
    total: int
    rate: float = 0.0
    """Images a second since the pass began."""
    eta_s: float | None = None
    bytes: int = 0
    """Written so far."""
    binding: str = ""
    """The stage the others wait for: decode, encode or write."""
    bad: int = 0
    """Images that could not be read."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the image of a row is, and what its bytes were when it was listed."""

    id: str
    path: Path
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a pass behaves; none of it changes a number."""

    threads: int
    max_pixels: int
    strict: bool = False
    allow_bad: bool = False
    known_bad: frozenset[int] = frozenset()
    """Rows that an earlier pass could not read: they count, and stop nothing themselves."""
    progress: Callable[[Progress], None] | None = None


@dataclass(kw_only=True)
class Outcome:
    """What came of a pass."""

    images: int = 0
    bad: dict[int, str] = field(default_factory=dict)
    """Row -> why its image could not be read."""
    bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    """Of the encoding thread: waiting for decode, encode, waiting for write; and total."""


@dataclass(frozen=True, slots=True)
class _Job:
    row: int
    source: Source
    central: bool
    views: tuple[ComponentKey, ...]


@dataclass(frozen=True, slots=True)
class _Pictures:
    central: UInt8[np.ndarray, "s s 3"] | None = None
    views: Mapping[ComponentKey, Sequence[UInt8[np.ndarray, "s s 3"]]] = field(default_factory=dict)
    reason: str = ""


class Pass:
    """The loop that joins the four stages."""

    def __init__(
        self,
        plan: Plan,
        sources: Mapping[int, Source],
        encoder: Encoder,
        preprocess: Preprocess,
        options: Options,
    ) -> None:
        self._plan = plan
        self._sources = sources
        self._encoder = encoder
        self._preprocess = preprocess
        self._options = options
        self._central = [t for t in plan.todos if not t.ask.views]
        self._views = [t for t in plan.todos if t.ask.views]
        self._central_rows = _union(self._central)
        self._spent = {"decode": 0.0, "encode": 0.0, "write": 0.0}
        self._begin = self._reported = 0.0
        self.outcome = Outcome()

    def run(self, sink: Sink) -> Outcome:
        """Encode what the plan lacks, shard by shard.

        Raises:
            SourceError: If an image is unreadable under `strict`, or too many are.
            CacheError: If a shard cannot be written or a row does not fit fp16.
            KeyboardInterrupt: As it came, with both threads stopped; finished shards stay.
        """
        micro = self._encoder.micro_batch
        decoded = in_order(
            self._jobs(),
            self._decode,
            threads=self._options.threads,
            ahead=2 * micro + self._options.threads,
        )
        self._begin = time.perf_counter()
        with quiet_pillow(), closing(decoded):
            with Writer(sink) as writer:
                for rows in self._blocks():
                    self._block(rows, decoded, writer)
                start = time.perf_counter()
            self._spent["write"] += time.perf_counter() - start
        self.outcome.bytes = writer.bytes
        total = time.perf_counter() - self._begin
        self.outcome.seconds = {**self._spent, "total": total}
        self._report(writer, force=True)
        return self.outcome

    def _blocks(self) -> Iterator[Int64[np.ndarray, " r"]]:
        rows = self._plan.rows
        if len(rows):
            cuts = np.flatnonzero(np.diff(rows // self._plan.shard_rows)) + 1
            yield from np.split(rows, cuts)

    def _jobs(self) -> Iterator[_Job]:
        central = set(self._central_rows.tolist())
        views = [(t.ask.component, set(t.rows.tolist())) for t in self._views]
        for row in self._plan.rows.tolist():
            asked = tuple(component for component, rows in views if row in rows)
            yield _Job(row, self._sources[row], row in central, asked)

    def _decode(self, job: _Job) -> _Pictures:
        """Turn one file into all pictures that the encoder wants of it; on a thread."""
        try:
            image = read_image(
                job.source.path, job.source.sha256, max_pixels=self._options.max_pixels
            )
            central = central_view(image, self._preprocess) if job.central else None
        except UnreadableImageError as error:
            return _Pictures(reason=str(error))
        views = {}
        for key in job.views:
            streams = (
                view_stream(key.seed, key.recipe, job.source.sha256, v) for v in range(key.count)
            )
            views[key] = [random_view(image, self._preprocess, key.recipe, s) for s in streams]
        return _Pictures(central, views)

    def _block(
        self, rows: Int64[np.ndarray, " r"], decoded: Iterator[_Pictures], writer: Writer
    ) -> None:
        """Encode one shard's rows of every component and hand them to the writer."""
        central = Lane(self._encoder, np.intersect1d(self._central_rows, rows), self._variants())
        lanes = {
            t.ask.component: Lane(self._encoder, np.intersect1d(t.rows, rows), views=t.ask.views)
            for t in self._views
        }
        for row in rows.tolist():
            with self._clock("decode"):
                pictures = next(decoded)
            self.outcome.images += 1
            if pictures.reason:
                self._refuse_or_note(row, pictures.reason)
            with self._clock("encode"):
                if pictures.central is not None:
                    central.add(row, [pictures.central])
                for component, views in pictures.views.items():
                    lanes[component].add(row, views)
            self._report(writer)
        with self._clock("encode"):
            out = central.end()
            finished = {t.ask.name: out[t.ask.component.variant or "global"] for t in self._central}
            for t in self._views:
                values = lanes[t.ask.component].end()["global"]
                finished[t.ask.name] = values.reshape(-1, *t.ask.row_shape)
        for t in self._central:
            mine = np.isin(central.rows, t.rows)
            values = finished[t.ask.name]
            self._hand_over(t, central.rows[mine], values if mine.all() else values[mine], writer)
        for t in self._views:
            self._hand_over(t, lanes[t.ask.component].rows, finished[t.ask.name], writer)

    def _variants(self) -> tuple[str, ...]:
        return tuple(t.ask.component.variant for t in self._central if t.ask.component.variant)

    def _hand_over(
        self,
        todo: Todo,
        rows: Int64[np.ndarray, " r"],
        values: Float16[np.ndarray, "r ..."],
        writer: Writer,
    ) -> None:
        if not len(rows):
            return
        component = todo.ask.component
        bad = {r: self.outcome.bad[r] for r in rows.tolist() if r in self.outcome.bad}
        with self._clock("write"):
            writer.put(component, rows, values, bad)

    def _refuse_or_note(self, row: int, reason: str) -> None:
        bad = self.outcome.bad
        bad[row] = reason
        name = self._sources[row].id
        if self._options.strict:
            raise SourceError(f"{name} {reason}. Without --strict it would be skipped.")
        known, images = self._options.known_bad, self._plan.images
        total = len(known | bad.keys())
        if self._options.allow_bad or row in known:
            return
        if total > max(BAD_SHARE * images, BAD_COUNT):
            first = "; ".join(f"{self._sources[r].id} {why}" for r, why in list(bad.items())[:3])
            raise SourceError(
                f"{total} of {images} images cannot be read so far ({first}; ...). "
                f"Repair or remove them, or go on with --allow-bad."
            )

    @contextmanager
    def _clock(self, stage: str) -> Iterator[None]:
        """Add the time spent in a block to one stage."""
        start = time.perf_counter()
        yield
        self._spent[stage] += time.perf_counter() - start

    def _report(self, writer: Writer, *, force: bool = False) -> None:
        now = time.perf_counter()
        if self._options.progress is None or (now - self._reported < EVERY and not force):
            return
        self._reported = now
        done, total = self.outcome.images, len(self._plan.rows)
        rate = done / max(now - self._begin, 1e-9)
        self._options.progress(
            Progress(
                stage="encode",
                done=done,
                total=total,
                rate=rate,
                eta_s=(total - done) / rate if rate else None,
                bytes=writer.bytes,
                binding=max(self._spent, key=self._spent.__getitem__),
                bad=len(self.outcome.bad),
            )
        )


def sources_of(
    ids: Sequence[str], hashes: Sequence[str], paths: Mapping[str, Path]
) -> dict[int, Source]:
    """Join rows with files; a row whose image is gone has none."""
    pairs = zip(ids, hashes, strict=True)
    return {i: Source(n, paths[n], h) for i, (n, h) in enumerate(pairs) if n in paths}


def _union(todos: Sequence[Todo]) -> Int64[np.ndarray, " r"]:
    return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *(t.rows for t in todos)]))

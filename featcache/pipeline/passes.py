"""One pass over the images: decode on threads, encode on this one, write on another.

Rows are processed in order and cut into shards at fixed row numbers. Each image is decoded once for
all components that lack it, and no batch spans two shards, so an interrupted pass that is continued
leaves the same bytes as an undisturbed one. The last batches of a shard may still be computed while
the next one is filled: no stage waits at the end of a shard.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from featcache.encoding.encoder import Encoder, Watch, unwatched
from featcache.encoding.row_group import RowGroup
from featcache.errors import SourceError
from featcache.imaging.decode import quiet_pillow
from featcache.imaging.loader import FileSource, ImageLoader, Job, LoadedImage
from featcache.imaging.views import ViewSpec
from featcache.pipeline.blocks import Block, encoded_rows
from featcache.pipeline.plan import Plan
from featcache.pipeline.progress import Progress
from featcache.pipeline.write import Sink, Writer
from featcache.threads import in_order
from featcache.wording import Argument

EVERY = 0.2
"""Seconds between two reports of progress."""

BAD_SHARE, BAD_COUNT = 0.01, 10
"""A pass stops when more images than the larger of the two (share of the images, number) are
unreadable; those of earlier passes count."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Settings of a pass that do not change the features."""

    threads: int
    max_pixels: int
    strict: bool = False
    allow_bad: bool = False
    known_bad: frozenset[int] = frozenset()
    """Rows that an earlier pass could not read; they count, but stop no pass themselves."""
    progress: Callable[[Progress], None] | None = None
    watch: Watch = unwatched
    """Called on the working thread after every decoded image and every written shard."""


@dataclass(kw_only=True)
class Outcome:
    """Result of a pass."""

    images: int = 0
    bad: dict[int, str] = field(default_factory=dict)
    """Row -> why its image could not be read."""
    bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    """Stage -> seconds of the encoding thread: decode and write (waiting), encode, total; and cpu
    of all threads of this process."""


@dataclass(frozen=True, slots=True)
class _Filled:
    """A block whose views were all given to the encoder."""

    block: Block
    group: RowGroup


class Pass:
    """Connects decoding, encoding and writing."""

    def __init__(
        self,
        plan: Plan,
        sources: Mapping[int, FileSource],
        encoder: Encoder,
        options: Options,
    ) -> None:
        self._plan = plan
        self._sources = sources
        self._encoder = encoder
        self._loader = ImageLoader(
            preprocess=encoder.preprocess,
            max_pixels=options.max_pixels,
            room=encoder.image_room if encoder.cuts else None,
        )
        self._options = options
        self._spent = {"decode": 0.0, "encode": 0.0, "write": 0.0}
        self._begin = self._reported = 0.0
        self._waiting: deque[_Filled] = deque()
        self.outcome = Outcome()

    def run(self, sink: Sink) -> Outcome:
        """Encode what the plan lacks, shard by shard.

        Raises:
            SourceError: If an image is unreadable under `strict`, or too many are.
            CacheError: If a shard cannot be written or a row does not fit fp16.
            KeyboardInterrupt: As it came, with both threads stopped; finished shards stay.
        """
        loaded = in_order(
            self._jobs(),
            self._load,
            threads=self._options.threads,
            ahead=self._encoder.decode_ahead(
                self._options.threads, sum(v.count for v, _ in encoded_rows(self._plan.todos))
            ),
        )
        self._begin, cpu = time.perf_counter(), time.process_time()
        with quiet_pillow(), closing(loaded), self._encoder.streaming():
            with Writer(sink, self._options.watch) as writer:
                for block in self._plan.shares:
                    self._waiting.append(self._fill(block, loaded, writer))
                    self._finish(writer, beside=max(1, 2 * self._encoder.streams))
                self._finish(writer, beside=0)
                start = time.perf_counter()
            self._spent["write"] += time.perf_counter() - start
        self.outcome.bytes = writer.bytes
        total = time.perf_counter() - self._begin
        cpu = time.process_time() - cpu
        self.outcome.seconds = {**self._spent, "total": total, "cpu": cpu}
        self._report(writer, force=True)
        return self.outcome

    def _jobs(self) -> Iterator[Job]:
        for block in self._plan.shares:  # sets of one block, whatever the size of the pass
            shown = [(s.views, set(s.rows.tolist())) for s in block.shown()]
            boxed = [(views, set(rows.tolist())) for views, rows in block.boxed()]
            for row in block.rows.tolist():
                yield Job(
                    self._sources[row],
                    shown=tuple(views for views, rows in shown if row in rows),
                    boxed=tuple(views for views, rows in boxed if row in rows),
                )

    def _load(self, job: Job) -> LoadedImage:
        begin = time.perf_counter()
        loaded = self._loader(job)
        self._options.watch("decode", begin, time.perf_counter())
        return loaded

    def _fill(self, block: Block, loaded: Iterator[LoadedImage], writer: Writer) -> _Filled:
        """Give the views of one shard to the encoder; write earlier shards that are ready."""
        group = RowGroup(self._encoder, block.shown())
        for row in block.rows.tolist():
            with self._clock("decode"):
                image = next(loaded)
            self.outcome.images += 1
            if image.reasons:
                self._refuse_or_note(row, image.reasons)
            with self._clock("encode"):
                group.add(row, image)
            while self._waiting and not self._waiting[0].group.flying():
                self._hand_over(self._waiting.popleft(), writer)
            self._report(writer)
        with self._clock("encode"):
            group.close()
        return _Filled(block, group)

    def _finish(self, writer: Writer, *, beside: int) -> None:
        """Write the oldest shards while at least `beside` batches of later ones are in flight."""
        while self._waiting and sum(later.group.flying() for later in self._later()) >= beside:
            self._hand_over(self._waiting.popleft(), writer)

    def _later(self) -> list[_Filled]:
        return list(self._waiting)[1:]

    def _hand_over(self, filled: _Filled, writer: Writer) -> None:
        """Wait for the last batch of a shard and pass its rows of every component to the writer."""
        with self._clock("encode"):
            filled.group.wait()
        for todo in filled.block.todos:
            spec, rows = todo.spec, todo.rows
            values = filled.group.values(spec, rows)
            reasons = filled.group.reasons.get(spec.views, {})
            bad = {r: reasons[r] for r in rows.tolist() if r in reasons}
            with self._clock("write"):
                writer.put(spec.key, rows, values, bad)

    def _refuse_or_note(self, row: int, reasons: Mapping[ViewSpec, str]) -> None:
        reason = next(iter(reasons.values()))
        bad = self.outcome.bad
        bad[row] = reason
        name = self._sources[row].id
        if self._options.strict:
            raise SourceError(
                f"{name} {reason}. Without ", Argument("strict"), " it would be skipped."
            )
        known, images = self._options.known_bad, self._plan.images
        total = len(known | bad.keys())
        if self._options.allow_bad or row in known:
            return
        if total > max(BAD_SHARE * images, BAD_COUNT):
            first = "; ".join(f"{self._sources[r].id} {why}" for r, why in list(bad.items())[:3])
            raise SourceError(
                f"{total} of {images} images cannot be read so far ({first}; ...). "
                "Repair or remove them, or go on with ",
                Argument("allow_bad", True),
                ".",
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

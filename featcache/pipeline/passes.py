"""One pass over the images: decode on threads, encode here, write behind.

Rows are walked in order and cut into shards at fixed row numbers. Each image is decoded once for
all components that lack it, and no batch spans two shards; so a pass that was interrupted and
taken up again leaves the same bytes as one that was not. A shard's last batches may still be
computed while the next one is filled: no stage waits at the end of a shard.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int32, Int64, Shaped

from featcache.errors import SourceError
from featcache.imaging.decode import in_order, quiet_pillow
from featcache.imaging.draw import Drawer, Drawn, Job, Source
from featcache.imaging.windows import Box, Preprocess
from featcache.pipeline.blocks import Block, Todo, encoded_rows
from featcache.pipeline.components import Ask, Pictures
from featcache.pipeline.device_crops import Cutter, Given
from featcache.pipeline.encode import Encoder, Lane
from featcache.pipeline.plan import Plan
from featcache.pipeline.timeline import Watch, unwatched
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
    watch: Watch = unwatched
    """Told on the thread that did it of every image decoded and every shard written."""


@dataclass(kw_only=True)
class Outcome:
    """What came of a pass."""

    images: int = 0
    bad: dict[int, str] = field(default_factory=dict)
    """Row -> why its image could not be read."""
    bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    """Of the encoding thread: waiting for decode, encode, waiting for write; total; and
    `cpu`, of all threads of this process."""


@dataclass(frozen=True, slots=True)
class _Filled:
    """A block all of whose pictures are with the encoder."""

    block: Block
    lanes: Mapping[Pictures, Lane]
    boxes: Mapping[Pictures, Mapping[int, Sequence[Box]]]

    def flying(self) -> int:
        """Count the batches that are not computed yet."""
        return sum(lane.flying() for lane in self.lanes.values())


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
        self._drawer = Drawer(
            preprocess=preprocess,
            max_pixels=options.max_pixels,
            room=encoder.picture_room if encoder.cuts else None,
        )
        self._cutter = Cutter(encoder, preprocess)
        self._options = options
        self._spent = {"decode": 0.0, "encode": 0.0, "write": 0.0}
        self._begin = self._reported = 0.0
        self._bad: dict[Pictures, dict[int, str]] = {}
        self._waiting: deque[_Filled] = deque()
        self.outcome = Outcome()

    def run(self, sink: Sink) -> Outcome:
        """Encode what the plan lacks, shard by shard.

        Raises:
            SourceError: If an image is unreadable under `strict`, or too many are.
            CacheError: If a shard cannot be written or a row does not fit fp16.
            KeyboardInterrupt: As it came, with both threads stopped; finished shards stay.
        """
        drawn = in_order(
            self._jobs(),
            self._draw,
            threads=self._options.threads,
            ahead=self._ahead(),
        )
        self._begin, cpu = time.perf_counter(), time.process_time()
        with quiet_pillow(), closing(drawn), self._encoder.streaming():
            with Writer(sink, self._options.watch) as writer:
                for block in self._plan.shares:
                    self._waiting.append(self._fill(block, drawn, writer))
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

    def _ahead(self) -> int:
        """Return how many images to decode before their turn."""
        threads = self._options.threads
        if self._encoder.cuts:  # whole pictures wait, which may be large ones
            return 3 * threads
        # Two batches of pictures; an image of many crops is many pictures.
        each = sum(p.count for p, _ in encoded_rows(self._plan.todos)) or 1
        return 2 * self._encoder.micro_batch // each + threads

    def _jobs(self) -> Iterator[Job]:
        for block in self._plan.shares:  # sets of one block, whatever the size of the pass
            shown = [(p, set(rows.tolist())) for p, rows in block.encoded()]
            boxed = [(p, set(rows.tolist())) for p, rows in block.boxed()]
            for row in block.rows.tolist():
                yield Job(
                    self._sources[row],
                    shown=tuple(p for p, rows in shown if row in rows),
                    boxed=tuple(p for p, rows in boxed if row in rows),
                )

    def _draw(self, job: Job) -> Drawn:
        begin = time.perf_counter()
        drawn = self._drawer(job)
        self._options.watch("decode", begin, time.perf_counter())
        return drawn

    def _fill(self, block: Block, drawn: Iterator[Drawn], writer: Writer) -> _Filled:
        """Give the encoder one shard's pictures; shards before it are handed over when ready."""
        lanes = {
            pictures: Lane(self._encoder, rows, block.variants(pictures), views=pictures.count)
            for pictures, rows in block.encoded()
        }
        boxes: dict[Pictures, dict[int, Sequence[Box]]] = {}
        for row in block.rows.tolist():
            with self._clock("decode"):
                image = next(drawn)
            self.outcome.images += 1
            if image.reasons:
                self._refuse_or_note(row, image.reasons)
            with self._clock("encode"):
                self._give(lanes, self._cutter.add(row, image))
            for pictures, shown in image.boxes.items():
                boxes.setdefault(pictures, {})[row] = shown
            while self._waiting and not self._waiting[0].flying():
                self._hand_over(self._waiting.popleft(), writer)
            self._report(writer)
        with self._clock("encode"):
            self._give(lanes, self._cutter.flush())
            for lane in lanes.values():
                lane.close()
        return _Filled(block, lanes, boxes)

    def _give(self, lanes: Mapping[Pictures, Lane], ready: Iterable[Given]) -> None:
        for row, pictures, squares in ready:
            lanes[pictures].add(row, squares)

    def _finish(self, writer: Writer, *, beside: int) -> None:
        """Hand over the oldest shards, as long as `beside` batches of later ones keep it busy."""
        while self._waiting and sum(filled.flying() for filled in self._later()) >= beside:
            self._hand_over(self._waiting.popleft(), writer)

    def _later(self) -> list[_Filled]:
        return list(self._waiting)[1:]

    def _hand_over(self, filled: _Filled, writer: Writer) -> None:
        """Wait for the last batch of a shard and give its rows of every component to the writer."""
        with self._clock("encode"):
            finished = {pictures: lane.end() for pictures, lane in filled.lanes.items()}
        for todo in filled.block.todos:
            ask, mine = todo.ask, todo.rows
            if ask.encodes:
                lane = filled.lanes[ask.pictures]
                values = finished[ask.pictures][ask.output]
                values = values.reshape(len(lane.rows), *ask.encoded_shape)
                if len(mine) < len(lane.rows):
                    values = values[np.isin(lane.rows, mine)]
                self._put(todo, values, writer)
            else:
                boxes = filled.boxes.get(ask.pictures, {})
                self._put(todo, _stack(boxes, mine, ask), writer)

    def _put(self, todo: Todo, values: Shaped[np.ndarray, "r ..."], writer: Writer) -> None:
        component, rows = todo.ask.component, todo.rows
        reasons = self._bad.get(todo.ask.pictures, {})
        bad = {r: reasons[r] for r in rows.tolist() if r in reasons}
        with self._clock("write"):
            writer.put(component, rows, values, bad)

    def _refuse_or_note(self, row: int, reasons: Mapping[Pictures, str]) -> None:
        for pictures, why in reasons.items():
            self._bad.setdefault(pictures, {})[row] = why
        reason = next(iter(reasons.values()))
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


def _stack(
    boxes: Mapping[int, Sequence[Box]], rows: Int64[np.ndarray, " r"], ask: Ask
) -> Int32[np.ndarray, "r k 4"]:
    """Put the boxes of some rows below each other; zeros for images that could not be read."""
    out = np.zeros((len(rows), *ask.row_shape), dtype=np.int32)
    for i, row in enumerate(rows.tolist()):
        if row in boxes:
            out[i] = boxes[row]
    return out

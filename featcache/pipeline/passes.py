"""One pass over the images: decode on threads, encode here, write behind.

Rows are walked in order and cut into shards at fixed row numbers. Each image is decoded once for
all components that lack it, and no batch spans two shards; so a pass that was interrupted and
taken up again leaves the same bytes as one that was not. A shard's last batches may still be
computed while the next one is filled: no stage waits at the end of a shard.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64, Shaped, UInt8

from featcache.errors import SourceError
from featcache.pipeline.asks import CENTRAL, Ask, Pictures
from featcache.pipeline.decode import UnreadableImageError, in_order, quiet_pillow, read_image
from featcache.pipeline.encode import Encoder, Lane
from featcache.pipeline.plan import Plan, Todo, encoded_rows
from featcache.pipeline.randomness import view_stream
from featcache.pipeline.timeline import Watch, unwatched
from featcache.pipeline.views import Box, Preprocess, central_view, draw_view
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
class _Job:
    source: Source
    wanted: tuple[Pictures, ...]


@dataclass(frozen=True, slots=True)
class _Decoded:
    pixels: Mapping[Pictures, Sequence[UInt8[np.ndarray, "s s 3"]]] = field(default_factory=dict)
    boxes: Mapping[Pictures, Sequence[Box]] = field(default_factory=dict)
    reasons: Mapping[Pictures, str] = field(default_factory=dict)
    """Why there are no pictures of a kind; a stripe may have crops and no central view."""


@dataclass(frozen=True, slots=True)
class _Block:
    """One shard's rows of every component, all of whose pictures are with the encoder."""

    rows: Int64[np.ndarray, " r"]
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
        self._preprocess = preprocess
        self._options = options
        self._encoded = encoded_rows(plan.todos)
        self._spent = {"decode": 0.0, "encode": 0.0, "write": 0.0}
        self._begin = self._reported = 0.0
        self._bad: dict[Pictures, dict[int, str]] = {}
        self._waiting: deque[_Block] = deque()
        self.outcome = Outcome()

    def run(self, sink: Sink) -> Outcome:
        """Encode what the plan lacks, shard by shard.

        Raises:
            SourceError: If an image is unreadable under `strict`, or too many are.
            CacheError: If a shard cannot be written or a row does not fit fp16.
            KeyboardInterrupt: As it came, with both threads stopped; finished shards stay.
        """
        # Two batches of pictures ahead; an image of many crops is many pictures.
        each = sum(pictures.count for pictures, _ in self._encoded) or 1
        decoded = in_order(
            self._jobs(),
            self._decode,
            threads=self._options.threads,
            ahead=2 * self._encoder.micro_batch // each + self._options.threads,
        )
        self._begin, cpu = time.perf_counter(), time.process_time()
        with quiet_pillow(), closing(decoded), self._encoder.streaming():
            with Writer(sink, self._options.watch) as writer:
                for rows in self._plan.blocks:
                    self._waiting.append(self._fill(rows, decoded, writer))
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

    def _jobs(self) -> Iterator[_Job]:
        for block in self._plan.blocks:  # sets of one block, whatever the size of the pass
            wanted: dict[Pictures, set[int]] = {}
            for todo in self._plan.todos:
                rows = _within(todo.rows, block)
                wanted.setdefault(todo.ask.pictures, set()).update(rows.tolist())
            for row in block.tolist():
                kinds = tuple(p for p, held in wanted.items() if row in held)
                yield _Job(self._sources[row], kinds)

    def _decode(self, job: _Job) -> _Decoded:
        begin = time.perf_counter()
        decoded = self._pictures(job)
        self._options.watch("decode", begin, time.perf_counter())
        return decoded

    def _pictures(self, job: _Job) -> _Decoded:
        """Turn one file into all pictures that the encoder wants of it; on a thread."""
        pixels, boxes, reasons = {}, {}, {}
        source, preprocess = job.source, self._preprocess
        try:
            image = read_image(source.path, source.sha256, max_pixels=self._options.max_pixels)
        except UnreadableImageError as error:
            return _Decoded(reasons=dict.fromkeys(job.wanted, str(error)))
        for wanted in job.wanted:
            try:
                if wanted == CENTRAL:
                    pixels[wanted] = [central_view(image, preprocess)]
                    continue
                streams = [
                    view_stream(wanted.seed, wanted.recipe, source.sha256, view)
                    for view in range(wanted.count)
                ]
                drawn = [
                    draw_view(image, preprocess, wanted.recipe, view, stream)
                    for view, stream in enumerate(streams)
                ]
            except UnreadableImageError as error:
                reasons[wanted] = str(error)
                continue
            pixels[wanted] = [d.pixels for d in drawn]
            boxes[wanted] = [d.box for d in drawn]
        return _Decoded(pixels, boxes, reasons)

    def _fill(
        self, rows: Int64[np.ndarray, " r"], decoded: Iterator[_Decoded], writer: Writer
    ) -> _Block:
        """Give the encoder one shard's pictures; shards before it are handed over when ready."""
        lanes = {
            pictures: Lane(
                self._encoder,
                _within(wanted, rows),
                self._variants(pictures),
                views=pictures.count,
            )
            for pictures, wanted in self._encoded
        }
        boxes: dict[Pictures, dict[int, Sequence[Box]]] = {}
        for row in rows.tolist():
            with self._clock("decode"):
                image = next(decoded)
            self.outcome.images += 1
            if image.reasons:
                self._refuse_or_note(row, image.reasons)
            with self._clock("encode"):
                for pictures, pixels in image.pixels.items():
                    if pictures in lanes:
                        lanes[pictures].add(row, pixels)
            for pictures, drawn in image.boxes.items():
                boxes.setdefault(pictures, {})[row] = drawn
            while self._waiting and not self._waiting[0].flying():
                self._hand_over(self._waiting.popleft(), writer)
            self._report(writer)
        with self._clock("encode"):
            for lane in lanes.values():
                lane.close()
        return _Block(rows, lanes, boxes)

    def _finish(self, writer: Writer, *, beside: int) -> None:
        """Hand over the oldest shards, as long as `beside` batches of later ones keep it busy."""
        while self._waiting and sum(block.flying() for block in self._later()) >= beside:
            self._hand_over(self._waiting.popleft(), writer)

    def _later(self) -> list[_Block]:
        return list(self._waiting)[1:]

    def _hand_over(self, block: _Block, writer: Writer) -> None:
        """Wait for the last batch of a shard and give its rows of every component to the writer."""
        with self._clock("encode"):
            finished = {pictures: lane.end() for pictures, lane in block.lanes.items()}
        for todo in self._plan.todos:
            ask, mine = todo.ask, _within(todo.rows, block.rows)
            if ask.encodes and len(mine):
                lane = block.lanes[ask.pictures]
                values = finished[ask.pictures][ask.output]
                values = values.reshape(len(lane.rows), *ask.encoded_shape)
                if len(mine) < len(lane.rows):
                    values = values[np.isin(lane.rows, mine)]
                self._put(todo, mine, values, writer)
            elif len(mine):
                boxes = block.boxes.get(ask.pictures, {})
                self._put(todo, mine, _stack(boxes, mine, ask), writer)

    def _variants(self, pictures: Pictures) -> tuple[str, ...]:
        asks = [todo.ask for todo in self._plan.todos if todo.ask.pictures == pictures]
        return tuple(dict.fromkeys(a.component.variant for a in asks if a.component.variant))

    def _put(
        self,
        todo: Todo,
        rows: Int64[np.ndarray, " r"],
        values: Shaped[np.ndarray, "r ..."],
        writer: Writer,
    ) -> None:
        component = todo.ask.component
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


def sources_of(
    ids: Sequence[str], hashes: Sequence[str], paths: Mapping[str, Path]
) -> dict[int, Source]:
    """Join rows with files; a row whose image is gone has none."""
    pairs = zip(ids, hashes, strict=True)
    return {i: Source(n, paths[n], h) for i, (n, h) in enumerate(pairs) if n in paths}


def _within(
    wanted: Int64[np.ndarray, " n"], block: Int64[np.ndarray, " r"]
) -> Int64[np.ndarray, " m"]:
    """Return those of a component's rows that a block has, in time that does not grow with n.

    Both ascend, and a block leaves out no row that any component lacks.
    """
    first, last = np.searchsorted(wanted, [block[0], block[-1] + 1])
    return wanted[first:last]


def _stack(
    boxes: Mapping[int, Sequence[Box]], rows: Int64[np.ndarray, " r"], ask: Ask
) -> Int32[np.ndarray, "r k 4"]:
    """Put the boxes of some rows below each other; zeros for images that could not be read."""
    out = np.zeros((len(rows), *ask.row_shape), dtype=np.int32)
    for i, row in enumerate(rows.tolist()):
        if row in boxes:
            out[i] = boxes[row]
    return out

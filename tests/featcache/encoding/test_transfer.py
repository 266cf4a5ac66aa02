"""The three queues of CUDA, with queues that only note who waits for whom.

`Notes` stands in for `torch.cuda`: its queues compute at once and write down every copy, every
computation and every event, from which the tests read what each queue would have waited for.
"""

import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from featcache.backbones.registry import load_backbone
from featcache.encoding.encoder import Encoder, Lane
from featcache.encoding.transfer import Direct, Queued, transfer_for

CPU = torch.device("cpu")


class Notes:
    """Answers as `torch.cuda` does; `said` is (queue, what), in the order of the calls."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []
        self.now = "main"
        self.clock = 0
        self.ready = False
        notes = self

        class Stream:
            opened = 0

            def __init__(self, device: torch.device) -> None:
                self.name = ("in", "out")[Stream.opened]
                Stream.opened += 1

            def wait_event(self, event: "Event") -> None:
                notes.said.append((self.name, f"waits for {event.name}"))

        class Event:
            def __init__(self, *, enable_timing: bool) -> None:
                self.name, self.ms = "", 0

            def record(self, queue: Any) -> None:
                notes.clock += 1
                self.name, self.ms = f"{queue.name} {notes.clock}", notes.clock
                notes.said.append((queue.name, f"marks {self.name}"))

            def query(self) -> bool:
                return notes.ready

            def synchronize(self) -> None:
                notes.said.append(("host", f"waits for {self.name}"))

            def elapsed_time(self, event: "Event") -> float:
                return event.ms - self.ms

        self.Stream, self.Event = Stream, Event
        self._main = Stream.__new__(Stream)
        self._main.name = "main"

    def current_stream(self, device: torch.device) -> Any:
        return self._main

    def synchronize(self, device: torch.device) -> None:
        self.said.append(("host", "waits for all"))

    @contextmanager
    def stream(self, queue: Any) -> Iterator[None]:
        before, self.now = self.now, queue.name
        yield
        self.now = before


class Copies(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes on which queue a copy runs, and that it does not hold the host."""

    def __init__(self, notes: Notes) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.notes = notes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.copy_.default:
            waits = not (len(args) > 2 and args[2])
            self.notes.said.append((self.notes.now, "copies and waits" if waits else "copies"))
        return func(*args, **(kwargs or {}))


def doubled(notes: Notes) -> Any:
    def compute(levels: Tensor) -> dict[str, Tensor]:
        notes.said.append((notes.now, "computes"))
        return {"global": 2 * levels[:, 0, 0].half(), "patches": levels.flatten(1, 2).half()}

    return compute


def send(transfer: Any, levels: Tensor, compute: Any) -> Any:
    there = transfer.upload(levels)
    return transfer.run(lambda: compute(there))


def levels_of(transfer: Any, seed: int) -> Tensor:
    levels: Tensor = transfer.room(2, 4, 4, 3)
    generator = torch.Generator().manual_seed(seed)
    return levels.copy_(torch.randint(0, 256, levels.shape, generator=generator))


def test_each_queue_waits_for_what_it_reads_and_the_host_for_the_last() -> None:
    notes = Notes()
    transfer = Queued(CPU, notes)
    levels = levels_of(transfer, 0)
    del notes.said[:]
    with Copies(notes):
        landing = send(transfer, levels, doubled(notes))
    assert notes.said == [
        ("in", "copies"),
        ("in", "marks in 2"),
        ("main", "waits for in 2"),
        ("main", "marks main 3"),
        ("main", "computes"),
        ("main", "marks main 4"),
        ("out", "waits for main 4"),
        ("out", "copies"),
        ("out", "copies"),
        ("out", "marks out 5"),
    ]
    assert landing.done() is False
    notes.ready = True
    assert landing.done() is True
    landing.wait()
    assert notes.said[10:] == [("host", "waits for out 5")]


def test_the_span_is_of_the_computation_alone() -> None:
    notes = Notes()
    transfer = Queued(CPU, notes)
    landing = send(transfer, levels_of(transfer, 0), doubled(notes))
    landing.wait()
    begin, end = landing.span()
    assert end - begin == pytest.approx(1e-3)  # from mark 3 to mark 4, a millisecond each here
    direct = send(Direct(CPU), levels_of(transfer, 0), doubled(notes))
    assert direct.span()[0] < direct.span()[1]


def test_batches_in_flight_share_no_memory_and_equal_those_that_came_alone() -> None:
    notes = Notes()
    queued, direct = Queued(CPU, notes), Direct(CPU)
    flying = [send(queued, levels_of(queued, seed), doubled(notes)) for seed in range(4)]
    for seed, landing in enumerate(flying):
        alone = send(direct, levels_of(direct, seed), doubled(notes))
        assert alone.done()
        for name, values in alone.wait().items():
            assert torch.equal(landing.wait()[name], values)


def test_memory_that_another_queue_reads_is_held_until_the_batch_has_landed() -> None:
    notes = Notes()
    transfer = Queued(CPU, notes)
    seen: list[Any] = []

    def compute(levels: Tensor) -> dict[str, Tensor]:
        values = levels.half()
        seen.append(weakref.ref(values))
        return {"global": values}

    landing = send(transfer, levels_of(transfer, 0), compute)
    assert all(ref() is not None for ref in seen)
    landing.wait()
    assert all(ref() is None for ref in seen)


def test_only_cuda_is_queued() -> None:
    assert isinstance(transfer_for(CPU), Direct)
    assert isinstance(transfer_for(torch.device("mps")), Direct)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_an_accelerators_rows_are_those_of_the_cpu(backbone: Any, depth: int) -> None:
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (11, 32, 32, 3), dtype=np.uint8))

    def rows(queued: bool) -> dict[str, Any]:
        encoder = Encoder(backbone, 2)
        if queued:
            encoder.streams, encoder._transfer = 0, Queued(CPU, Notes())
        lane = Lane(encoder, np.arange(11), ("vanilla",))
        lane._depth = depth
        for row, picture in enumerate(images):
            lane.add(row, [picture])
        assert lane.flying() == (min(5, depth) if queued else 0)
        return lane.end()

    for (name, ours), theirs in zip(
        rows(queued=True).items(), rows(queued=False).values(), strict=True
    ):
        assert ours.any(), name
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compute", ["fp32", "bf16"])
def test_cuda_queues_change_no_byte(compute: str) -> None:
    backbone = load_backbone("ViT-B/32", weights="random", device="cuda", compute=compute)
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (70, 224, 224, 3), dtype=np.uint8))

    def rows(transfer: Any) -> dict[str, Any]:
        encoder = Encoder(backbone, 8)
        encoder._transfer = transfer
        lane = Lane(encoder, np.arange(70), ("clearclip",))
        for row, picture in enumerate(images):
            lane.add(row, [picture])
        return lane.end()

    queued, direct = rows(transfer_for(backbone.device)), rows(Direct(backbone.device))
    for name, values in direct.items():
        assert values.any()
        np.testing.assert_array_equal(queued[name], values)
    room = transfer_for(backbone.device).room(2, 4, 4, 3)
    assert room.is_pinned()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_spans_of_cuda_lie_behind_each_other_on_the_hosts_clock() -> None:
    transfer = transfer_for(torch.device("cuda"))

    def compute(levels: Tensor) -> dict[str, Tensor]:
        wide = levels.flatten(1).float()
        for _ in range(20):
            wide = wide @ (wide.mT @ wide) * 1e-9
        return {"global": wide.half()}

    begin = time.perf_counter()
    flying = [send(transfer, transfer.room(64, 32, 32, 3), compute) for _ in range(4)]
    for landing in flying:
        landing.wait()
    end = time.perf_counter()
    times = [t for landing in flying for t in landing.span()]
    assert times == sorted(times)
    assert begin - 0.01 < times[0]
    assert times[-1] < end + 0.01

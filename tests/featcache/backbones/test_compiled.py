"""Compilations of towers of one line: how many there are, and what is said when there is none."""

import logging
import random
import re
import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from jaxtyping import config
from torch import Tensor
from torch._dynamo.utils import counters
from torch._inductor import config as inductor

from featcache.backbones import compiled
from featcache.backbones.compiled import CompiledTower, check_compiler
from featcache.errors import BackboneError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shape checks of a test run are no code that can be compiled."""
    monkeypatch.setattr(config, "jaxtyping_disable", True)


class Means:
    """A tower; says how often Python ran it."""

    def __init__(self) -> None:
        self.weight = torch.arange(6.0).view(3, 2)

    def run(self, pixels: Tensor, variants: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        rows = pixels.mean((2, 3)) @ self.weight
        return rows, dict.fromkeys(variants, rows[:, None] * 2)


def graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


@pytest.mark.long
def test_a_kind_of_batch_is_compiled_once_whatever_thread_asks() -> None:
    eager, level = Means(), logging.getLogger("torch.utils.cpp_extension").level
    tower = CompiledTower(eager.run, "means", CPU)
    before = graphs()
    found: list[Tensor] = []
    both = threading.Barrier(2)

    @torch.inference_mode()
    def encode() -> None:
        torch.set_num_threads(1)
        pixels = torch.ones(2, 3, 8, 8)
        both.wait()
        found.extend(tower(pixels, ("a",))[1]["a"] for _ in range(3))

    threads = torch.get_num_threads()
    workers = [threading.Thread(target=encode) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    torch.set_num_threads(threads)
    assert len(found) == 6
    assert all(torch.equal(f, 2 * (torch.ones(1, 3) @ eager.weight).expand(2, 1, 2)) for f in found)
    assert graphs() - before == 1
    # More kinds than torch lets one piece of code have.
    with torch.inference_mode(), torch._dynamo.config.patch(recompile_limit=2):
        for count in (3, 4, 5):
            rows, _ = tower(torch.ones(count, 3, 8, 8), ())
            assert torch.equal(rows, (found[0][:1, 0] / 2).expand(count, 2))
    assert graphs() - before == 4
    assert not inductor.freezing
    assert logging.getLogger("torch.utils.cpp_extension").level == level


@pytest.mark.long
def test_what_cannot_be_compiled_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def tower(pixels: Tensor, variants: Sequence[str]) -> Any:
        torch._dynamo.graph_break()
        return pixels.mean((2, 3)), {}

    made = CompiledTower(tower, "Toy/8", CPU)
    tried, real = [], torch.compile

    def counted(*arguments: Any, **more: Any) -> Any:
        tried.append(1)
        return real(*arguments, **more)

    monkeypatch.setattr(torch, "compile", counted)
    for _ in range(2):
        with pytest.raises(BackboneError, match=r"Toy/8 could not be .* Leave compiled out"):
            made(torch.ones(2, 3, 8, 8), ())
    assert tried == [1]


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
def test_want_of_memory_is_no_fault_of_the_tower(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "check_compiler", lambda _: None)  # it compiles: many seconds
    made = CompiledTower(lambda *_: (torch.ones(1), {}), "Toy/8", CPU)

    def refuse(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(torch, "compile", lambda *_, **__: refuse)
        with pytest.raises(type(error)):
            made(torch.ones(2, 3, 8, 8), ())
    monkeypatch.setattr(torch, "compile", lambda tower, **_: tower)
    assert made(torch.ones(2, 3, 8, 8), ())[0] == 1


def test_a_switched_off_compiler_is_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    with pytest.raises(BackboneError, match="is switched off here"):
        check_compiler(CPU)


def test_an_accelerator_needs_kernels_that_nobody_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_options", frozenset)
    with pytest.raises(BackboneError, match=r"for cuda without timing .*, or leave compiled out"):
        check_compiler(torch.device("cuda"))


@pytest.mark.long
def test_without_a_compiler_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    new = random.SystemRandom().random()  # in nobody's cache

    def line(x: Tensor) -> Tensor:
        return x + new

    monkeypatch.setattr(compiled, "_line", line)
    with inductor.patch({"cpp.cxx": (None, "/nowhere/g++")}), pytest.raises(BackboneError) as found:
        check_compiler(CPU)
    assert re.fullmatch(
        r"torch\.compile cannot build code for cpu here \(.*/nowhere/g\+\+.*\)\. "
        r"Install a C\+\+ compiler \(CXX, else g\+\+\), or leave compiled out\.",
        str(found.value),
    )

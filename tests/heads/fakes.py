"""Fake tensors on a device that need not be there, for code that now and then looks at a value.

A first run on the CPU remembers every value that was looked at and every shape that hung on values;
a second run of the same code on fake tensors, which have none, gets them in the same order.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any, Protocol, TypeVar

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

T = TypeVar("T")
aten = torch.ops.aten
SCALARS = {aten._local_scalar_dense.default, aten.equal.default}
"""What gives a Python value."""
SHAPES = {aten.bincount.default, aten.nonzero.default, aten._unique2.default}
"""What gives tensors whose shape hangs on values; indexing by a mask comes on top."""


def _looks(func: Any, args: tuple[Any, ...]) -> bool:
    if func is aten.index.Tensor:
        return any(i is not None and i.dtype is torch.bool for i in args[1])
    return func in SCALARS | SHAPES


def _question(func: Any, args: tuple[Any, ...]) -> tuple[str, list[tuple[int, ...]]]:
    return str(func), [tuple(t.shape) for t in tree_leaves(args) if isinstance(t, Tensor)]


class Remember(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what every look at values gave."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.looks: list[tuple[Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if _looks(func, args):
            self.looks.append((_question(func, args), found))
        return found


class Recall(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Answers looks at values by what they gave before, tensors by empty ones of that shape."""

    def __init__(self, looks: list[tuple[Any, Any]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.looks = iter(looks)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not _looks(func, args):
            return func(*args, **(kwargs or {}))
        asked, found = next(self.looks, (None, None))
        assert asked == _question(func, args), "the two runs looked at different values"
        like: Tensor = args[0]

        def empty(t: Any) -> Any:
            if not isinstance(t, Tensor):
                return t
            return torch.empty(t.shape, dtype=t.dtype, device=like.device)

        return tree_map(empty, found)


@contextmanager
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a list of values be read number by number, as that of a fake tensor is."""

    def tolist(tensor: Tensor) -> Any:
        return tensor.item() if tensor.dim() == 0 else [tolist(t) for t in tensor]

    with monkeypatch.context() as patch:
        patch.setattr(Tensor, "tolist", tolist)
        yield


def moved(value: Any, move: Callable[[Tensor], Tensor]) -> Any:
    """Copy a dataclass, a mapping or a sequence with all tensors in it moved."""
    done = value
    if isinstance(value, Tensor):
        done = move(value)
    elif is_dataclass(value) and not isinstance(value, type):
        done = replace(
            value, **{f.name: moved(getattr(value, f.name), move) for f in fields(value)}
        )
    elif isinstance(value, dict):
        done = {k: moved(v, move) for k, v in value.items()}
    elif isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        done = type(value)(moved(v, move) for v in value)
    return done


class Put(Protocol):
    """Puts what it is given where it is wanted: on the device, or on the CPU."""

    def __call__(self, value: T, *, cpu: bool = False) -> T: ...


def run_faked(run: Callable[[Put], T], device: str, monkeypatch: pytest.MonkeyPatch) -> T:
    """Run code on the CPU, then on fake tensors, and return what it gave there.

    Args:
        run: The code; all tensors it starts from go through what it is given.
        device: Where the fake tensors are.
        monkeypatch: Of the test.

    Raises:
        Exception: Whatever torch says where tensors of two devices meet.
    """

    def leave(value: Any, *, cpu: bool = False) -> Any:
        return value

    remember = Remember()
    with one_by_one(monkeypatch), remember:
        run(leave)
    fake = FakeTensorMode(allow_non_fake_inputs=False)

    def put(value: Any, *, cpu: bool = False) -> Any:
        return moved(value, lambda t: fake.from_tensor(t).to("cpu" if cpu else device))

    recall = Recall(remember.looks)
    with fake, recall:
        found = run(put)
    assert next(recall.looks, None) is None, "the second run looked at fewer values"
    return found

"""A memory of the surest rows of each class, as rows arrive one after the other.

Every row comes with a class and an entropy. Of each class the memory holds the `capacity` rows of
smallest entropy among those that came so far; of equal ones the earlier. That is what appending
while there is room, and else replacing the largest entropy by a smaller one, amounts to. So what is
held at any moment follows from comparisons, and many rows are answered in one go, each by the
memory of its own moment.

Works under `torch.func.vmap`: shapes follow from the number of rows alone.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from heads.ops.algebra import is_class

CHUNK_BYTES = 32 * 2**20
"""Bytes of one number for each row of a chunk and each place of the memory."""
CHUNK_ROWS = 128


class Memory(NamedTuple):
    """What is held after some rows."""

    place: Int64[Tensor, "c m"]
    """Position of each held row in the order of arrival; any where `entropy` is inf."""
    entropy: Float[Tensor, "c m"]
    """Ascending in each class; inf where there is room left."""

    @property
    def is_held(self) -> Bool[Tensor, "c m"]:
        """Tell which places are taken."""
        return self.entropy < torch.inf


def empty(classes: int, capacity: int, like: Float[Tensor, "..."]) -> Memory:
    """Return a memory that holds nothing, on the device and of the type of a tensor."""
    place = torch.zeros(classes, capacity, dtype=torch.int64, device=like.device)
    return Memory(place=place, entropy=like.new_full((classes, capacity), torch.inf))


def chunks(n: int, classes: int, capacity: int, size: int) -> Iterator[slice]:
    """Cut n arriving rows so that a chunk times the memory stays below CHUNK_BYTES.

    Args:
        n: Number of rows.
        classes: Classes of the memory.
        capacity: Rows that it holds of each.
        size: Bytes of a number.
    """
    each = max(1, min(CHUNK_ROWS, CHUNK_BYTES // (classes * capacity * size)))
    return (slice(i, min(i + each, n)) for i in range(0, n, each))


def arrive(
    memory: Memory, label: Int64[Tensor, " b"], entropy: Float[Tensor, " b"], start: int
) -> Memory:
    """Return the memory after some rows.

    Args:
        memory: What was held before.
        label: Class of each row; -1 is not offered.
        entropy: Of each row, finite.
        start: Position of the first of them.

    Example:
        >>> label, entropy = torch.tensor([0, 1, 0]), torch.tensor([0.3, 0.1, 0.2])
        >>> arrive(empty(2, 1, entropy), label, entropy, 0).place
        tensor([[2],
                [1]])
    """
    classes, capacity = memory.entropy.shape
    offered = torch.where(is_class(label, classes).mT, entropy, torch.inf)  # [c b]
    position = start + torch.arange(label.shape[0], device=label.device)
    entropies = torch.cat([memory.entropy, offered], dim=1)
    places = torch.cat([memory.place, position.expand(classes, -1)], dim=1)
    smallest = entropies.sort(dim=1, stable=True)
    order = smallest.indices[:, :capacity]
    return Memory(place=places.gather(1, order), entropy=smallest.values[:, :capacity])


def held(
    memory: Memory, label: Int64[Tensor, " b"], entropy: Float[Tensor, " b"], *, itself: bool = True
) -> tuple[Bool[Tensor, "b c m"], Bool[Tensor, "b b"]]:
    """Tell what is held when each of some arriving rows is answered.

    Args:
        memory: What was held before the first of them.
        label: Class of each row; -1 is not offered.
        entropy: Of each row, finite.
        itself: A row is stored before it is answered; else after.

    Returns:
        Row t, place of `memory`: whether it still holds its row. Row t, row j: whether row j has
        come and is held.
    """
    capacity = memory.entropy.shape[1]
    rank = torch.arange(capacity, device=label.device)  # places before it hold better rows
    closer = entropy[:, None, None] < memory.entropy  # [b c m]
    came = (is_class(label, memory.entropy.shape[0])[:, :, None] & closer).to(torch.int32)
    better = came.cumsum(0) - (0 if itself else came)
    old = memory.is_held & (rank + better < capacity)
    # a row of its class that came in the same chunk, and is better: [i j]
    at = torch.arange(label.shape[0], device=label.device)
    offered = label >= 0
    same = (label[:, None] == label) & offered
    first = (entropy[:, None] < entropy) | ((entropy[:, None] == entropy) & (at[:, None] < at))
    came = (same & first).to(torch.int32)
    before = (memory.entropy[label.clamp_min(0)] <= entropy[:, None]).sum(-1)  # [b]
    better = before + came.cumsum(0) - (0 if itself else came)
    is_there = at[:, None] >= at if itself else at[:, None] > at
    return old, is_there & offered & (better < capacity)

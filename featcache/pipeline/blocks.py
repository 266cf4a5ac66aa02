"""What a stretch of rows, as long as a shard, lacks of every component."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from featcache.pipeline.components import Ask, Pictures


@dataclass(frozen=True, kw_only=True)
class Todo:
    """Rows of one component that the cache does not hold yet."""

    ask: Ask
    rows: Int64[np.ndarray, " r"]
    """Ascending."""


@dataclass(frozen=True, slots=True)
class Block:
    """What one shard's stretch of rows lacks, component by component; a line each will say it.

    A component lacks what no line of it holds, whatever the lines of others say: of one image the
    crops may be there and their boxes not.
    """

    rows: Int64[np.ndarray, " r"]
    """Those that any component lacks, ascending."""
    todos: tuple[Todo, ...]
    """Those of the plan that lack rows here, with these rows alone."""

    def encoded(self) -> list[tuple[Pictures, Int64[np.ndarray, " _"]]]:
        """Return what the encoder is to be shown, with all rows of each kind of pictures."""
        return encoded_rows(self.todos)

    def boxed(self) -> list[tuple[Pictures, Int64[np.ndarray, " _"]]]:
        """Return of which pictures the boxes are missing, with the rows of each."""
        return [(todo.ask.pictures, todo.rows) for todo in self.todos if not todo.ask.encodes]

    def variants(self, pictures: Pictures) -> tuple[str, ...]:
        """Name the patch features that are missing of some pictures."""
        asks = [todo.ask for todo in self.todos if todo.ask.pictures == pictures]
        return tuple(dict.fromkeys(a.component.variant for a in asks if a.component.variant))


def share(block: Int64[np.ndarray, " r"], todos: Sequence[Todo]) -> Block:
    """Cut a block out of what a plan lacks, in time that does not grow with the plan's rows.

    Rows ascend, and a block leaves out none that any component lacks.
    """
    here = []
    for todo in todos:
        first, last = np.searchsorted(todo.rows, [block[0], block[-1] + 1])
        if first < last:
            here.append(Todo(ask=todo.ask, rows=todo.rows[first:last]))
    return Block(block, tuple(here))


def encoded_rows(todos: Sequence[Todo]) -> list[tuple[Pictures, Int64[np.ndarray, " r"]]]:
    """Return what goes through the encoder: each kind of pictures once, with all its rows."""
    wanted = [t for t in todos if t.ask.encodes]
    kinds = dict.fromkeys(t.ask.pictures for t in wanted)
    return [(p, union([t.rows for t in wanted if t.ask.pictures == p])) for p in kinds]


def union(parts: Sequence[Int64[np.ndarray, " _"]]) -> Int64[np.ndarray, " r"]:
    """Return the rows of all parts, ascending, each once."""
    return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *parts]))

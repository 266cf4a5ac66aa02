"""Missing rows of a pass, cut into blocks: the rows of one shard, for all components."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from featcache.encoding.components import ComponentSpec
from featcache.encoding.row_group import Shown
from featcache.imaging.views import ViewSpec


@dataclass(frozen=True, kw_only=True)
class Todo:
    """Missing rows of one component."""

    spec: ComponentSpec
    rows: Int64[np.ndarray, " r"]
    """Ascending."""


@dataclass(frozen=True, slots=True)
class Block:
    """Missing rows of one shard, by component.

    Components are independent: the crops of an image may be stored and their boxes missing.
    """

    rows: Int64[np.ndarray, " r"]
    """Rows that any component lacks, ascending."""
    todos: tuple[Todo, ...]
    """Components that lack rows of this block, with these rows only."""

    def shown(self) -> list[Shown]:
        """Return what the encoder reads: each kind of views with its rows."""
        return [Shown(v, rows, self._variants(v)) for v, rows in encoded_rows(self.todos)]

    def boxed(self) -> list[tuple[ViewSpec, Int64[np.ndarray, " _"]]]:
        """Return the views whose boxes are missing, with the rows of each."""
        return [(todo.spec.views, todo.rows) for todo in self.todos if not todo.spec.encodes]

    def _variants(self, views: ViewSpec) -> tuple[str, ...]:
        """Return the missing patch variants of a kind of views."""
        keys = [todo.spec.key for todo in self.todos if todo.spec.views == views]
        return tuple(dict.fromkeys(key.variant for key in keys if key.variant))


def share(block: Int64[np.ndarray, " r"], todos: Sequence[Todo]) -> Block:
    """Return the missing rows of one block, in time that does not grow with the rows of the plan.

    Args:
        block: All rows between its first and its last that any component lacks, ascending.
        todos: Missing rows of the whole plan.
    """
    here = []
    for todo in todos:
        first, last = np.searchsorted(todo.rows, [block[0], block[-1] + 1])
        if first < last:
            here.append(Todo(spec=todo.spec, rows=todo.rows[first:last]))
    return Block(block, tuple(here))


def encoded_rows(todos: Sequence[Todo]) -> list[tuple[ViewSpec, Int64[np.ndarray, " r"]]]:
    """Return each kind of views that is encoded, once, with all its rows."""
    wanted = [t for t in todos if t.spec.encodes]
    kinds = dict.fromkeys(t.spec.views for t in wanted)
    return [(v, union([t.rows for t in wanted if t.spec.views == v])) for v in kinds]


def union(parts: Sequence[Int64[np.ndarray, " _"]]) -> Int64[np.ndarray, " r"]:
    """Return the rows of all parts, ascending, each once."""
    return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *parts]))

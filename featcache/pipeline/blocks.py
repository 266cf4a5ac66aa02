"""What a stretch of rows, as long as a shard, lacks of every component."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from featcache.encoding.components import ComponentSpec
from featcache.encoding.row_group import Shown
from featcache.imaging.views import ViewSpec


@dataclass(frozen=True, kw_only=True)
class Todo:
    """Rows of one component that the cache does not hold yet."""

    spec: ComponentSpec
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

    def shown(self) -> list[Shown]:
        """Return what the encoder is to be shown, with all rows of each kind of views."""
        return [Shown(v, rows, self._variants(v)) for v, rows in encoded_rows(self.todos)]

    def boxed(self) -> list[tuple[ViewSpec, Int64[np.ndarray, " _"]]]:
        """Return of which views the boxes are missing, with the rows of each."""
        return [(todo.spec.views, todo.rows) for todo in self.todos if not todo.spec.encodes]

    def _variants(self, views: ViewSpec) -> tuple[str, ...]:
        """Name the patch features that are missing of some views."""
        keys = [todo.spec.key for todo in self.todos if todo.spec.views == views]
        return tuple(dict.fromkeys(key.variant for key in keys if key.variant))


def share(block: Int64[np.ndarray, " r"], todos: Sequence[Todo]) -> Block:
    """Cut a block out of what a plan lacks, in time that does not grow with the plan's rows.

    Rows ascend, and a block leaves out none that any component lacks.
    """
    here = []
    for todo in todos:
        first, last = np.searchsorted(todo.rows, [block[0], block[-1] + 1])
        if first < last:
            here.append(Todo(spec=todo.spec, rows=todo.rows[first:last]))
    return Block(block, tuple(here))


def encoded_rows(todos: Sequence[Todo]) -> list[tuple[ViewSpec, Int64[np.ndarray, " r"]]]:
    """Return what goes through the encoder: each kind of views once, with all its rows."""
    wanted = [t for t in todos if t.spec.encodes]
    kinds = dict.fromkeys(t.spec.views for t in wanted)
    return [(v, union([t.rows for t in wanted if t.spec.views == v])) for v in kinds]


def union(parts: Sequence[Int64[np.ndarray, " _"]]) -> Int64[np.ndarray, " r"]:
    """Return the rows of all parts, ascending, each once."""
    return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *parts]))

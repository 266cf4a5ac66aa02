"""One repetition of a protocol: what a method sees, and the query sets of its evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from jaxtyping import Int64

from heads.contract.rows import Rows, TaskView

RowIndex: TypeAlias = Int64[np.ndarray, " _"]


def _no_rows() -> RowIndex:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class QuerySet:
    """Labelled rows for evaluation; no method sees their labels."""

    rows: Rows
    index: RowIndex = field(default_factory=_no_rows)
    """Rows of the listing."""
    notes: tuple[str, ...] = ()
    """What a reader of the result must know of them, a sentence each."""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One support, validation, pool and text, and any number of query sets."""

    view: TaskView
    """What the method sees."""
    val: Rows | None
    """Labelled rows for selection; None where there are none."""
    queries: Mapping[str, QuerySet]
    """Split -> its queries. Exactly one where training or selection reads them: for transductive
    methods and for the selection `oracle`."""
    support_index: RowIndex = field(default_factory=_no_rows)
    """Rows in the listing; empty where the features come from arrays."""
    val_index: RowIndex = field(default_factory=_no_rows)
    notes: tuple[str, ...] = ()
    """What a reader of the result must know, a sentence each."""

    @staticmethod
    def of(view: TaskView, query: Rows, val: Rows | None = None) -> "Episode":
        """Make an episode with one query set, of rows from anywhere."""
        return Episode(view=view, val=val, queries={"test": QuerySet(rows=query)})

    def with_query(self, rows: Rows) -> "Episode":
        """Return the same episode with other rows in its only query set."""
        ((split, query),) = self.queries.items()
        return replace(self, queries={split: replace(query, rows=rows)})

    @property
    def query(self) -> Rows:
        """Return the rows of the only query set."""
        (only,) = self.queries.values()
        return only.rows

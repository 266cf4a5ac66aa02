"""Planning a pass before any image is decoded: rows, bytes, seconds, and whether it may run."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from featcache.backbones.base import Backbone
from featcache.draws import few_shot_rows
from featcache.encoding.components import ComponentSpec, spec_of
from featcache.errors import CacheError, TaskError, UnknownNameError
from featcache.keys import Listing, parse_component
from featcache.pipeline.blocks import Block, Todo, encoded_rows, share, union
from featcache.pipeline.forecast import human_range, predict_seconds
from featcache.pipeline.write import shard_rows_for
from featcache.recipes import KEYWORDS, Scope
from featcache.threads import cpu_cores
from featcache.units import human_bytes
from featcache.wording import Argument, Placeholder

ASK_ABOVE = 20 * 10**9
"""Bytes above which the user has to agree."""

RESERVE = 64 * 2**20
"""Bytes of the disk that a pass leaves free."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Rows that a pass will encode."""

    todos: tuple[Todo, ...]
    held: Mapping[str, int]
    """Component -> requested rows that the cache holds already."""
    blocks: tuple[Int64[np.ndarray, " _"], ...]
    """Rows that any component lacks, ascending, one array a shard."""
    seconds: float
    """Predicted duration, within a factor of two."""

    @cached_property
    def rows(self) -> Int64[np.ndarray, " r"]:
        """Rows that any component lacks; each image is decoded once."""
        return union(self.blocks)

    @cached_property
    def shares(self) -> tuple[Block, ...]:
        """Missing rows of every block, by component."""
        return tuple(share(block, self.todos) for block in self.blocks)

    @property
    def bytes(self) -> int:
        """Predicted size of the shards."""
        return sum(self.component_bytes.values())

    @property
    def component_bytes(self) -> dict[str, int]:
        """Component -> predicted bytes."""
        return {t.spec.name: len(t.rows) * t.spec.row_bytes for t in self.todos}

    @property
    def images(self) -> int:
        """Number of requested images, stored ones included."""
        missing = {t.spec.name: len(t.rows) for t in self.todos}
        return max((n + missing.get(name, 0) for name, n in self.held.items()), default=0)

    def sentence(self) -> str:
        """Describe the pass in one sentence."""
        if not len(self.rows):
            return "Everything asked for is in the cache already; nothing to encode."
        size = self.component_bytes
        parts = "; ".join(
            f"{t.spec.name}: {len(t.rows)} rows, {human_bytes(size[t.spec.name])}"
            for t in self.todos
        )
        return (
            f"To encode: {len(self.rows)} images ({parts}), about {human_bytes(self.bytes)} on "
            f"disk and {human_range(self.seconds)}."
        )


def make_plan(
    listing: Listing,
    backbone: Backbone,
    specs: Sequence[ComponentSpec],
    *,
    covered: Callable[[str], Bool[np.ndarray, " n"]],
    micro_batch: int,
    usable: Bool[np.ndarray, " n"] | None = None,
    limit: int | None = None,
) -> Plan:
    """Find the missing rows and predict the size and the duration of the pass.

    Args:
        listing: Rows, labels and splits.
        backbone: Backbone that encodes.
        specs: Requested components.
        covered: Returns, for a component, which rows the cache holds.
        usable: Which images can be read, as far as known; draws avoid the others.
        micro_batch: Views in a batch.
        limit: Maximum number of images, spread over classes and splits.
    """
    kind = backbone.device.type
    among = stratified(listing, limit)
    todos, held = [], {}
    for spec in specs:
        scope = union([scope_rows(listing, scope, usable) for scope in spec.scopes])
        scope = np.intersect1d(scope, among)
        missing = scope[~covered(spec.name)[scope]]
        held[spec.name] = len(scope) - len(missing)
        if len(missing):
            todos.append(Todo(spec=spec, rows=missing))
    rows = union([t.rows for t in todos])
    # By the requested components, not the missing ones: a resumed pass must cut the same shards.
    views = {spec.views for spec in specs}
    shard_rows = shard_rows_for(
        max(spec.row_bytes for spec in specs),
        sum(v.count for v in views) * backbone.gflops,
        micro_batch,
        kind,
    )
    cuts = np.flatnonzero(np.diff(rows // shard_rows)) + 1
    blocks = tuple(np.split(rows, cuts)) if len(rows) else ()
    seconds = predict_seconds(
        encoded_rows(todos),
        blocks,
        gflops=backbone.gflops,
        micro_batch=micro_batch,
        device=kind,
        dtype=str(backbone.compute_dtype).removeprefix("torch."),
        cores=cpu_cores(),
    )
    return Plan(todos=tuple(todos), held=held, blocks=blocks, seconds=seconds)


def plans_for(
    rows: Mapping[str, Sequence[Int64[np.ndarray, " _"]]], backbone: Backbone
) -> list[Plan]:
    """Plan to encode given rows of given components, one shard for each array.

    Args:
        rows: Component -> arrays of rows, each ascending.
        backbone: Backbone that encodes.
    """
    groups: dict[tuple[int, ...], list[str]] = {}
    for name, parts in rows.items():
        for part in parts:
            if len(part):
                groups.setdefault(tuple(part.tolist()), []).append(name)
    plans = []
    for key, names in groups.items():
        block = np.array(key, dtype=np.int64)
        specs = [spec_of(parse_component(name), backbone) for name in names]
        todos = tuple(Todo(spec=spec, rows=block) for spec in specs)
        plans.append(Plan(todos=todos, held={}, blocks=(block,), seconds=0.0))
    return plans


def admit(plan: Plan, folder: Path, *, yes: bool, confirm: Callable[[Plan], bool] | None) -> None:
    """Raise if the disk is too small for a pass, or the user has not agreed to a large one.

    Raises:
        CacheError: If that is so.
    """
    if not plan.bytes:
        return
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if plan.bytes + RESERVE > free:
        raise CacheError(
            f"This pass needs about {human_bytes(plan.bytes)} and {human_bytes(RESERVE)} to spare, "
            f"but {folder} has {human_bytes(free)} free. Choose another disk with ",
            Argument("root", Placeholder("DIR")),
            " or try ",
            Argument("patches", "none"),
            ", which needs far less.",
        )
    if plan.bytes > ASK_ABOVE and not yes and not (confirm is not None and confirm(plan)):
        raise CacheError(
            f"This pass would write about {human_bytes(plan.bytes)} in "
            f"{human_range(plan.seconds)}. Go on with ",
            Argument("yes", True),
            ", or leave out most: ",
            Argument("patches", "none"),
            ".",
        )


def scope_rows(
    listing: Listing, scope: Scope, usable: Bool[np.ndarray, " n"] | None = None
) -> Int64[np.ndarray, " r"]:
    """Return the rows of a scope, ascending.

    Raises:
        UnknownNameError: If it is no keyword and the data set has no such split.
        TaskError: If draws are asked for and the data set has no labelled training images.
    """
    training = [n for n in listing.splits if n == "train" or n.startswith("train@")]
    match scope.name:
        case "few-shot":
            first, last = scope.seeds
            try:
                return few_shot_rows(listing, scope.shots, range(first, last + 1), usable=usable)
            except TaskError as error:
                raise TaskError(*error.parts, " Or name other rows, e.g. @all.") from error
        case "train" | "pool":
            return union([listing.splits[n] for n in training])
        case "query":
            return union([rows for n, rows in listing.splits.items() if n not in training])
        case "all":
            return union(list(listing.splits.values()))
        case name if name in listing.splits:
            return union([listing.splits[name]])
    raise UnknownNameError("rows", scope.name, (*KEYWORDS, *listing.splits))


def stratified(listing: Listing, limit: int | None) -> Int64[np.ndarray, " r"]:
    """Return the rows of `limit` images, spread over splits and classes; None takes all."""
    if limit is None:
        return scope_rows(listing, Scope("all"))
    ranked: list[tuple[int, int, int]] = []
    for split, rows in enumerate(listing.splits.values()):
        labels = listing.labels[rows]
        for label in np.unique(labels):
            members = rows[labels == label]
            ranked += [(i, split, int(row)) for i, row in enumerate(members)]
    chosen = dict.fromkeys(row for _, _, row in sorted(ranked))  # a row may be in two splits
    return np.array(sorted(list(chosen)[:limit]), dtype=np.int64)

"""What a pass would do, before any pixel is read: rows, bytes, seconds, and whether it may."""

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
"""Bytes beyond which the user has to agree."""

RESERVE = 64 * 2**20
"""Bytes of the disk that a pass leaves alone."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A pass before it starts."""

    todos: tuple[Todo, ...]
    held: Mapping[str, int]
    """Component -> rows asked for that are there already."""
    blocks: tuple[Int64[np.ndarray, " _"], ...]
    """Rows that are missing in any component, ascending, cut where shards end."""
    seconds: float
    """Predicted duration, good to a factor of two."""

    @cached_property
    def rows(self) -> Int64[np.ndarray, " r"]:
        """Union of the rows of all components: each is decoded once."""
        return union(self.blocks)

    @cached_property
    def shares(self) -> tuple[Block, ...]:
        """The same for every block by itself."""
        return tuple(share(block, self.todos) for block in self.blocks)

    @property
    def bytes(self) -> int:
        """Predicted size of the shards."""
        return sum(self.component_bytes.values())

    @property
    def component_bytes(self) -> dict[str, int]:
        """Component -> predicted size of what would be added."""
        return {t.spec.name: len(t.rows) * t.spec.row_bytes for t in self.todos}

    @property
    def images(self) -> int:
        """Images asked for, those with rows already included."""
        missing = {t.spec.name: len(t.rows) for t in self.todos}
        return max((n + missing.get(name, 0) for name, n in self.held.items()), default=0)

    def sentence(self) -> str:
        """Say what would be done."""
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
    """Find the rows that are missing and predict what they cost.

    Args:
        listing: Rows, labels and splits.
        backbone: Says what a forward costs.
        specs: The components, all of them.
        covered: Component folder -> rows that the cache holds.
        usable: Rows whose image could be read, as far as known; draws step around the others.
        micro_batch: Views in a batch.
        limit: Images at most, spread over classes and splits.
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
    # From what was asked, not from what is missing: a resumed pass must cut the same shards.
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
    """Plan to encode given rows of given components, every array as one shard of its own.

    Args:
        rows: Component folder -> arrays of rows, each ascending.
        backbone: What encodes them.
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
    """Refuse a pass that the disk cannot hold, or that is large and nobody agreed to.

    One that has nothing to encode needs no room.

    Raises:
        CacheError: If the disk is too small, or the user has to say yes first.
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
    """Return the rows that a scope means, ascending.

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
    """Choose `limit` images evenly over splits and classes, first rows first; None takes all."""
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

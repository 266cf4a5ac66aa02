"""What a pass would do, before any pixel is read: rows, bytes, seconds, and whether it may."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from featcache.backbones.base import Backbone
from featcache.draws import few_shot_rows
from featcache.errors import CacheError, TaskError, UnknownNameError, UsageError
from featcache.keys import ComponentKey, Listing
from featcache.pipeline.views import RECIPES
from featcache.pipeline.write import shard_rows_for

ASK_ABOVE = 20 * 10**9
"""Bytes beyond which the user has to agree."""

SCOPES = ("few-shot", "train", "query", "pool", "all")
"""Rows a component is computed for; few-shot: what draws of up to 16 shots use, seeds 1-3."""

FEW_SHOT = 16
SEEDS = (1, 2, 3)

RESERVE = 64 * 2**20
"""Bytes of the disk that a pass leaves alone."""

# Sustained rates for the forecast, deliberately round: they are off by two either way.
_GFLOPS_A_SECOND = {"cuda": 60_000.0, "mps": 2_000.0}
_GFLOPS_A_CORE_SECOND = {"float32": 60.0, "bfloat16": 150.0}
_DECODES_A_CORE_SECOND = 200.0


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A component that was asked for, and the rows it is asked for."""

    component: ComponentKey
    row_shape: tuple[int, ...]
    scope: str = "all"

    @property
    def name(self) -> str:
        """Folder of the component."""
        return self.component.folder

    @property
    def row_bytes(self) -> int:
        """Size of one stored row."""
        return 2 * int(np.prod(self.row_shape))

    @property
    def views(self) -> int:
        """Augmented pictures of one image; 0 where the central one is encoded."""
        return self.component.count


@dataclass(frozen=True, kw_only=True)
class Todo:
    """Rows of one component that the cache does not hold yet."""

    ask: Ask
    rows: Int64[np.ndarray, " r"]
    """Ascending."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A pass before it starts."""

    todos: tuple[Todo, ...]
    held: Mapping[str, int]
    """Component -> rows asked for that are there already."""
    rows: Int64[np.ndarray, " r"]
    """Union of the rows of all components: each is decoded once."""
    shard_rows: int
    bytes: int
    """Predicted size of the shards."""
    seconds: float
    """Predicted duration, good to a factor of two."""

    @property
    def images(self) -> int:
        """Images asked for, those with rows already included."""
        missing = {t.ask.name: len(t.rows) for t in self.todos}
        return max((n + missing.get(name, 0) for name, n in self.held.items()), default=0)

    def sentence(self) -> str:
        """Say what would be done."""
        if not len(self.rows):
            return "Everything asked for is in the cache already; nothing to encode."
        parts = ", ".join(f"{t.ask.name} {len(t.rows)}" for t in self.todos)
        return (
            f"To encode: {len(self.rows)} images ({parts} rows), about {human_size(self.bytes)} on "
            f"disk and roughly {human_duration(self.seconds)}."
        )


def asks_for(
    backbone: Backbone,
    *,
    patches: str | Sequence[str] | None,
    views: int,
    recipe: str = "rrc50",
    scope: str = "few-shot",
) -> tuple[tuple[Ask, ...], tuple[str, ...]]:
    """Turn the user's flags into components, and notes on what was left out.

    Args:
        backbone: What it has decides what is possible.
        patches: Variants, or `none`; None is the default, dropped where the tower has no patches.
        views: Augmented views of each image in scope; 0 for none.
        recipe: Of the views.
        scope: Rows that get views.

    Raises:
        UsageError: If a variant, recipe or scope is unknown, or the backbone has no patch tokens.
    """
    notes: list[str] = []
    asks = [Ask(component=ComponentKey(kind="global"), row_shape=(backbone.dim,))]
    variants = _variants(patches, backbone)
    if patches is None and not variants:
        notes.append(f"{backbone.name} has no patch features in the joint space; left out.")
    for variant in variants:
        key = ComponentKey(kind="patches", variant=variant)
        asks.append(Ask(component=key, row_shape=(backbone.patches, backbone.dim)))
    if views:
        if views < 0:
            raise UsageError(f"views must be 0 or more, got {views}.")
        if recipe not in RECIPES:
            raise UnknownNameError("view recipe", recipe, RECIPES)
        if scope not in SCOPES:
            raise UnknownNameError("scope", scope, SCOPES)
        key = ComponentKey(kind="views", recipe=recipe, count=views)
        asks.append(Ask(component=key, row_shape=(views, backbone.dim), scope=scope))
    return tuple(asks), tuple(notes)


def make_plan(
    listing: Listing,
    backbone: Backbone,
    asks: Sequence[Ask],
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
        asks: The components, all of them.
        covered: Component folder -> rows that the cache holds.
        usable: Rows whose image could be read, as far as known; draws step around the others.
        micro_batch: Pictures in a batch.
        limit: Images at most, spread over classes and splits.
    """
    kind = backbone.device.type
    among = stratified(listing, limit)
    todos, held, flops = [], {}, 0.0
    for ask in asks:
        scope = np.intersect1d(scope_rows(listing, ask.scope, usable), among)
        missing = scope[~covered(ask.name)[scope]]
        held[ask.name] = len(scope) - len(missing)
        if len(missing):
            todos.append(Todo(ask=ask, rows=missing))
    central = _union([t.rows for t in todos if not t.ask.views])
    flops += len(central) * backbone.gflops
    flops += sum(len(t.rows) * t.ask.views * backbone.gflops for t in todos)
    rows = _union([t.rows for t in todos])
    # From what was asked, not from what is missing: a resumed pass must cut the same shards.
    forwards = 1 + sum(ask.views for ask in asks)
    shard_rows = shard_rows_for(
        max(ask.row_bytes for ask in asks), forwards * backbone.gflops, micro_batch, kind
    )
    cores = cpu_cores()
    rate = _GFLOPS_A_SECOND.get(kind) or cores * _GFLOPS_A_CORE_SECOND.get(
        str(backbone.compute_dtype).removeprefix("torch."), 60.0
    )
    decode = len(rows) / (cores * _DECODES_A_CORE_SECOND)
    encode = flops / rate
    return Plan(
        todos=tuple(todos),
        held=held,
        rows=rows,
        shard_rows=shard_rows,
        bytes=sum(len(t.rows) * t.ask.row_bytes for t in todos),
        seconds=decode + encode if kind == "cpu" else max(decode, encode),
    )


def admit(plan: Plan, folder: Path, *, yes: bool, confirm: Callable[[Plan], bool] | None) -> None:
    """Refuse a pass that the disk cannot hold, or that is large and nobody agreed to.

    Raises:
        CacheError: If the disk is too small, or the user has to say yes first.
    """
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if plan.bytes + RESERVE > free:
        raise CacheError(
            f"This pass needs about {human_size(plan.bytes)} and {human_size(RESERVE)} to spare, "
            f"but {folder} has {human_size(free)} free. Choose another disk with --cache DIR or "
            f"try --patches none, which needs far less."
        )
    if plan.bytes > ASK_ABOVE and not yes and not (confirm is not None and confirm(plan)):
        raise CacheError(
            f"This pass would write about {human_size(plan.bytes)} in roughly "
            f"{human_duration(plan.seconds)}. Go on with --yes, or leave out most: --patches none."
        )


def scope_rows(
    listing: Listing, scope: str, usable: Bool[np.ndarray, " n"] | None = None
) -> Int64[np.ndarray, " r"]:
    """Return the rows of a scope, ascending; images that are gone belong to none.

    Raises:
        UnknownNameError: If the scope is unknown.
    """
    training = [n for n in listing.splits if n == "train" or n.startswith("train@")]
    if scope == "few-shot":
        try:
            return few_shot_rows(listing, FEW_SHOT, SEEDS, usable=usable)
        except TaskError as error:
            raise TaskError(f"{error} Or choose other rows for the views.") from error
    if scope in ("train", "pool"):
        return _union([listing.splits[n] for n in training])
    if scope == "query":
        return _union([rows for n, rows in listing.splits.items() if n not in training])
    if scope == "all":
        return _union(list(listing.splits.values()))
    raise UnknownNameError("scope", scope, SCOPES)


def stratified(listing: Listing, limit: int | None) -> Int64[np.ndarray, " r"]:
    """Choose `limit` images evenly over splits and classes, first rows first; None takes all."""
    if limit is None:
        return scope_rows(listing, "all")
    ranked: list[tuple[int, int, int]] = []
    for split, rows in enumerate(listing.splits.values()):
        labels = listing.labels[rows]
        for label in np.unique(labels):
            members = rows[labels == label]
            ranked += [(i, split, int(row)) for i, row in enumerate(members)]
    chosen = dict.fromkeys(row for _, _, row in sorted(ranked))  # a row may be in two splits
    return np.array(sorted(list(chosen)[:limit]), dtype=np.int64)


def cpu_cores() -> int:
    """Count the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _variants(patches: str | Sequence[str] | None, backbone: Backbone) -> tuple[str, ...]:
    if patches is None:
        return backbone.variants[:1]
    names = patches.split(",") if isinstance(patches, str) else list(patches)
    if names == ["none"]:
        return ()
    if "none" in names:
        raise UsageError(
            f"--patches none stands alone, got '{','.join(names)}'. Leave none or the rest out."
        )
    for name in names:
        if not backbone.variants:
            raise UsageError(
                f"{backbone.name} has no patch features in the joint space, but --patches "
                f"{name} asks for them; use --patches none."
            )
        if name not in backbone.variants:
            raise UnknownNameError(
                f"patch variant of {backbone.name}", name, (*backbone.variants, "none")
            )
    return tuple(dict.fromkeys(names))


def _union(parts: Sequence[Int64[np.ndarray, " _"]]) -> Int64[np.ndarray, " r"]:
    return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *parts]))


def human_size(count: int) -> str:
    """Say a number of bytes."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def human_duration(seconds: float) -> str:
    """Say a number of seconds."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

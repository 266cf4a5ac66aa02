"""Two protocols for methods that answer queries together or one after the other.

    batches   many small batches that hold few of the classes, each answered by itself
    stream    many orders of a whole split, whose images arrive batch by batch

A method that reads class texts and queries alone is prepared once. Of a stream, a transductive
method answers each batch anew, without a memory; an online method walks through the whole stream;
any other method gives the answers it always gives, as a reference on the same queries. Figures are
means over batches or streams; of streams there is also the mean of the worst tenth. They are in
tables of their own: a table holds the runs on one list.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Int, Int32

from featcache.backbones.devices import pick_device
from featcache.errors import UnknownNameError, UsageError
from featcache.progress import Report
from featcache.types import FeatureSet, Listing
from featcache.wording import Argument, Part, Setting
from heads import registry
from heads.contract.method import AnyMethod
from heads.episode import QuerySet, RowIndex
from heads.fitted import Fitted
from heads.protocols import order_draws
from heads.protocols import orders as lists
from heads.protocols.builder import EpisodeBuilder
from heads.protocols.evaluation import (
    Trained,
    captured_warnings,
    cautions,
    synchronise,
    training_notes,
)
from heads.protocols.orders import Orders
from heads.protocols.plan import Run
from heads.protocols.recording import int32, reads_of, record, zero_shot_answers
from heads.results.record import BATCHES, LISTS, STREAM, Predictions, Result
from heads.selection.select import select
from heads.selection.settings import Settings, configure

Answers: TypeAlias = Int32[np.ndarray, " _"]


def run(method_name: str, **arguments: Any) -> Result:
    """Answer the queries of a list and return the record; arguments as `evaluate`.

    Example:
        >>> import featcache
        >>> cache = featcache.open("fieldguide", "tiny")
        >>> result = run("zero-shot", features=cache, protocol="batches", batch=8, repeats=5)
        >>> result.repetitions
        5
    """
    return evaluate(method_name, **arguments).result


def evaluate(
    method_name: str,
    *,
    features: FeatureSet,
    protocol: str,
    batch: int | None = None,
    effective_classes: tuple[int, int] | None = None,
    correlation: float | str | None = None,
    repeats: int | None = None,
    split: str | None = None,
    seed: int | None = None,
    order_list: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
    progress: Report | None = None,
) -> Trained:
    """Answer batches of few classes, or correlated streams.

    Args:
        method_name: A method's name.
        features: The cache, opened.
        protocol: `batches` or `stream`.
        batch: Rows that arrive together, 64 in batches and 128 in streams where not given.
        effective_classes: Fewest and most classes of a batch, (1, 4) where not given.
        correlation: Of streams, 0.01 where not given; smaller is more correlated; `separate`
            gives class after class, `none` a random order.
        repeats: Number of batches, 1000 where not given, or of streams, 100 where not given.
        split: Where the queries come from, test where not given.
        seed: Seed of the draw, 1 where not given.
        order_list: A stored list, in place of all of the above but the protocol.
        settings: Fields of the method's Config and Hyper.
        device: auto, cpu, cuda, cuda:1, ...
        progress: Told of every repetition.

    Returns:
        The record; no head is kept.

    Raises:
        UnknownNameError: If the method, protocol, split or setting is unknown.
        UsageError: If the method reads training images, a setting has several values, or an
            argument belongs to the other protocol or is out of range.
        TaskError: If the split allows no such list.
        MissingComponentError: If the cache lacks what the method needs.
    """
    method = registry.get(method_name)
    if protocol not in lists.PROTOCOLS:
        raise UnknownNameError("protocol", protocol, lists.PROTOCOLS)
    configured = configure(method, settings)
    _check_method(method, configured)
    given = {
        "batch": batch,
        "effective_classes": effective_classes,
        "correlation": correlation,
        "repeats": repeats,
        "seed": seed,
        "split": split,
    }
    orders = _orders(features, protocol, given, order_list)
    description = Run(
        method=method,
        settings=configured,
        features=features,
        protocol=protocol,
        selection="none",
        shots=0,
        seeds=(orders.seed,),
        stated=orders.stated,
    )
    used = np.unique(np.concatenate(orders.rows))
    builder = EpisodeBuilder(
        features=features,
        needs=method.needs(configured.config),
        device=pick_device(device),
        text=getattr(configured.config, "text", None),
        splits={orders.split: used},
    )
    started = time.perf_counter()
    none = np.zeros(0, dtype=np.int64)
    with captured_warnings() as unconverged:
        episode = builder.build(none, none, seed=orders.seed, shots=0)
        (chosen,) = select(method, configured, [episode], "none")
        synchronise()
        fitted = time.perf_counter()
        (query,) = builder.queries.values()
        walk = _Walk(method=method, head=chosen.head, query=query, orders=orders)
        predicted = list(walk.answers(progress))
        synchronise()
        ended = time.perf_counter()
    classes = len(features.classes)
    result = record(
        description,
        [chosen.values],
        _predictions(features, walk, predicted),
        split=orders.split,
        ids=orders.digest(features.listing),
        seconds={"fit": fitted - started, "evaluate": ended - fitted},
        reads=reads_of(method, (), query.rows),
        notes=[
            *query.notes,
            *cautions(method, list(walk.labels_together()), classes),
            *training_notes(method, [chosen]),
            *unconverged,
        ],
        over=LISTS[protocol],
    )
    beside = {lists.FILE: orders.to_json(features.listing).encode()}
    return Trained(results=(replace(result, beside=beside),), heads=((),))


def _check_method(method: AnyMethod, settings: Settings) -> None:
    """Refuse methods that learn from images, and settings among which something has to choose."""
    learns = {need.role for need in method.needs(settings.config)} - {"query"}
    if learns:
        has_mode = getattr(settings.config, "mode", "") == "few-shot"
        hint: list[Part] = [" Give ", Setting("mode", "zero-shot"), "."] if has_mode else []
        raise UsageError(
            f"Method '{method.name}' learns from training images ({', '.join(sorted(learns))}); "
            f"batches and streams are answered from class texts and queries alone.",
            hint,
        )
    axes = [*settings.train_grid.axes, *settings.post_grid.axes]
    if several := [name for name in axes if name in settings.given]:
        raise UsageError(
            "Without validation nothing can choose among several values of ",
            Setting(several[0], settings.given[several[0]]),
            ". Give one value each.",
        )


def _orders(
    features: FeatureSet, protocol: str, given: Mapping[str, Any], path: Path | None
) -> Orders:
    """Draw a list of orders, or read the given one."""
    if path is not None:
        if others := [name for name, value in given.items() if value is not None]:
            raise UsageError(
                f"{path} determines the queries and their order, so ",
                Argument(others[0]),
                " has no effect; leave one of the two out.",
            )
        orders = lists.read(path, features)
        if orders.protocol != protocol:
            raise UsageError(
                f"{path} is a list of protocol '{orders.protocol}'; give ",
                Argument("protocol", orders.protocol),
                ".",
            )
        return orders
    foreign = "correlation" if protocol == BATCHES else "effective_classes"
    if given[foreign] is not None:
        raise UsageError(
            Argument(foreign),
            f" has no meaning in protocol '{protocol}'; leave it out, or give ",
            Argument("protocol", STREAM if protocol == BATCHES else BATCHES),
            ".",
        )
    usual: dict[str, Any] = {
        "batch": order_draws.BATCH[protocol],
        "effective_classes": order_draws.EFFECTIVE_CLASSES,
        "correlation": order_draws.CORRELATION,
        "repeats": order_draws.REPEATS[protocol],
        "seed": 1,
        "split": "test",
    }
    values = {n: usual[n] if v is None else v for n, v in given.items() if n != foreign}
    if protocol == BATCHES:
        return order_draws.draw_batches(features, **values)
    return order_draws.draw_streams(features, **values)


@dataclass(frozen=True, kw_only=True)
class _Walk:
    """A prepared method, and the queries of all repetitions, each image read once."""

    method: AnyMethod
    head: Fitted
    query: QuerySet
    orders: Orders

    def places(self, repetition: int) -> Int[np.ndarray, " n"]:
        """Return the positions among the rows that were read, in order."""
        return np.searchsorted(self.query.index, self.orders.rows[repetition])

    def answers(self, progress: Report | None) -> Iterator[Answers]:
        """Answer the repetitions, one after the other."""
        if not self.method.transductive:  # an answer depends on its query alone
            once = int32(self.head.predict(self.query.rows))
            yield from (once[self.places(r)] for r in range(len(self.orders)))
            return
        for r in range(len(self.orders)):
            if progress is not None:
                progress("evaluating", r, len(self.orders))
            places = torch.from_numpy(self.places(r)).to(self.query.rows.x.device)
            parts = [places[part] for part in self._calls(r)]
            yield np.concatenate([int32(self.head.predict(self._rows(part))) for part in parts])

    def labels_together(self) -> Iterator[Int[np.ndarray, " _"]]:
        """Yield the labels of the queries of each call."""
        labels = self.query.rows.y.cpu().numpy()
        for r in range(len(self.orders)):
            places = self.places(r)
            yield from (labels[places[part]] for part in self._calls(r))

    def _calls(self, repetition: int) -> list[slice]:
        return [slice(None)] if self.method.online else self.orders.batches(repetition)

    def _rows(self, places: torch.Tensor) -> Any:
        return replace(self.query.rows.take(places, read=False), labels=None)


def _predictions(features: FeatureSet, walk: _Walk, predicted: list[Answers]) -> Predictions:
    """Return the answers, padded by -1 to the longest repetition."""
    orders, rows = walk.orders, walk.query.rows
    zero_shot = zero_shot_answers(features.text, rows)
    labels = int32(rows.y)
    places = [walk.places(r) for r in range(len(orders))]

    def padded(parts: list[Int[np.ndarray, " _"]]) -> Int32[np.ndarray, "r n"]:
        out = np.full((len(orders), orders.longest), -1, dtype=np.int32)
        for row, part in zip(out, parts, strict=True):
            row[: len(part)] = part
        return out

    return Predictions(
        predicted=padded(predicted),
        labels=padded([labels[at] for at in places]),
        zero_shot=None if zero_shot is None else padded([zero_shot[at] for at in places]),
        images=padded(places),
        ids=_names(features.listing, walk.query.index),
        classes=tuple(features.classes),
    )


def _names(listing: Listing, rows: RowIndex) -> tuple[str, ...]:
    return tuple(listing.ids[int(r)] for r in rows)

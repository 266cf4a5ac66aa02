"""Drawing lists of orders: batches of few classes, correlated streams, random orders.

Batches: m classes, m uniform on [low, high], then `batch` of their images at random, all where
there are fewer; class shares follow the split, so that not every drawn class need appear.

Streams, by correlation:

    number gamma  S = min(floor(n / batch), c) slots; class k spreads its images, in stored order,
                  over the slots by shares from Dirichlet(gamma 1_S); slots are shuffled and joined
    separate      one class after the other, in random order, shuffled within
    none          a random permutation

Small gamma is high correlation: 0.1 is called low, 0.01 medium, 0.001 high. An incomplete last
batch of the first two is dropped; `none` keeps it.

Source: released code of StatA @eea8637 as specified for batches (RandomState(1) gives its lists,
item for item) and streams, of OGA @b91d449 for `none` (seed 1 gives its 100 orders). Differs: the
released streams draw their shares without a seed; here each stream has its own generator, named by
(seed, stream).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from featcache.errors import TaskError, UsageError
from featcache.types import FeatureSet
from featcache.wording import Argument
from heads.protocols.orders import Orders
from heads.results.fields import WHOLE
from heads.results.record import ANSWERED, BATCHES, REPETITIONS, STREAM

BATCH = {BATCHES: 64, STREAM: 128}
REPEATS = {BATCHES: 1000, STREAM: 100}
EFFECTIVE_CLASSES = (1, 4)
CORRELATION = 0.01
SEPARATE, NONE = "separate", "none"
RELEASED_SEED = 41
"""Added to the seed, it is that of OGA's 100 orders where the seed is 1."""


@dataclass(frozen=True, kw_only=True)
class _Split:
    """The labelled, readable rows of a split, class by class."""

    rows: Int64[np.ndarray, " n"]
    of_class: dict[int, Int64[np.ndarray, " _"]]
    """Class -> its rows in stored order; only classes that have any."""


def draw_batches(
    features: FeatureSet,
    split: str,
    *,
    batch: int,
    effective_classes: tuple[int, int],
    repeats: int,
    seed: int,
) -> Orders:
    """Draw batches that hold few of the classes.

    Args:
        features: The cache, opened.
        split: Where the images come from.
        batch: Images of a batch; fewer where the drawn classes have fewer.
        effective_classes: Fewest and most classes of a batch.
        repeats: Number of batches.
        seed: Seed of the draw; the first 100 of 1000 batches are the 100.

    Raises:
        UsageError: If a number is out of range, or no record could hold the list.
        TaskError: If the split has no labelled image.
    """
    low, high = effective_classes
    _check(batch=batch, repeats=repeats, seed=seed, images=batch * repeats)
    if not 1 <= low <= high:
        raise UsageError(
            Argument("effective_classes"), f" must be two numbers from 1 on, got {low}-{high}."
        )
    if high >= 2**31:
        raise UsageError(Argument("effective_classes"), f" must be below 2**31, got {high}.")
    found = _split(features, split)
    present = np.array(sorted(found.of_class))
    # the generator and its calls are those of the released code, which gives its lists
    rng = np.random.RandomState(seed)
    drawn = []
    for _ in range(repeats):
        count = int(rng.randint(low, high + 1))
        chosen = rng.choice(present, count, replace=False) if count < len(present) else present
        rows = np.concatenate([found.of_class[int(k)] for k in chosen])
        if len(rows) >= batch:
            rows = rng.choice(rows, batch, replace=False)
        rng.shuffle(rows)
        drawn.append(rows)
    return Orders(
        dataset=features.listing.dataset,
        split=split,
        protocol=BATCHES,
        batch=batch,
        classes=f"{low}-{high}",
        seed=seed,
        rows=tuple(drawn),
    )


def draw_streams(
    features: FeatureSet,
    split: str,
    *,
    batch: int,
    correlation: float | str,
    repeats: int,
    seed: int,
) -> Orders:
    """Draw orders of a whole split.

    Args:
        features: The cache, opened.
        split: Where the images come from.
        batch: Images that arrive together.
        correlation: Dirichlet parameter above 0, `separate` or `none`.
        repeats: Number of streams.
        seed: Seed of the draw; a stream does not depend on the number of others, of `none` up to
            100 of them.

    Raises:
        UsageError: If a number is out of range, or no record could hold the list.
        TaskError: If the split has fewer images than a batch.
    """
    gamma = _correlation(correlation)
    found = _split(features, split)
    n = len(found.rows)
    _check(batch=batch, repeats=repeats, seed=seed, images=n * repeats)
    if gamma != NONE and n < batch:
        raise TaskError(
            f"Split '{split}' of data set '{features.listing.dataset}' has {n} labelled images, "
            f"fewer than a batch of {batch}. Lower ",
            Argument("batch"),
            ".",
        )
    if gamma == NONE:
        seeds = np.random.default_rng(RELEASED_SEED + seed).choice(
            10**6, max(100, repeats), replace=False
        )
        permuted = (np.random.default_rng(s).choice(n, n, replace=False) for s in seeds[:repeats])
        drawn = [found.rows[order] for order in permuted]
    else:
        generators = [np.random.default_rng([seed, stream]) for stream in range(repeats)]
        whole = n // batch * batch
        drawn = [
            (
                _separate(found, rng)
                if isinstance(gamma, str)
                else _in_slots(found, gamma, min(n // batch, len(features.classes)), rng)
            )[:whole]
            for rng in generators
        ]
    return Orders(
        dataset=features.listing.dataset,
        split=split,
        protocol=STREAM,
        batch=batch,
        correlation=gamma if isinstance(gamma, str) else f"{gamma:g}",
        seed=seed,
        rows=tuple(drawn),
    )


def _in_slots(
    found: _Split, gamma: float, slots: int, rng: np.random.Generator
) -> Int64[np.ndarray, " n"]:
    """Spread every class over the slots, and shuffle within each slot."""
    collected: list[list[np.ndarray]] = [[] for _ in range(slots)]
    for _, rows in sorted(found.of_class.items()):
        shares = rng.dirichlet(np.full(slots, gamma))
        cuts = np.floor(np.cumsum(shares)[:-1] * len(rows)).astype(np.int64)
        for slot, piece in zip(collected, np.split(rows, cuts), strict=True):
            slot.append(piece)
    return np.concatenate([rng.permutation(np.concatenate(slot)) for slot in collected])


def _separate(found: _Split, rng: np.random.Generator) -> Int64[np.ndarray, " n"]:
    """Order class after class."""
    order = rng.permutation(sorted(found.of_class))
    return np.concatenate([rng.permutation(found.of_class[int(k)]) for k in order])


def _split(features: FeatureSet, split: str) -> _Split:
    rows = features.usable(split)
    rows = rows[features.labels[rows] >= 0]
    if not len(rows):
        raise TaskError(
            f"Data set '{features.listing.dataset}' has no labelled query image in split "
            f"'{split}'; its splits are: {', '.join(features.listing.splits)}."
        )
    labels = features.labels[rows]
    return _Split(rows=rows, of_class={int(k): rows[labels == k] for k in np.unique(labels)})


def _correlation(value: float | str) -> float | str:
    """Return the Dirichlet parameter, or one of the two words."""
    if value in (SEPARATE, NONE):
        return value
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1e6:  # NaN is refused too
        raise UsageError(
            Argument("correlation"),
            f" must be a number above 0, '{SEPARATE}' or '{NONE}', got {str(value)[:40]!r}; "
            f"0.1, 0.01 and 0.001 are usual.",
        )
    return number


def _check(*, batch: int, repeats: int, seed: int, images: int) -> None:
    for name, value in {"batch": batch, "repeats": repeats}.items():
        if value < 1:
            raise UsageError(Argument(name), f" must be at least 1, got {value}.")
    if repeats > REPETITIONS:
        raise UsageError(Argument("repeats"), f" must be at most {REPETITIONS:,}, got {repeats}.")
    if images > ANSWERED:
        raise UsageError(
            f"{repeats} repetitions hold up to {images:,} images; a list holds at most "
            f"{ANSWERED:,}. Lower ",
            Argument("repeats"),
            " or ",
            Argument("batch"),
            ".",
        )
    if not 0 <= seed < min(2**32, WHOLE):
        raise UsageError(Argument("seed"), f" must be from 0 to 2**32 - 1, got {seed}.")

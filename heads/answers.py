"""Everything that a head says of some rows, from one pass over them.

`answers_of` reads or encodes its inputs once, answers them chunk by chunk, and returns labels and
probabilities, and on request prediction sets and which rows look like no class.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from heads.answering import Answerable, checked, given
from heads.certainty.asked import Asked
from heads.certainty.calibration import others_on
from heads.contract.rows import Rows
from heads.fitted import answers

if TYPE_CHECKING:
    from heads.head import Head


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What a head says of n inputs. An unreadable image has label -1 and NaN probabilities."""

    labels: Int64[Tensor, " n"]
    """Positions in the head's classes."""
    probabilities: Float[Tensor, "n c"]
    """softmax(logits / temperature)."""
    sets: Bool[Tensor, "n c"] | None = None
    """The classes in the prediction set of each input; None where not asked for. Of an unreadable
    image none."""
    rejected: Bool[Tensor, " n"] | None = None
    """Which inputs look like no class; None where not asked for. Unreadable images do not."""


def answers_of(
    head: "Head",
    rows: Answerable,
    *,
    split: str | None = None,
    strict: bool = True,
    coverage: float | None = None,
    rule: str = "lac",
    reject: float | None = None,
    measure: str = "max-logit",
) -> Answers:
    """Answer rows once.

    Args:
        head: A head.
        rows: As `Head.logits` takes them.
        split: As `Head.logits`.
        strict: As `Head.logits`.
        coverage: Share of images whose label the sets should contain, in (0, 1); None for no sets.
        rule: How sets are made: lac (smallest on average), aps (larger for hard images, so that
            their labels are covered as well) or raps (aps with fewer of many classes).
        reject: Share of images of the classes that may be rejected as strange, in (0, 1); None
            rejects nothing.
        measure: What is strange: a small largest logit (max-logit), or the energy.

    Raises:
        HeadError: If the head has no calibration rows, or too few for what is asked; or as
            `Head.logits`.
        UsageError: If a share is not in (0, 1).
        UnknownNameError: If the rule or the measure is unknown.
        TrainingError: If the logits of a row are not finite.

    Example:
        >>> import featcache, heads
        >>> from heads.answers import answers_of
        >>> cache = featcache.open("fieldguide", "tiny")
        >>> head = heads.fit("ridge", cache, shots=4, calibrate_on="folds")
        >>> given = answers_of(head, cache, coverage=0.9, reject=0.05)
        >>> given.sets.shape == given.probabilities.shape
        True
    """
    asked = Asked(coverage=coverage, rule=rule, reject=reject, measure=measure)
    asked.check(head.calibration, head.method.name)
    inputs = given(head, rows, split=split, strict=strict)
    x = checked(head, inputs.rows)
    parts = [_answered(head, x, asked, *chunk) for chunk in _chunks(head, x)]
    labels, p, sets, rejected = (torch.cat(each) for each in zip(*parts, strict=True))
    return Answers(
        labels=inputs.spread(head.fitted.checked(labels), -1),
        probabilities=inputs.spread(p, float("nan")),
        sets=None if coverage is None else inputs.spread(sets, False),
        rejected=None if reject is None else inputs.spread(rejected, False),
    )


def _answered(
    head: "Head", rows: Rows, asked: Asked, logits: Float[Tensor, "k c"], start: int, stop: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return labels, probabilities, sets and rejections of the rows from start to stop."""
    # Nothing can be taken of no rows, and nobody asks them.
    others = others_on(rows.take(slice(start, stop), read=False) if len(logits) else rows)
    sets, rejected = asked.of(head.calibration, logits, others)
    return answers(logits), head.softened(logits), sets, rejected


def _chunks(head: "Head", rows: Rows) -> Iterator[tuple[Tensor, int, int]]:
    """Yield (logits, start, stop) chunk by chunk; one of no rows where there are none."""
    if len(rows):
        yield from head.fitted.chunks(rows)
    else:
        yield rows.x.new_zeros(0, len(head.classes)), 0, 0

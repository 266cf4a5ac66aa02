"""What labelled rows that trained no head say of its answers: sorted scores, by name.

Scores are those of prediction sets (`heads.ops.conformal`), of each row at its label, and those of
strangeness (`heads.ops.novelty`). All of them are kept, so that any coverage and any share of
rejected images can be asked for later.

    split   one head scores all calibration rows and the rows that are asked about
    cross   of K folds, the head trained without a fold scores that fold; each of the K heads scores
            the rows that are asked about, and the counts are summed (CV+)

References: Romano et al., Classification with Valid and Adaptive Coverage, NeurIPS 2020 (split and
CV+ sets).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from featcache.errors import HeadError
from heads.contract.rows import Rows
from heads.fitted import Fitted
from heads.ops.conformal import (
    class_scores,
    cross_guarantee,
    exact,
    most_promised,
    rows_needed,
    smaller,
    within,
)
from heads.ops.novelty import novelty
from heads.ops.score_names import MEASURES, RULES

NAMES = (*RULES, *MEASURES)
"""Names of all scores."""


Others: TypeAlias = Callable[[Fitted], Tensor]
"""Returns the logits [n c] of a head for the rows that are asked about."""


def others_on(rows: Rows) -> Others:
    """Return what answers some rows, one or more, by other heads."""
    return lambda fitted: fitted.logits(rows)


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Calibration rows that one head scored."""

    scores: Mapping[str, Float64[Tensor, " m"]]
    """One of `NAMES` -> the scores of the rows, smallest first."""
    temperature: float = 1.0
    """Divides the logits of its head."""
    fitted: Fitted | None = None
    """The head that was trained without these rows; None where it is the head that answers."""

    @property
    def rows(self) -> int:
        """Count the rows."""
        return len(next(iter(self.scores.values())))


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """The calibration rows of a head: in one part, or in one part a fold."""

    parts: tuple[Part, ...]

    @property
    def kind(self) -> Literal["split", "cross"]:
        """Tell whether the head that answers scored the rows, or heads of folds did."""
        return "split" if self.parts[0].fitted is None else "cross"

    @property
    def rows(self) -> int:
        """Count the calibration rows."""
        return sum(part.rows for part in self.parts)

    def guarantee(self, coverage: float) -> float:
        """Return the coverage that cannot be missed on average over exchangeable rows."""
        if self.kind == "split":
            return coverage
        return cross_guarantee(self.rows, len(self.parts), coverage)

    def check_coverage(self, coverage: float) -> None:
        """Refuse a coverage that so few rows cannot promise.

        Raises:
            HeadError: If every set would have every class.
        """
        if self.rows < rows_needed(coverage):
            raise HeadError(
                f"{self.rows} calibration rows promise at most a coverage of "
                f"{most_promised(self.rows):.2f}; {coverage:g} needs {rows_needed(coverage)}. Ask "
                f"for less, or train with more validation images."
            )

    def check_share(self, share: float) -> None:
        """Refuse a share of known images that so few rows cannot tell from none.

        Raises:
            HeadError: If nothing would be rejected.
        """
        needed = rows_needed(float(1 - exact(share)))
        if self.rows < needed:
            raise HeadError(
                f"{self.rows} calibration rows tell no share of known images below "
                f"{1 / (self.rows + 1):.2g}; {share:g} needs {needed} rows. Reject a larger share, "
                f"or train with more validation images."
            )

    def sets(
        self, logits: Float[Tensor, "n c"], others: Others, coverage: float, rule: str
    ) -> Bool[Tensor, "n c"]:
        """Return which classes belong to the set of each row.

        The sets of `lac` can be empty; then they get the class with the largest logit, which can
        only raise the coverage.

        Args:
            logits: Of the head that answers, for the rows that are asked about.
            others: Returns the logits of another head for these rows.
            coverage: In (0, 1).
            rule: One of `RULES`.
        """
        below = self._below(rule, logits, others, lambda z, t: class_scores(_p(z, t), rule))
        sets = within(below, self.rows, coverage)
        best = torch.zeros_like(sets).scatter_(1, logits.argmax(dim=-1, keepdim=True), True)
        return torch.where(sets.any(dim=-1, keepdim=True), sets, best)

    def rejected(
        self, logits: Float[Tensor, "n c"], others: Others, share: float, measure: str
    ) -> Bool[Tensor, " n"]:
        """Return which rows look like no class.

        Args:
            logits: As `sets`.
            others: As `sets`.
            share: Of images of the classes that may be rejected, in (0, 1).
            measure: One of `MEASURES`.
        """
        below = self._below(measure, logits, others, lambda z, t: novelty(z.double(), measure, t))
        return ~within(below, self.rows, float(1 - exact(share)))

    def _below(
        self,
        name: str,
        logits: Float[Tensor, "n c"],
        others: Others,
        score: Callable[[Tensor, float], Tensor],
    ) -> Int64[Tensor, "*n"]:
        """Count the smaller calibration scores of every row, over all parts."""
        counts = []
        for part in self.parts:
            z = logits if part.fitted is None else others(part.fitted)
            of = score(z, part.temperature)
            counts.append(smaller(part.scores[name].to(of.device), of))
        return torch.stack(counts).sum(0)

    def to(self, device: torch.device) -> "Calibration":
        """Return it with the tensors of its heads on a device."""
        return Calibration(
            parts=tuple(
                part if part.fitted is None else replace(part, fitted=part.fitted.to(device))
                for part in self.parts
            )
        )


def part_of(
    logits: Float[Tensor, "m c"],
    labels: Int64[Tensor, " m"],
    temperature: float,
    fitted: Fitted | None = None,
) -> Part:
    """Score labelled rows that trained no head.

    Args:
        logits: Finite, of one head.
        labels: Labels of the rows.
        temperature: Divides the logits; from other rows.
        fitted: The head, where it is not the one that answers.

    Example:
        >>> part = part_of(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0]), 1.0)
        >>> [round(score, 2) for score in part.scores["lac"].tolist()]
        [0.27, 0.88]
    """
    p = _p(logits, temperature)
    at_label = {rule: class_scores(p, rule).gather(1, labels[:, None])[:, 0] for rule in RULES}
    strange = {name: novelty(logits.double(), name, temperature) for name in MEASURES}
    scores = {name: s.sort().values.cpu() for name, s in (at_label | strange).items()}
    return Part(scores=scores, temperature=temperature, fitted=fitted)


def _p(logits: Float[Tensor, "n c"], temperature: float) -> Float64[Tensor, "n c"]:
    return torch.softmax(logits.double() / temperature, dim=-1)

"""How sure a head was of labelled queries: its answers, calibration error and prediction sets."""

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from heads.certainty.calibration import Calibration, others_on
from heads.contract.rows import Rows
from heads.fitted import Fitted, answers
from heads.ops.calibration import expected_calibration_error
from heads.ops.conformal import rows_needed

COVERAGE, RULE = 0.9, "lac"
"""The sets whose coverage and size a record states: the smallest on average (Sadinle et al.)."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The answers of a head to labelled queries, and how far they can be trusted."""

    predicted: Int64[Tensor, " n"]
    error_before: float
    """Expected calibration error in [0, 1] of softmax(logits)."""
    error: float
    """The same of softmax(logits / temperature)."""
    covered: float | None
    """Fraction of queries whose label is in their set; None without enough calibration rows."""
    size: float | None
    """Mean number of classes of a set."""


def measure(
    fitted: Fitted, rows: Rows, temperature: float, calibration: Calibration | None
) -> Measured:
    """Answer labelled queries once, and measure the answers.

    Args:
        fitted: The head.
        rows: Labelled queries, none of which calibrated the head; at least one.
        temperature: Of the head.
        calibration: Of the head.

    Raises:
        TrainingError: If the logits of a row are not finite.
    """
    n, promised = len(rows), None
    if calibration is not None and calibration.rows >= rows_needed(COVERAGE):
        promised = calibration
    predicted = torch.empty(n, dtype=torch.int64, device=rows.x.device)
    before, after = (torch.empty(n, dtype=torch.float64, device=rows.x.device) for _ in range(2))
    covered = size = 0
    for logits, start, stop in fitted.chunks(rows):
        here = slice(start, stop)
        predicted[here] = answers(logits)
        fitted.checked(predicted[here])
        before[here], after[here] = _confidence(logits, 1.0), _confidence(logits, temperature)
        if promised is not None:
            others = others_on(rows.take(here, read=False))
            sets = promised.sets(logits, others, COVERAGE, RULE)
            covered += int(sets.gather(1, rows.y[here, None]).sum())
            size += int(sets.sum())
    correct = predicted == rows.y
    return Measured(
        predicted=predicted,
        error_before=expected_calibration_error(before, correct),
        error=expected_calibration_error(after, correct),
        covered=None if promised is None else covered / n,
        size=None if promised is None else size / n,
    )


def _confidence(logits: Tensor, temperature: float) -> Tensor:
    z = logits.double() / temperature
    return (z.amax(dim=-1) - z.logsumexp(dim=-1)).exp()

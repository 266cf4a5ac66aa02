"""What may be asked of a head beside classes: prediction sets, and which images look like none."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from featcache.counts import counted
from featcache.errors import HeadError
from featcache.wording import Argument
from heads.certainty.calibration import Calibration, Others
from heads.ops.score_names import check_asked


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Prediction sets of some coverage, and a share of images of the classes to reject.

    Example:
        >>> logits = torch.tensor([[1.0, 0.0]])
        >>> Asked().of(None, logits, lambda fitted: logits)
        (tensor([[True, True]]), tensor([False]))
    """

    coverage: float | None = None
    """Share of images whose label the sets should contain, in (0, 1); None for no sets."""
    rule: str = "lac"
    """How sets are made: lac, aps or raps."""
    reject: float | None = None
    """Share of images of the classes that may be rejected, in (0, 1); None rejects nothing."""
    measure: str = "max-logit"
    """What is strange: max-logit or energy."""

    def check(self, calibration: Calibration | None, method: str) -> None:
        """Refuse unknown names, shares that are none, and what a head cannot promise.

        Args:
            calibration: The calibration rows of the head; None where it keeps none.
            method: Name of its method, for the message.

        Raises:
            HeadError: If it keeps no calibration rows, or too few.
            UnknownNameError: If the rule or the measure is unknown.
            UsageError: If a share is not in (0, 1).
        """
        check_asked(
            coverage=self.coverage, rule=self.rule, reject=self.reject, measure=self.measure
        )
        if self.coverage is None and self.reject is None:
            return
        if calibration is None:
            raise HeadError(
                f"This head of {method} keeps no calibration rows: labelled images that neither "
                f"trained nor selected it. Train it again on data with more validation images, or "
                f"with ",
                Argument("calibrate_on", "half-val"),
                " (half of the validation images calibrate) or ",
                Argument("calibrate_on", "folds"),
                " (folds of the support do).",
            )
        if self.coverage is not None:
            calibration.check_coverage(self.coverage)
        if self.reject is not None:
            calibration.check_share(self.reject)

    def caution(self, calibration: Calibration | None) -> str:
        """Say what is guaranteed where folds calibrated a head; empty elsewhere.

        Example:
            >>> Asked(coverage=0.9).caution(None)
            ''
        """
        if calibration is None or calibration.kind == "split" or self.coverage is None:
            return ""
        images = counted(calibration.rows, "training image")
        guaranteed = calibration.guarantee(self.coverage)
        return (
            f"Folds of {images} calibrated this head: its sets usually hold the right class "
            f"{100 * self.coverage:g} % of the time, and {100 * guaranteed:.0f} % are guaranteed."
        )

    def of(
        self, calibration: Calibration | None, logits: Float[Tensor, "n c"], others: Others
    ) -> tuple[Bool[Tensor, "n c"], Bool[Tensor, " n"]]:
        """Return the sets, and which rows are rejected.

        Where sets are not asked for they have every class; where rejection is not, no row is
        rejected.

        Args:
            calibration: As `check`, which has passed.
            logits: Of the head.
            others: Returns the logits of another head for these rows.
        """
        sets = torch.ones_like(logits, dtype=torch.bool)
        rejected = logits.new_zeros(len(logits), dtype=torch.bool)
        if calibration is not None and len(logits):
            if self.coverage is not None:
                sets = calibration.sets(logits, others, self.coverage, self.rule)
            if self.reject is not None:
                rejected = calibration.rejected(logits, others, self.reject, self.measure)
        return sets, rejected

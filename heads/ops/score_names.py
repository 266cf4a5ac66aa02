"""Names of the scores of classes and rows, and what shares may be; known before torch is loaded."""

from featcache.errors import UnknownNameError, UsageError
from featcache.wording import Argument

RULES = ("lac", "aps", "raps")
"""Scores of classes, for prediction sets: `heads.ops.conformal`."""
MEASURES = ("max-logit", "energy")
"""Scores of rows, for rejection: `heads.ops.novelty`."""


def check_asked(
    *,
    coverage: object = None,
    rule: str | None = None,
    reject: object = None,
    measure: str | None = None,
) -> None:
    """Refuse unknown names and shares that are none; None is what was not named.

    Raises:
        UnknownNameError: If the rule or the measure is unknown.
        UsageError: If a share is not in (0, 1).
    """
    if rule is not None and rule not in RULES:
        raise UnknownNameError("rule", rule, RULES)
    if measure is not None and measure not in MEASURES:
        raise UnknownNameError("measure", measure, MEASURES)
    for name, share in (("coverage", coverage), ("reject", reject)):
        if share is not None:
            check_share(name, share)


def check_share(name: str, share: object) -> None:
    """Refuse a share outside (0, 1).

    Raises:
        UsageError: If it is no number in (0, 1).
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise UsageError(Argument(name), f" must be a number between 0 and 1, got {share!r:.80}.")

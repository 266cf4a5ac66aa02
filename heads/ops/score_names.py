"""Names of the scores of classes and rows, and what shares may be; known before torch is loaded."""

from featcache.errors import UsageError
from featcache.wording import Argument

RULES = ("lac", "aps", "raps")
"""Scores of classes, for prediction sets: `heads.ops.conformal`."""
MEASURES = ("max-logit", "energy")
"""Scores of rows, for rejection: `heads.ops.novelty`."""


def check_share(name: str, share: object) -> None:
    """Refuse a share outside (0, 1).

    Raises:
        UsageError: If it is no number in (0, 1).
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise UsageError(Argument(name), f" must be a number between 0 and 1, got {share!r:.80}.")

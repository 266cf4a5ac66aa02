"""Members that are not trained on a task: what they lack, or how large the task is."""

from collections.abc import Iterator
from contextlib import contextmanager

from featcache.errors import FeatcacheError, MissingComponentError, TrainingError, UsageError
from featcache.wording import Setting
from heads.contract.members import Member
from heads.contract.method import AnyMethod


class Leftover:
    """Members that are not trained on a task, and why.

    Args:
        method: The method that they are members of; one whose composition spares no member has
            none of them here: what would be a reason is an error.
    """

    def __init__(self, method: AnyMethod) -> None:
        assert method.composition is not None
        self._name, self._spares = method.name, method.composition.spares
        self._reasons: dict[str, list[str]] = {}

    def add(self, member: Member, why: str) -> None:
        """Leave out a member."""
        self._reasons.setdefault(why, []).append(member.label)

    @contextmanager
    def sparing(self, member: Member) -> Iterator[None]:
        """Leave out the member that lacks features or texts in this block, or cannot be trained."""
        try:
            yield
        except (MissingComponentError, TrainingError) as error:
            if not self._spares:
                raise
            self.add(member, _why(error, member))

    @property
    def notes(self) -> list[str]:
        """Return a sentence for each reason."""
        return [f"Left out: {', '.join(who)} ({why})." for why, who in self._reasons.items()]

    def check(self, trained: int) -> None:
        """Refuse to go on with no member at all.

        Raises:
            UsageError: If none was trained.
        """
        if not trained:
            raise UsageError(
                f"{self._name} has no member that can be trained here. {' '.join(self.notes)} "
                f"Name other methods, e.g. ",
                Setting("members", "gda,ridge"),
                ".",
            )


def _why(error: FeatcacheError, member: Member) -> str:
    """Return the part of an error that differs between reasons, not between members."""
    first = str(error).split(". ")[0].rstrip(".")
    return first.replace(f"Method '{member.name}' ", "")

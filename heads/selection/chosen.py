"""The result of a selection: one head, and how it was chosen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from featcache.errors import TrainingError
from featcache.wording import Setting
from heads.contract.method import AnyMethod
from heads.contract.settings import hyper_values
from heads.fitted import Fitted


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The head of one task, and how it was chosen."""

    head: Fitted
    accuracy: float | None
    """Validation accuracy in [0, 1]; None where nothing was validated."""
    failed: tuple[str, ...] = ()
    """Grid points that could not be used, and why."""
    watch: dict[str, list[float]] = field(default_factory=dict)
    """What was recorded (`Stage.watch`, `Method.watch`), by name."""
    static: tuple[str, ...] = ()
    """Fields of Config that were chosen too."""
    learned: Mapping[str, float] = field(default_factory=dict)
    """Further numbers that the record states, such as the weights of members."""
    notes: tuple[str, ...] = ()
    """What a reader must know of the training of members."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """What the training of each member took, with its search."""

    @property
    def values(self) -> dict[str, float]:
        """Return the hyper-parameters of the head, and what else was chosen."""
        config = {name: getattr(self.head.config, name) for name in self.static}
        return hyper_values(self.head.hyper) | config | dict(self.learned)


def all_failed(method: AnyMethod, failed: Sequence[str]) -> TrainingError:
    """Return the error of a task for which no grid point could be trained."""
    has_rate = "lr" in hyper_values(method.hyper())
    return TrainingError(
        f"Training {method.name} gave no usable head: {failed[0]}. Try smaller steps (e.g. ",
        Setting("lr", "1e-4") if has_rate else "a smaller learning rate",
        "), and `featcache verify`.",
    )

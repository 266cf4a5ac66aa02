"""How a method is trained: rounds, their batches and their steps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, Protocol, TypeAlias, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from heads.contract.rows import Batch, Kind, Tensors
from heads.ops.algebra import cross_entropy

Loss: TypeAlias = Callable[..., tuple[Tensor, Tensors]]
"""(params, fixed, state, batch, config, hyper) -> (scalar, state)."""


@runtime_checkable
class Update(Protocol):
    """One optimiser as pure functions, safe under vmap."""

    @property
    def elementwise(self) -> bool:
        """Tell whether it treats every number by itself.

        It is then called once for all stacked runs, without vmap, may overwrite the parameters,
        and finds in `hyper` a number where all runs agree, else one number a run in the leading
        axes.
        """
        ...

    def init(self, params: Tensors) -> Tensors:
        """Return the optimiser's state for these parameters."""
        ...

    def step(
        self,
        params: Tensors,
        grads: Tensors,
        state: Tensors,
        *,
        step: int,
        steps: int,
        config: Any,
        hyper: Any,
        fixed: Tensors,
        per_epoch: int = 1,
    ) -> tuple[Tensors, Tensors]:
        """Return parameters and state after step `step` (from 0) of `steps`, `per_epoch` an epoch.

        `params` and `grads` hold what the stage trains. The state, and the gradients, may be
        overwritten in place; the parameters may not.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What the number of steps of a stage may depend on."""

    support: int
    pool: int
    classes: int
    shots: int
    """Largest number of support rows of a class."""
    batch: int
    """Rows of a batch after the sampler's rule."""
    per_epoch: int
    """Steps of one pass over the rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """How a stage draws its batches; built by `heads.training.samplers`."""

    kind: Literal["full", "shuffled", "balanced", "pool", "view_pool"]
    size: int = 0
    """Rows of a batch (shuffled, pool, view_pool); 0 is all."""
    share: float = 1.0
    """Largest share of the rows that a batch takes, one row at least (shuffled)."""
    classes: int = 0
    """Classes of a balanced batch; 0 is all."""
    each: int = 0
    """Images of each class in a balanced batch; 0 is all that there are."""
    views: int = 1
    """Views of each image in a balanced batch."""
    augment: bool = True
    """Draw one of the cached views where there are any; else the clean image."""
    recipe: str = ""
    """Recipe of the views, where the needs name several."""
    drop_last: bool = False
    """Only full batches: rows over at the end of an epoch are left out of it."""
    take: tuple[tuple[Kind, int], ...] = ()
    """(kind, count): draw so many views or crops of each row; other kinds come whole."""
    beside: tuple[tuple[str, int], ...] = ()
    """(name of a fixed tensor, count): draw so many of its rows beside each batch, without
    regard to the batch's own; a step takes fewer where the tensor has fewer."""


def steps_of(sizes: Sizes, config: Any) -> int:
    """Take `config.steps` steps, or those of `config.epochs` passes over the rows."""
    return int(config.steps if hasattr(config, "steps") else config.epochs * sizes.per_epoch)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One round of training: what moves, by which loss, on which batches, for how long."""

    trains: frozenset[str] | None = None
    """Names of the parameters that move; None is all."""
    loss: Loss
    batches: Sampler
    steps: Callable[[Sizes, Any], int] = steps_of
    update: Update
    keep: Literal["last", "best-val"] = "last"
    """best-val: the look with the best validation accuracy, of equals the latest."""
    look: int = 0
    """Steps between two looks at validation; 0 looks at the end of every epoch."""
    patience: int = 0
    """Looks without a better one after which a run has ended; 0 never ends one early."""
    start: Callable[[Tensors, Tensors, Any, Any], Tensors] | None = None
    """(params, fixed, config, hyper) -> state."""
    watch: tuple[str, ...] = ()
    """Numbers of the state that are recorded at the end of every epoch."""
    leave: Callable[[Tensors, Tensors, Any, Any], Tensors] | None = None
    """(params, fixed, config, hyper) -> fixed, after the stage."""
    search: bool = False
    """Choose on `post_grid` after this stage; the next stage's hyper carries the choice."""

    def trained(self, params: Tensors) -> Tensors:
        """Return the parameters that move, sorted by name."""
        return {n: params[n] for n in sorted(params if self.trains is None else self.trains)}


P = ParamSpec("P")


def _alone(make: Callable[P, Stage]) -> Callable[P, tuple[Stage, ...]]:
    return lambda *args, **kwargs: (make(*args, **kwargs),)


one_stage = _alone(Stage)
"""The `stages` of a method that is trained in one round; arguments as `Stage`."""

Objective: TypeAlias = Callable[..., Tensor]
"""(params, fixed, batch, config, hyper) -> scalar."""


def last_logits(terms: Tensors, fixed: Tensors, config: Any, hyper: Any) -> Float[Tensor, "n c"]:
    """Return the term `logits`: there is nothing left to combine."""
    return terms["logits"]


def stateless(objective: Objective) -> Loss:
    """Make the loss of a stage from an objective that remembers nothing between steps.

    Example:
        >>> import torch
        >>> loss = stateless(lambda params, fixed, batch, config, hyper: params["w"].square().sum())
        >>> loss({"w": torch.ones(3)}, {}, {}, None, None, None)
        (tensor(3.), {})
    """

    def loss(
        params: Tensors, fixed: Tensors, state: Tensors, batch: Batch, config: Any, hyper: Any
    ) -> tuple[Tensor, Tensors]:
        return objective(params, fixed, batch, config, hyper), state

    return loss


def cross_entropy_of(
    terms: Callable[..., Tensors],
    combine: Callable[..., Tensor] = last_logits,
    penalty: Callable[..., Tensor] | None = None,
) -> Loss:
    """Make a loss from a method's own answers to its batch: CE(logits, y), and a penalty.

    Args:
        terms: The method's.
        combine: The method's, or one that fuses the terms otherwise in training.
        penalty: (params, fixed, config, hyper) -> scalar that is added.
    """

    @stateless
    def loss(params: Tensors, fixed: Tensors, batch: Batch, config: Any, hyper: Any) -> Tensor:
        logits = combine(terms(params, fixed, batch, config, hyper), fixed, config, hyper)
        value = cross_entropy(logits, batch.y, batch.weights)
        return value if penalty is None else value + penalty(params, fixed, config, hyper)

    return loss

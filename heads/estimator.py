"""A method with scikit-learn's manners: parameters stored untouched, fitted names end in `_`."""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from featcache.errors import UsageError
from heads import registry
from heads.contract import Rows
from heads.episode import Episode
from heads.fitted import Fitted
from heads.selection.select import has_choice, select
from heads.selection.settings import configure


class Estimator:
    """One class for every method: `Estimator("cmm", alpha=1.0).fit(task).predict(rows)`.

    After `fit`: `head_` (what was learned), `config_`, `hyper_` (as chosen), `classes_`,
    `validation_accuracy_` (in [0, 1], or None).
    """

    def __init__(self, method: str, *, selection: str | None = None, **settings: Any) -> None:
        """Store what was given; nothing is checked before `fit`.

        Args:
            method: A method's name.
            selection: cv, none, or None: on the task's validation rows where it has some.
            settings: Fields of the method's Config and Hyper; several values make a grid.
        """
        self.method = method
        self.selection = selection
        self.settings = settings

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters as given."""
        return {"method": self.method, "selection": self.selection, **self.settings}

    def set_params(self, **params: Any) -> "Estimator":
        """Change parameters; the next `fit` uses them."""
        for name, value in params.items():
            if name in ("method", "selection"):
                setattr(self, name, value)
            else:
                self.settings = self.settings | {name: value}
        return self

    def fit(self, task: Episode) -> "Estimator":
        """Train on the task's support, selecting on its validation rows."""
        method = registry.get(self.method)
        labels = task.view.support.labels
        shots = None if labels is None or not len(labels) else int(torch.bincount(labels).max())
        settings = configure(method, self.settings, shots=shots)
        mode = self.selection or ("none" if task.val is None else "full-val")
        if not has_choice(method, settings, mode):
            mode = "none"
        (chosen,) = select(method, settings, [task], mode)
        self.head_ = chosen.head
        self.config_ = chosen.head.config
        self.hyper_ = chosen.head.hyper
        self.classes_ = task.view.classes
        self.validation_accuracy_ = chosen.accuracy
        return self

    def decision_function(self, rows: Float[Tensor, "n d"] | Rows) -> Float[Tensor, "n c"]:
        """Return the logits; plain rows may have any length.

        Raises:
            UsageError: If nothing was fitted yet, or a row is not finite.
        """
        return self._fitted().logits(_as_rows(rows))

    def predict(self, rows: Float[Tensor, "n d"] | Rows) -> Int64[Tensor, " n"]:
        """Return the positions of the predicted classes in `classes_`."""
        return self._fitted().predict(_as_rows(rows))

    def score(self, rows: Rows) -> float:
        """Return top-1 accuracy on labelled rows, in [0, 1]."""
        return self._fitted().accuracy(rows)

    def __repr__(self) -> str:
        given = {k: v for k, v in self.get_params().items() if k != "method" and v is not None}
        inside = ", ".join([repr(self.method), *(f"{k}={v!r}" for k, v in given.items())])
        return f"Estimator({inside})"

    def _fitted(self) -> Fitted:
        if not hasattr(self, "head_"):
            raise UsageError("This Estimator is not fitted yet; call fit(task) first.")
        return self.head_


def _as_rows(rows: Float[Tensor, "n d"] | Rows) -> Rows:
    """Return rows as a head reads them.

    Raises:
        UsageError: If a row holds a value that is not finite, which no head could answer.
    """
    x = rows.x if isinstance(rows, Rows) else rows
    strange = (~torch.isfinite(x).flatten(1).all(1)).nonzero().flatten().tolist()
    if strange:
        first = ", ".join(map(str, strange[:5])) + (", ..." if len(strange) > 5 else "")
        raise UsageError(
            f"{len(strange)} of {len(x)} rows hold NaN or infinite values (rows {first}); leave "
            f"them out, or extract their features again."
        )
    if isinstance(rows, Rows):
        return rows
    norms = rows.norm(dim=-1)
    return Rows(x=torch.nn.functional.normalize(rows, dim=-1), norms=norms, labels=None)

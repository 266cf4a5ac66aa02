"""Methods as scikit-learn estimators: parameters stored untouched, fitted names end in `_`."""

import sys
from typing import Any

import torch

from featcache.errors import MissingComponentError, UnknownNameError, UsageError
from heads import registry
from heads.arrays import (
    InputError,
    check_method,
    encode,
    labels_of,
    matrix,
    text_view,
    unit_rows,
)
from heads.certainty.calibration import Calibration
from heads.certainty.fitting import by_folds, by_rows, check_folds
from heads.contract.rows import Rows, TaskView
from heads.episode import Episode
from heads.fitted import Fitted
from heads.head import Head, fitted_head
from heads.selection.select import has_choice, select
from heads.selection.settings import configure
from heads.whole import whole

ON_ARRAYS = ("cv", "none")
"""Selections that need no validation rows."""
CALIBRATED_ON = ("auto", "folds", "none")
"""What may calibrate it; rows without splits have no halves of validation."""
_PARAMETERS = {"method": "ridge", "selection": None, "seed": 1, "calibrate_on": "auto"}


class Estimator:
    """One class for every method: `Estimator("cmm", alpha=1.0).fit(X, y, texts=T).predict(X)`.

    Rows are scaled to unit length first, as features of CLIP-like models are used. float64 is
    computed in float64, narrower types in float32.

    After `fit`: `classes_` (the sorted distinct labels), `n_features_in_`, `head_` (a
    `heads.Head`, which can be saved), `config_`, `hyper_` (as chosen), `validation_accuracy_` (in
    [0, 1], or None).

    Arrays have no rows beside those of training, so its probabilities are softmax of the logits,
    which mean nothing for tip-adapter and gda. With `calibrate_on="folds"` up to four further heads
    are trained, each without a fold of the rows, and answer it: that gives the temperature, and
    `head_` prediction sets (docs/certainty.md).

    Fitted on an `Episode`, it answers in torch and predicts positions in `classes_`; fitted on
    arrays, it answers in numpy and predicts labels.

    Example:
        >>> from heads import Estimator
        >>> X = [[0.1, 1.0], [0.2, 1.0], [1.0, 0.1], [1.0, 0.0]]
        >>> y = ["moss", "moss", "rust", "rust"]
        >>> model = Estimator("ridge").fit(X, y)
        >>> model.predict([[0.0, 3.0], [2.0, 0.0]]).tolist()
        ['moss', 'rust']
        >>> model.score(X, y)
        1.0
        >>> anchors = [[0.0, 1.0], [1.0, 0.0]]
        >>> Estimator("tip-adapter").fit(X, y, texts=anchors).predict([[3.0, 1.0]]).tolist()
        ['rust']
    """

    def __init__(
        self,
        method: str = "ridge",
        *,
        selection: str | None = None,
        seed: int = 1,
        calibrate_on: str = "auto",
        **settings: Any,
    ) -> None:
        """Store the parameters; they are checked in `fit`.

        Args:
            method: A method's name.
            selection: cv (folds of the training rows), none (the defaults), or None: on an
                Episode's validation rows where it has some, else the defaults.
            seed: Seed of folds and batches; an Episode has its own.
            calibrate_on: Rows that fit the temperature of `predict_proba`: auto (the validation
                rows of an Episode, where it has some), folds (of the training rows; trains up to
                four further heads) or none.
            settings: Fields of the method's Config and Hyper; several values make a grid.
        """
        self.method = method
        self.selection = selection
        self.seed = seed
        self.calibrate_on = calibrate_on
        self._settings = settings

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings of the method as given."""
        return dict(self._settings)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters as given."""
        return {**{name: getattr(self, name) for name in _PARAMETERS}, **self._settings}

    def set_params(self, **params: Any) -> "Estimator":
        """Change parameters; the next `fit` uses them."""
        for name, value in params.items():
            if name in _PARAMETERS:
                setattr(self, name, value)
            else:
                self._settings = self._settings | {name: value}
        return self

    def fit(self, X: Any, y: Any = None, *, texts: Any = None) -> "Estimator":  # noqa: N803
        """Train on labelled rows.

        Args:
            X: Rows [n d]: numpy, torch or nested lists; or an Episode, with nothing else.
            y: One hashable label a row.
            texts: For methods that read class texts: anchors [c d] in the order of the sorted
                labels, label -> anchor, or a TextView.

        Raises:
            UsageError: If the seed is no whole number.
            InputError: If the arrays are malformed, or the method reads more than they hold.
            UnknownNameError: If the method, a setting, the selection or the calibration is unknown.
            MissingComponentError: If an Episode lacks texts, or the kind of text, to be read.
            TaskError: If folds of the rows cannot calibrate the method.
        """
        if isinstance(X, Episode):
            if y is not None or texts is not None:
                raise UsageError("An Episode has its own labels and texts; leave y and texts out.")
            return self._fit(X, X.view.classes)
        x = matrix(X)
        classes, labels = encode(y, len(x))
        view = TaskView(
            support=unit_rows(x, labels),
            pool=None,
            text=text_view(texts, classes, x),
            classes=tuple(map(str, classes.tolist())),
            seed=whole("seed", self.seed),
        )
        return self._fit(Episode(view=view, val=None, queries={}), classes)

    def _fit(self, task: Episode, classes: Any) -> "Estimator":
        method = registry.get(self.method)
        if self.calibrate_on not in CALIBRATED_ON:
            raise UnknownNameError("calibration", str(self.calibrate_on), CALIBRATED_ON)
        labels = task.view.support.labels
        shots = None if labels is None or not len(labels) else int(torch.bincount(labels).max())
        settings = configure(method, self._settings, shots=shots)
        mode = self.selection or ("none" if task.val is None else "full-val")
        if not task.queries:
            check_method(method, settings.config)
            if mode not in ON_ARRAYS:
                raise InputError(
                    f"selection='{mode}' reads validation rows, and fit(X, y) has none; use "
                    f"selection='cv' or 'none'."
                )
        if self.calibrate_on == "folds":
            check_folds(method, settings.config, task.view)
        if not has_choice(method, settings, mode):
            mode = "none"
        try:
            (chosen,) = select(method, settings, [task], mode)
        except MissingComponentError as error:
            if task.queries or task.view.text is not None:
                raise
            raise InputError(
                f"{method.name} reads class texts; give fit(X, y, texts=...) one anchor a class."
            ) from error
        width = task.view.support.x.shape[1]
        about = {"seed": task.view.seed, "selection": mode, "validation": chosen.accuracy}
        temperature, calibration = self._calibrated(chosen.head, task)
        self.head_ = fitted_head(
            chosen.head,
            task.view.classes,
            width,
            about=about,
            temperature=temperature,
            calibration=calibration,
        )
        self.config_ = chosen.head.config
        self.hyper_ = chosen.head.hyper
        self.classes_ = classes
        self.n_features_in_ = width
        self.validation_accuracy_ = chosen.accuracy
        return self

    def _calibrated(self, fitted: Fitted, task: Episode) -> tuple[float, Calibration | None]:
        """Return temperature and calibration of what was fitted."""
        if self.calibrate_on == "folds":
            return by_folds(fitted, task.view)
        if self.calibrate_on == "none" or fitted.method.transductive:
            return 1.0, None
        return by_rows(fitted, task.val, None)

    def decision_function(self, X: Any) -> Any:  # noqa: N803
        """Return the logits [n c]; with two classes of arrays, as scikit-learn has it, [n].

        Raises:
            UsageError: If nothing was fitted yet, or a row is not finite.
        """
        logits = self._head().logits(self._rows(X))
        if self._in_torch:
            return logits
        return (logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits).cpu().numpy()

    def predict_proba(self, X: Any) -> Any:  # noqa: N803
        """Return softmax(logits / temperature) [n c]; errors as `decision_function`.

        Without calibration the temperature is 1, and they estimate probabilities only for methods
        trained with cross-entropy.
        """
        probabilities = self._head().probabilities(self._rows(X))
        return probabilities if self._in_torch else probabilities.cpu().numpy()

    def predict(self, X: Any) -> Any:  # noqa: N803
        """Return the label of every row; errors as `decision_function`.

        After `fit(episode)`: the position of the label in `classes_`.
        """
        positions = self._head().predict(self._rows(X))
        return positions if self._in_torch else self.classes_[positions.cpu().numpy()]

    def score(self, X: Any, y: Any = None) -> float:  # noqa: N803
        """Return top-1 accuracy in [0, 1].

        Args:
            X: Rows [n d]; after `fit(episode)` labelled Rows.
            y: Their labels, in any order; None where Rows have them.
        """
        if isinstance(X, Rows):
            return self._head().fitted.accuracy(self._rows(X))
        answers = self.predict(X).tolist()
        labels = [] if y is None else labels_of(y).reshape(-1).tolist()
        if len(labels) != len(answers):
            raise InputError(f"X has {len(answers)} rows and y has {len(labels)} labels.")
        return float(sum(a == b for a, b in zip(answers, labels, strict=True)) / len(answers))

    def __repr__(self) -> str:
        parameters = {n: getattr(self, n) for n, v in _PARAMETERS.items() if n != "method"}
        given = {n: v for n, v in parameters.items() if v != _PARAMETERS[n]} | self._settings
        inside = ", ".join([repr(self.method), *(f"{k}={v!r}" for k, v in given.items())])
        return f"Estimator({inside})"

    @property
    def _in_torch(self) -> bool:
        return isinstance(self.classes_, tuple)

    def _rows(self, X: Any) -> Any:  # noqa: N803
        """Return rows as the head takes them."""
        head = self._head()
        if self._in_torch:
            return X
        return unit_rows(matrix(X, width=self.n_features_in_).to(head.dtype))

    def _head(self) -> Head:
        if not hasattr(self, "head_"):
            raise _not_fitted("This Estimator is not fitted yet; call fit(X, y) first.")
        return self.head_

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn what this is; only scikit-learn calls it."""
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(),
        )


def _not_fitted(message: str) -> UsageError:
    """Return the error; where scikit-learn is loaded it is its NotFittedError too."""
    sklearn_error = getattr(sys.modules.get("sklearn.exceptions"), "NotFittedError", None)
    if sklearn_error is None:
        return InputError(message)
    kind: type[UsageError] = type("NotFittedError", (InputError, sklearn_error), {})
    return kind(message)

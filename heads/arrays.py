"""Plain arrays -> what methods read: rows [n d], labels by position, texts as anchors.

Arrays are numpy's, torch's or nested lists. float64 stays float64, narrower floats become float32.
"""

import warnings
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torch.nn import functional as F

from featcache.errors import MissingComponentError, UsageError
from heads.contract.method import AnyMethod
from heads.contract.rows import Rows
from heads.text_view import TextView

FIRST = 5
"""Number of rows that a message names."""


class InputError(UsageError, ValueError):
    """A malformed array; a ValueError, as scikit-learn's tools expect."""


class DataConversionWarning(UserWarning):
    """Labels had another shape than [n] and were used all the same."""


@dataclass(frozen=True, kw_only=True)
class Anchors:
    """Class texts given as one vector a class (`TextView`)."""

    rows: Float[Tensor, "c d"]
    """As the text encoder gives them, in the order of the classes."""
    logit_scale: float = 100.0
    """Factor on cosines; CLIP's."""
    logit_bias: float = 0.0
    norms: str = "raw"

    def anchors(self, text: str | None = None) -> Float[Tensor, "c d"]:
        """Return one unit vector a class."""
        return F.normalize(self.raw_anchors(text), dim=-1)

    def classifier(self, text: str | None = None) -> Float[Tensor, "c d"]:
        """Return the anchors."""
        return self.anchors(text)

    def raw_anchors(self, text: str | None = None) -> Float[Tensor, "c d"]:
        """Return the vectors as given.

        Raises:
            MissingComponentError: If a kind of text is requested.
        """
        if text is not None:
            raise MissingComponentError(
                f"These texts are one vector a class, without kinds, and '{text}' was requested. "
                f"Leave text= out, or train on a cache (heads.fit)."
            )
        return self.rows

    def texts(self, text: str | None = None) -> tuple[Float[Tensor, "m d"], Int64[Tensor, " m"]]:
        """Return the anchors and the class of each."""
        anchors = self.anchors(text)
        return anchors, torch.arange(len(anchors), device=anchors.device)


def matrix(values: Any, name: str = "X", width: int | None = None) -> Float[Tensor, "n d"]:
    """Read rows.

    Args:
        values: Rows [n d] of numbers.
        name: Name of the argument in messages.
        width: Required length of the rows; None accepts any.

    Raises:
        InputError: If they are not finite numbers in two dimensions, or not as wide.
        TypeError: If an entry is no number.
    """
    if hasattr(values, "toarray"):
        raise InputError(f"{name} is sparse; give a dense array, e.g. {name}.toarray().")
    plain = _numbers(values, name)
    if plain.ndim != 2:
        raise InputError(
            f"{name} should be rows [n d], got {plain.ndim} dimension(s) {list(plain.shape)}. "
            f"Reshape your data: {name}.reshape(1, -1) is one row, {name}.reshape(-1, 1) a column."
        )
    if 0 in plain.shape:
        what = "sample" if not len(plain) else "feature"
        raise InputError(f"0 {what}(s) (shape={plain.shape}) while a minimum of 1 is required.")
    if width is not None and plain.shape[1] != width:
        raise InputError(
            f"{name} has {plain.shape[1]} features, but Estimator is expecting {width} features as "
            f"input."
        )
    strange = np.flatnonzero(~np.isfinite(plain).all(1)).tolist()
    if strange:
        first = ", ".join(map(str, strange[:FIRST])) + (", ..." if len(strange) > FIRST else "")
        raise InputError(
            f"{len(strange)} of {len(plain)} rows of {name} hold NaN or infinite values (rows "
            f"{first}); leave them out."
        )
    return torch.from_numpy(np.array(plain, order="C"))  # a copy: callers may overwrite theirs


def _numbers(values: Any, name: str) -> Shaped[np.ndarray, "..."]:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    try:
        plain = np.asarray(values)
        if plain.dtype.kind == "c":
            raise InputError(f"{name} is complex. Complex data not supported; give real numbers.")
        narrow = plain.dtype.kind == "f" and plain.dtype.itemsize <= 4
        return plain.astype(np.float32 if narrow else np.float64)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name} should be rows [n d] of numbers ({error}).") from error


def encode(y: Any, n: int) -> tuple[Shaped[np.ndarray, " c"], Int64[Tensor, " n"]]:
    """Number the distinct labels, sorted where they can be ordered, else in order of appearance.

    Args:
        y: One hashable label a row.
        n: Number of rows.

    Returns:
        The distinct labels, and the position of each row's among them.

    Raises:
        InputError: If there is not one label a row, only one class, or continuous labels.
    """
    if y is None:
        raise InputError(
            "fit(X, y) requires y to be passed, but the target y is None; give one label a row."
        )
    labels = labels_of(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        warnings.warn(
            "A column-vector y was passed when a 1d array was expected; give y.ravel().",
            DataConversionWarning,
            stacklevel=3,
        )
        labels = labels.ravel()
    if labels.ndim != 1:
        raise InputError(f"y should be a 1d array, got an array of shape {labels.shape} instead.")
    if len(labels) != n:
        raise InputError(f"X has {n} rows and y has {len(labels)} labels; give one label a row.")
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all():
            raise InputError("Input y contains NaN or infinity; leave out rows without a label.")
        if (labels != np.round(labels)).any():
            raise InputError(
                "Unknown label type: continuous. Labels name classes, and these are measurements; "
                "give whole numbers or strings."
            )
    classes, codes = _distinct(labels)
    if len(classes) < 2:
        raise InputError(
            f"y holds only one class ({classes[0]!r}); a classifier needs two or more."
        )
    return classes, torch.from_numpy(codes.astype(np.int64))


def labels_of(y: Any) -> Shaped[np.ndarray, "..."]:
    """Return labels as an array that keeps them as they are."""
    if isinstance(y, Tensor):
        return y.detach().cpu().numpy()
    if not isinstance(y, Sequence) or isinstance(y, str):
        return np.asarray(y)
    are_texts = {isinstance(label, str) for label in y}
    are_nested = any(isinstance(label, list | np.ndarray) for label in y)
    scalars = all(isinstance(label, str | int | float | np.generic) for label in y)
    if are_nested or (scalars and len(are_texts) < 2):
        return np.asarray(y)
    # numpy would convert 1 beside "a" to "1", and tuples to rows
    labels = np.empty(len(y), dtype=object)
    labels[:] = list(y)
    return labels


def _distinct(
    labels: Shaped[np.ndarray, " n"],
) -> tuple[Shaped[np.ndarray, " c"], Int64[np.ndarray, " n"]]:
    if labels.dtype.kind != "O":
        return np.unique(labels, return_inverse=True)
    for label in labels:
        if not isinstance(label, Hashable):
            raise InputError(f"A label is a {type(label).__name__}; labels must be hashable.")
    distinct: list[Any] = list(dict.fromkeys(labels.tolist()))
    with suppress(TypeError):  # labels that cannot be ordered
        distinct = sorted(distinct)
    place = {label: at for at, label in enumerate(distinct)}
    classes = np.empty(len(distinct), dtype=object)
    classes[:] = distinct
    return classes, np.array([place[label] for label in labels.tolist()])


def text_view(
    texts: Any, classes: Shaped[np.ndarray, " c"], like: Float[Tensor, "n d"]
) -> TextView | None:
    """Read the class texts.

    Args:
        texts: A TextView, anchors [c d] in the order of the classes, label -> anchor, or None.
        classes: The distinct labels.
        like: Rows whose length and type the anchors must have.

    Raises:
        InputError: If there is not one anchor a class, as wide as the rows.
    """
    if texts is None or isinstance(texts, TextView):
        return texts
    if isinstance(texts, Mapping):
        missing = [str(label) for label in classes.tolist() if label not in texts]
        if missing:
            raise InputError(f"texts lacks {len(missing)} classes of y: {', '.join(missing[:5])}.")
        texts = [np.asarray(texts[label]) for label in classes.tolist()]
    rows = matrix(texts, "texts").to(like)
    if rows.shape != (len(classes), like.shape[1]):
        raise InputError(
            f"texts should be [{len(classes)} {like.shape[1]}], one anchor a class in the order of "
            f"the sorted labels, got {list(rows.shape)}."
        )
    return Anchors(rows=rows)


def unit_rows(x: Float[Tensor, "n d"], labels: Int64[Tensor, " n"] | None = None) -> Rows:
    """Return rows as methods read them: normalised, with their original norms."""
    return Rows(x=F.normalize(x, dim=-1), norms=x.norm(dim=-1), labels=labels)


def check_method(method: AnyMethod, config: Any) -> None:
    """Refuse methods that read more than one vector an image, or unlabelled images.

    Raises:
        InputError: If the method reads one of these.
    """
    needs = sorted(method.needs(config), key=str)
    more = [n for n in needs if n.kind != "global" and not n.optional]
    reads = [f"{need.key} of every {need.role} image" for need in more]
    if any(need.role == "pool" for need in needs):
        reads.append("unlabelled images")
    if any(need.role == "corpus" for need in needs):
        reads.append("a corpus")
    if method.transductive:
        reads.append("all queries together")
    if reads:
        raise InputError(
            f"{method.name} reads {reads[0]}, which fit(X, y) cannot give it. Train it on a cache "
            f"with heads.evaluate, or choose a method that reads one vector an image."
        )

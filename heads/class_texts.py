"""The class texts of a task as tensors, and the zero-shot classifier that they make.

Imported texts are often unit vectors, so their norm is lost. Methods whose step size depends on it
use a fixed norm instead, and the record of the run says so.
"""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor

from featcache.errors import MissingComponentError
from featcache.wording import Argument, Placeholder
from heads.contract.method import Watched
from heads.contract.rows import TaskView, Tensors
from heads.contract.settings import WithText
from heads.text_view import TextView


def text_tensors(task: TaskView, text: str | None, *, method: str) -> Tensors:
    """Collect the zero-shot classifier of a task: anchors [c d], scale and bias.

    Args:
        task: The task.
        text: One of `TextKind`; None is the data set's default.
        method: Name of the method in the message.

    Raises:
        MissingComponentError: If the data set has no such texts.
    """
    return _tensors(_required(task, method), text, task.support.x)


def single_texts(
    task: TaskView, text: str | None, *, method: str
) -> tuple[Float[Tensor, "m d"], Int64[Tensor, " m"]]:
    """Return every text of a task as a unit row, and its class, where the support is.

    Args:
        task: The task.
        text: One of `AnyTextKind`, where prompts have class -1; None is the data set's default.
        method: Name of the method in the message.

    Raises:
        MissingComponentError: If the data set has no such texts.
    """
    rows, owner = _required(task, method).texts(text)
    return rows.to(task.support.x), owner.to(task.support.x.device)


def _required(task: TaskView, method: str) -> TextView:
    if task.text is None:
        raise MissingComponentError(
            f"Method '{method}' needs class texts and this cache has none. Import the features "
            f"again with their texts (docs/import.md: text_features of an npz file, ",
            Argument("texts", Placeholder("FILE"), of="featcache"),
            ", or ",
            Argument("dataset", Placeholder("NAME"), of="featcache"),
            "); a cache of images gets lost ones back by `featcache repair`. Or train a method "
            "that needs no text: gda, linear-probe, ridge, knn, nearest-mean.",
        )
    return task.text


def rebind_texts(
    params: Tensors, fixed: Tensors, text: TextView, config: WithText
) -> tuple[Tensors, Tensors]:
    """Keep what was learned of images, and take other class texts: the `rebind` of a method."""
    return params, fixed | _tensors(text, config.text, fixed["anchors"])


def _tensors(text: TextView, kind: str | None, like: Tensor) -> Tensors:
    return {
        "anchors": text.anchors(kind).to(like),
        "scale": like.new_tensor(text.logit_scale),
        "bias": like.new_tensor(text.logit_bias),
    }


def zero_shot_logits(fixed: Tensors, x: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
    """Return s x T^T + b from the tensors of `text_tensors`; x is unit."""
    return fixed["scale"] * x @ fixed["anchors"].mT + fixed["bias"]


def raw_text_tensors(task: TaskView, text: str | None, length: float, *, method: str) -> Tensors:
    """Collect a task's texts unnormalised: base [c d], scale, bias and text_factor.

    Args:
        task: The task.
        text: Kind of text; None is the data set's default.
        length: Norm of texts that were imported as unit vectors; CLIP's is about 10.
        method: Name of the method in the message.

    Raises:
        MissingComponentError: If the data set has no such texts.
    """
    tensors = text_tensors(task, text, method=method)
    assert task.text is not None
    factor = length if task.text.norms == "unit" else 1.0
    return {
        "base": task.text.raw_anchors(text).to(tensors["anchors"]) * factor,
        "scale": tensors["scale"],
        "bias": tensors["bias"],
        "text_factor": tensors["scale"].new_tensor(factor),
    }


def start_text_factor(params: Tensors, fixed: Tensors, config: Any, hyper: Any) -> Tensors:
    """Record the norm substituted for that of imported texts; the `start` of a stage."""
    return {"text_factor": fixed["text_factor"]}


def note_text_factor(watched: Sequence[Watched]) -> list[str]:
    """Return a note if the norms of the texts were substituted."""
    factors = {w["text_factor"][0] for w in watched if w.get("text_factor")} - {1.0}
    return [
        f"The class texts came as unit vectors; they were taken {factor:g} times as long."
        for factor in sorted(factors)
    ]

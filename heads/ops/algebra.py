"""Small tensor algebra that several methods share; every function is safe under `torch.func.vmap`.

Labels are compared or used as addresses out of place: no boolean masks, no one_hot, no unique.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from featcache.errors import MissingComponentError
from featcache.wording import Argument, Placeholder
from heads.contract import Kind, Rows, TaskView, Tensors, find_kind
from heads.ops.randomness import generator
from heads.ops.torch_private import may_be_stacked


def is_class(labels: Int64[Tensor, " n"], classes: int) -> Bool[Tensor, "n c"]:
    """Mark each row's own class; a label of -1 marks none."""
    return labels[:, None] == torch.arange(classes, device=labels.device)


def sum_by_label(
    values: Float[Tensor, "n m"], labels: Int64[Tensor, " m"], *, classes: int
) -> Float[Tensor, "n c"]:
    """Sum the columns that share a label: values V for V one-hot, without building V.

    Whole columns are added: five times faster where they lie together in memory, as `affinities`
    leaves them. For labels that differ between stacked tasks V is built: `index_add` would go task
    by task.
    """
    if may_be_stacked(labels):
        return values @ is_class(labels, classes).to(values)
    empty = values.new_zeros(classes, values.shape[0])
    return empty.index_add(0, labels, values.mT).mT


def affinities(x: Float[Tensor, "n d"], keys: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Return x K^T, its columns each in one piece of memory."""
    return (keys @ x.mT).mT


def mean_of_views(rows: Rows, *, raw: bool = False) -> Float[Tensor, "n d"]:
    """Return one unit row an image: the mean of its cached views, or its clean row without any.

    Args:
        rows: The support.
        raw: Average raw features, where a longer one counts more, as released caches do; else
            unit ones.
    """
    views = rows.get("views")
    if views is None:
        return rows.x
    lengths = find_kind(rows.lengths, Kind("views")) if raw else None
    weighed = views if lengths is None else views * lengths[..., None]
    return F.normalize(weighed.mean(dim=1), dim=-1)


def cosine_logits(x: Float[Tensor, "n d"], anchors: Float[Tensor, "c d"]) -> Float[Tensor, "n c"]:
    """Return cosines of rows and anchors that need not be unit yet."""
    return F.normalize(x, dim=-1) @ F.normalize(anchors, dim=-1).mT


def zero_shot_logits(fixed: Tensors, x: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
    """Return s x T^T + b from the tensors of `text_tensors`; x is unit."""
    return fixed["scale"] * x @ fixed["anchors"].mT + fixed["bias"]


def text_tensors(task: TaskView, text: str | None, *, method: str) -> Tensors:
    """Collect the zero-shot classifier of a task: anchors [c d], scale and bias.

    Args:
        task: The task.
        text: One of `TextKind`; None is the data set's default.
        method: Names the asker in the message.

    Raises:
        MissingComponentError: If the data set has no such texts.
    """
    if task.text is None:
        raise MissingComponentError(
            f"Method '{method}' needs class texts and this cache has none. Extract with ",
            Argument("templates", Placeholder("FILE")),
            ", import a file with text_features, or train a method that reads no text: "
            "linear-probe, ridge, knn or nearest-mean.",
        )
    x = task.support.x
    return {
        "anchors": task.text.anchors(text).to(x),
        "scale": x.new_tensor(task.text.logit_scale),
        "bias": x.new_tensor(task.text.logit_bias),
    }


def uniform_by_class(task: TaskView, each: int, bound: float) -> Float[Tensor, "c k"]:
    """Draw `each` numbers within +-bound for every class, from the seed and the class's name.

    So numbering the classes anew changes nothing but the order; of equal names the first, second,
    ... have numbers of their own.
    """
    rows = []
    for label, name in enumerate(task.classes):
        repeated = task.classes[:label].count(name)
        rng = generator(task.seed, name, *([repeated] if repeated else []))
        rows.append(torch.rand(each, generator=rng, dtype=torch.float64))
    return (bound * (2 * torch.stack(rows) - 1)).to(task.support.x)


def weighted_mean(values: Float[Tensor, " n"], weight: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Average rows by weight; padding has weight 0."""
    return (weight * values).sum() / weight.sum()


def cross_entropy(
    logits: Float[Tensor, "n c"], y: Int64[Tensor, " n"], weight: Float[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Return the weighted mean of -log softmax at the labels."""
    return weighted_mean(F.cross_entropy(logits, y.clamp(min=0), reduction="none"), weight)

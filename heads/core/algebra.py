"""Small tensor algebra that several methods share; every function is safe under `torch.func.vmap`.

Labels are compared or used as addresses out of place: no boolean masks, no one_hot, no unique.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from featcache.errors import MissingComponentError
from heads.core.contract import Need, RoleRows, TaskView, Tensors

SHOTS_WITH_VIEWS: frozenset[Need] = frozenset(
    {
        Need(role="query"),
        Need(role="support"),
        Need(role="support", kind="views", recipe="rrc50", optional=True),
    }
)
"""What a method reads that represents a shot by `mean_of_views`."""


def is_class(labels: Int64[Tensor, " n"], classes: int) -> Bool[Tensor, "n c"]:
    """Mark each row's own class; a label of -1 marks none."""
    return labels[:, None] == torch.arange(classes, device=labels.device)


def sum_by_label(
    values: Float[Tensor, "n m"], labels: Int64[Tensor, " m"], *, classes: int
) -> Float[Tensor, "n c"]:
    """Sum the columns that share a label: values V for V one-hot, without building V."""
    empty = values.new_zeros(values.shape[0], classes)
    return empty.index_add(1, labels, values)


def mean_of_views(rows: RoleRows) -> Float[Tensor, "n d"]:
    """Return one unit row an image: the mean of its cached views, or its clean row without any.

    The views are unit rows, so each counts alike; released caches average raw features, where a
    longer one counts more.
    """
    views = rows.get("views")
    return rows.x if views is None else F.normalize(views.mean(dim=1), dim=-1)


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
        text: name, template or description; None is the data set's default.
        method: Names the asker in the message.

    Raises:
        MissingComponentError: If the data set has no such texts.
    """
    if task.text is None:
        raise MissingComponentError(
            f"Method '{method}' needs class texts and this cache has none. Extract with "
            f"--templates FILE, import a file with text_features, or train linear-probe."
        )
    x = task.support.x
    return {
        "anchors": task.text.anchors(text).to(x),
        "scale": x.new_tensor(task.text.logit_scale),
        "bias": x.new_tensor(task.text.logit_bias),
    }


def weighted_mean(values: Float[Tensor, " n"], weight: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Average rows by weight; padding has weight 0."""
    return (weight * values).sum() / weight.sum()


def cross_entropy(
    logits: Float[Tensor, "n c"], y: Int64[Tensor, " n"], weight: Float[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Return the weighted mean of -log softmax at the labels."""
    own = torch.gather(logits, -1, y.clamp(min=0)[:, None])[:, 0]
    return weighted_mean(logits.logsumexp(-1) - own, weight)

"""The discriminant of shots and texts together, beside guided texts: what timo and timo-s share.

    logits = alpha x T~^T + x W^T + b                                      (1)

    x [n d] rows, unit            T~ [c d] guided texts, (2) of `heads.ops.text_guidance`
    W [c d], b [c]                discriminant of the rows and of the texts m_p t_p that are taken

Reference: Li et al., Text and Image Are Mutually Beneficial, AAAI 2025, arXiv:2412.11375.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from heads.class_texts import single_texts
from heads.contract.linear import Linear, of_solved
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import WithText, number
from heads.ops.discriminant import discriminant
from heads.ops.text_guidance import guided_texts, relative_matches, times_taken

ALPHAS = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4)
"""Released values of alpha."""


@dataclass(frozen=True, kw_only=True)
class Guided:
    """The weight of the texts, and how far the shots choose among them."""

    alpha: float = number(1000.0, low=0.0, logits="affine")
    """Weight of the guided texts' cosine, which has no logit scale; 0 leaves the discriminant."""
    gamma: float = number(50.0, low=0.0)
    """Sharpness of the choice among a class's texts; 0 weighs them alike, and so does one text."""


def learn(task: TaskView, config: WithText, share: float, *, method: str) -> Tensors:
    """Match the texts with the shots, and solve the discriminant of both in float64.

    Texts of a class without shots have no match: they are guided alike and no samples.

    Args:
        task: The task.
        config: Kind of text.
        share: Texts that are samples, as a share of those of their class; above 1 the best twice.
        method: Name of the method in messages.

    Returns:
        weight [c d], offset [c]; texts [m d], their owner [m] and relative match [m].

    Raises:
        MissingComponentError: If the data set has no such texts.
    """
    texts, owner = single_texts(task, config.text, method=method)
    total = texts.new_zeros(task.c, texts.shape[1]).double()
    total = total.index_add(0, task.support.y, task.support.mean_of_views().double())
    match = (texts * F.normalize(total, dim=-1).to(texts)[owner]).sum(-1)  # [m]
    has_shots = torch.bincount(task.support.y, minlength=task.c) > 0
    taken = times_taken(match, owner, share, task.c) * has_shots[owner]
    each = task.support.each_view()
    rows, labels = each.x, each.y
    weight, offset = discriminant(
        torch.cat([rows, match[:, None] * texts]),
        torch.cat([labels, owner]),
        task.c,
        torch.cat([rows.new_ones(len(rows)), taken.to(rows)]),
    )
    solved = {"weight": weight.to(rows), "offset": offset.to(rows)}
    relative = relative_matches(match, owner, task.c)
    return solved | {"texts": texts, "owner": owner, "match": relative}


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: WithText, hyper: Guided) -> Tensors:
    """Compute the discriminant of (1), once for the whole grid."""
    return {"x": rows.x, "discriminant": of_solved(fixed).logits(rows.x)}  # [n c]


def combine(
    terms: Tensors, fixed: Tensors, config: WithText, hyper: Guided
) -> Float[Tensor, "n c"]:
    """Equation (1)."""
    c = terms["discriminant"].shape[-1]
    guided = guided_texts(fixed["texts"], fixed["owner"], fixed["match"], hyper.gamma, c)
    return hyper.alpha * (terms["x"] @ guided.mT) + terms["discriminant"]


def linear(params: Tensors, fixed: Tensors, config: WithText, hyper: Guided) -> Linear:
    """Equation (1)."""
    c = len(fixed["weight"])
    guided = guided_texts(fixed["texts"], fixed["owner"], fixed["match"], hyper.gamma, c)
    return of_solved(fixed).plus(Linear(guided, guided.new_zeros(c)), hyper.alpha)

"""TDA: two caches of the queries so far, sure ones that vote for and unsure ones against a class.

    logits = s x T^T + alpha sum_j exp(-beta (1 - x x_j)) [k_j = c]
             - alpha_n sum_i exp(-beta_n (1 - x x_i)) [low < y_ic < 1]              (1)
    y = softmax(s x T^T)     k = argmax y     e = H(y)                              (2)

    x [n d] query rows, in their order      T [c d] class anchors, unit      s logit scale
    j, i rows of the positive and the negative cache when x is answered

Positive cache: of each class k the 3 rows of smallest entropy e so far. Negative cache: the 2 of
smallest among those with 0.2 < e / log2(c) < 0.5. A row is stored before it is answered, so that it
meets itself; `update=after` answers it first. No label is read; answers depend on the order.

Reference: Karmanov et al., Efficient Test-Time Adaptation of Vision-Language Models, CVPR 2024,
arXiv:2403.18293.
Source: released code @e697fb0, by its specification and the logits that it gives; the paper's body
was not read.
Differs from the paper: one view an image, where the release averages 64 of some data sets. alpha
and beta are 2 and 5 everywhere; the release sets them by hand for each data set.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from heads.class_texts import text_tensors, zero_shot_logits
from heads.contract.method import Method, Need
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import WithText, number
from heads.ops import online_memory
from heads.ops.algebra import is_class
from heads.ops.neighbours import neighbours

POSITIVE, NEGATIVE = 3, 2
"""Rows of a class in either cache."""
UNSURE = (0.2, 0.5)
"""Entropy of the negative cache's rows, in nats over the largest in bits, as released."""
LOW = 0.03
"""Probability above which a class is voted against."""


@dataclass(frozen=True, kw_only=True)
class Config(WithText):
    update: Literal["before", "after"] = "before"
    """before: a row is stored, then answered, as released; after: answered, then stored."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    alpha: float = number(2.0, low=0.0)
    """Weight of the positive cache; 0 without the negative one gives zero-shot."""
    beta: float = number(5.0, low=0.0)
    """Sharpness of its affinity."""
    alpha_n: float = number(0.117, low=0.0)
    """Weight of the negative cache."""
    beta_n: float = number(1.0, low=0.0)
    """Sharpness of its affinity."""


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Take the class texts; both caches are empty before the first query."""
    return {}, text_tensors(task, config.text, method=METHOD.name)


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """Walk through the queries in their order; rows that are no queries answer as the nearest."""
    x = rows.together.x
    text = zero_shot_logits(fixed, x)
    log_y = F.log_softmax(text, dim=-1)
    entropy, label = -(log_y.exp() * log_y).sum(-1), log_y.argmax(-1)
    share = entropy / math.log2(text.shape[-1])
    unsure = torch.where((share > UNSURE[0]) & (share < UNSURE[1]), label, -1)
    against = ((log_y > math.log(LOW)) & (log_y < 0)).to(x)  # [n c]
    own = is_class(label, text.shape[-1]).to(x)
    itself = config.update == "before"
    made = {
        "text": text,
        "positive": votes(x, label, entropy, own, POSITIVE, hyper.beta, itself=itself),
        "negative": votes(x, unsure, entropy, against, NEGATIVE, hyper.beta_n, itself=itself),
    }
    if rows.among is None:
        return made
    nearest = neighbours(rows.x, x, 1)[1][:, 0]
    return {name: values[nearest] for name, values in made.items()}


def votes(
    x: Float[Tensor, "n d"],
    label: Int64[Tensor, " n"],
    entropy: Float[Tensor, " n"],
    vote: Float[Tensor, "n c"],
    capacity: int,
    beta: Tensor | float,
    *,
    itself: bool,
) -> Float[Tensor, "n c"]:
    """Sum the votes of the rows that are held when each row is answered, by their affinity.

    Args:
        x: Unit rows in their order.
        label: Class of the memory for each row; -1 is not stored.
        entropy: Of each row.
        vote: What each row votes for once it is held.
        capacity: Rows of a class.
        beta: Sharpness of the affinity.
        itself: A row is stored before it is answered.
    """
    (n, classes), parts = vote.shape, []
    memory = online_memory.empty(classes, capacity, entropy)
    for part in online_memory.chunks(n, classes, capacity, x.element_size()):
        arriving, given = x[part], (label[part], entropy[part])
        old, new = online_memory.held(memory, *given, itself=itself)
        place = memory.place.flatten()
        affinity = torch.exp(-beta * (1 - arriving @ x[place].mT))  # [b cm]
        total = (affinity * old.flatten(1)) @ vote[place]
        affinity = torch.exp(-beta * (1 - arriving @ arriving.mT))  # [b b]
        parts.append(total + (affinity * new) @ vote[part])
        memory = online_memory.arrive(memory, *given, part.start)
    return torch.cat(parts)


def combine(terms: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Float[Tensor, "n c"]:
    """Equation (1)."""
    return terms["text"] + hyper.alpha * terms["positive"] - hyper.alpha_n * terms["negative"]


METHOD = Method(
    name="tda",
    summary="Online: votes of the queries so far, sure ones for and unsure ones against a class.",
    source="released code: Karmanov et al. 2024, arXiv:2403.18293",
    transductive=True,
    online=True,
    needs=lambda config: frozenset({Need(role="query")}),
    prepare=prepare,
    terms=terms,
    combine=combine,
)

"""DMN: a memory of sure queries of each class, read by attention, beside the texts.

    logits = log(softmax(s x T^T) + weight softmax(s cos(x, u_c)))                  (1)
    u_c = sum_j exp(-beta (1 - x m_cj)) m_cj                                        (2)

    x [n d] query rows, in their order      T [c d] class anchors, unit      s logit scale
    m_cj rows held of class c when x is answered, and the text of c, which is always held

Of each class, by the answer of the texts, the memory holds the rows of smallest entropy so far, 50
at most. A row is stored before it is answered, so that it meets itself; `update=after` answers it
first. No label is read; answers depend on the order.

Reference: Zhang et al., Dual Memory Networks, CVPR 2024, arXiv:2403.17589.
Source: released code @c6c218c by a specification of it, and logits that the copy of it in OGA
@b91d449 gives; the paper's body was not read.
Differs from the paper: the dynamic memory alone; its static memory of shots is left out. The weight
of (1) is 1, as in OGA's copy; the release searches it on the test labels.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from heads.class_texts import text_tensors, zero_shot_logits
from heads.contract.method import Method, Need
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import WithText, number
from heads.ops import online_memory
from heads.ops.algebra import is_class
from heads.ops.neighbours import neighbours

EPSILON = 1e-8
"""Added to a probability before its logarithm in the entropy, as released."""


@dataclass(frozen=True, kw_only=True)
class Config(WithText):
    memory: int = field(default=50, metadata={"low": 1})
    """Rows held of each class; 50 as released, 8 in the copy in OGA."""
    update: Literal["before", "after"] = "before"
    """before: a row is stored, then answered, as released; after: answered, then stored."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    beta: float = number(5.5, low=0.0)
    """Sharpness of the attention; 0 takes the mean of what is held."""
    weight: float = number(1.0, low=0.0)
    """Weight of the memory's probabilities; 0 gives zero-shot."""


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Take the class texts; the memory is empty before the first query."""
    return {}, text_tensors(task, config.text, method=METHOD.name)


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """Walk through the queries in their order; rows that are no queries answer as the nearest."""
    x = rows.together.x
    text = zero_shot_logits(fixed, x)
    log_y = F.log_softmax(text, dim=-1)
    y = log_y.exp()
    entropy, label = -(y * (y + EPSILON).log()).sum(-1), y.argmax(-1)
    memory = online_memory.empty(text.shape[-1], config.memory, x)
    parts = []
    n, c = text.shape
    for part in online_memory.chunks(n, c, config.memory, x.element_size()):
        given = label[part], entropy[part]
        old, new = online_memory.held(memory, *given, itself=config.update == "before")
        keys = torch.cat([fixed["anchors"][:, None], x[memory.place]], dim=1)  # [c m+1 d]
        old = F.pad(old, (1, 0), value=True)
        parts.append(attended(x[part], label[part], keys, old, new, hyper.beta))
        memory = online_memory.arrive(memory, *given, part.start)
    made = {"log_y": log_y, "dynamic": fixed["scale"] * torch.cat(parts)}
    if rows.among is None:
        return made
    nearest = neighbours(rows.x, x, 1)[1][:, 0]
    return {name: values[nearest] for name, values in made.items()}


def attended(
    x: Float[Tensor, "b d"],
    label: Int64[Tensor, " b"],
    keys: Float[Tensor, "c m d"],
    old: Bool[Tensor, "b c m"],
    new: Bool[Tensor, "b b"],
    beta: Tensor | float,
) -> Float[Tensor, "b c"]:
    """Return the cosine of each row and its u_c of (2), without building u_c.

    x u_c and |u_c|^2 follow from the products of rows and keys alone. Both are sums over keys that
    were there before these rows, and over these rows themselves.

    Args:
        x: Arriving rows.
        label: Class of each.
        keys: What was held before them, the texts first.
        old: For each row: which of the keys are still held.
        new: For each row: which of the rows are held.
        beta: Sharpness of the attention.
    """
    c, m, d = keys.shape
    product = (x @ keys.reshape(-1, d).mT).reshape(-1, c, m)  # [b c m]
    weight = torch.exp(-beta * (1 - product)) * old
    among = x @ x.mT  # [b b]
    own = torch.exp(-beta * (1 - among)) * new
    of_class = is_class(label, c).to(x)  # [b c]
    dot = (weight * product).sum(-1) + (own * among) @ of_class
    by_class = weight.movedim(0, 1)  # [c b m]
    squared = ((by_class @ (keys @ keys.mT)) * by_class).sum(-1).mT
    # pairs of a row j and a key of its class, and pairs of rows of one class
    row = torch.arange(label.shape[0], device=label.device)
    crossed = (weight[:, label] * product[row, label]).sum(-1)  # [b b]
    same = of_class @ of_class.mT * among
    squared = squared + (own * (2 * crossed + own @ same)) @ of_class
    cosine: Tensor = dot / squared.sqrt()
    return cosine


def combine(terms: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Float[Tensor, "n c"]:
    """Equation (1)."""
    dynamic = F.log_softmax(terms["dynamic"], dim=-1)
    weight = torch.as_tensor(hyper.weight).to(dynamic)
    return torch.logaddexp(terms["log_y"], dynamic + weight.log())


METHOD = Method(
    name="dmn",
    summary="Online: a memory of sure queries of each class, read by attention, beside the texts.",
    source="released code: Zhang et al. 2024, arXiv:2403.17589",
    transductive=True,
    online=True,
    needs=lambda config: frozenset({Need(role="query")}),
    prepare=prepare,
    terms=terms,
    combine=combine,
)

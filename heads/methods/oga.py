"""OGA: Gaussian classes from sure queries so far, as a prior beside the texts' answers.

    logits = log y + log softmax(tau g)                                             (1)
    g_c = x P mu_c - mu_c P mu_c / 2                                                (2)
    mu_c = sum_j m_cj / 8 from two rows of c on, else t_c                           (3)
    P = d (S + tr(S)/(N - 1) I)^-1  for N <= 4 d,  else (S / (N - 1))^+             (4)

    x [n d] query rows, in their order      t [c d] class anchors, unit
    y = softmax(zero-shot logits)           m_cj rows held of class c, at most 8
    S [d d] scatter of the N held rows about their mu (of single rows: the text), centred once more

Queries arrive in batches of 32. Each is stored first: of each class, by the answer of the texts,
the 8 rows of smallest entropy so far are held. Then it is answered. Until a class has three rows,
P = d I. In (3) the sum is divided by the room there is, not by the rows that are held: a mean of
full length would stand so much nearer to every image than the texts of other classes do that these
would lose all their queries. No label is read; answers depend on the order.

Reference: Fuchs et al., Online Gaussian Test-Time Adaptation of Vision-Language Models, CVPR
Workshops 2025, arXiv:2501.04352.
Source: released code @b91d449, by its specification and the assignments that it gives; the paper's
body was not read.
Differs from the paper: nothing known. Differs from the released code: the memory has the type of
the rows (there float16), and (4) is solved, not inverted.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from heads.class_texts import text_tensors, zero_shot_logits
from heads.contract.method import Method, Need, Together
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import WithText, number
from heads.ops import online_memory
from heads.ops.neighbours import neighbours
from heads.ops.online_memory import Memory

CAPACITY = 8
EPSILON = 1e-9
"""Added to a probability before its logarithm in the entropy, as released."""
FEW = 10
"""Queries a class below which published streams have lost to zero-shot."""


@dataclass(frozen=True, kw_only=True)
class Config(WithText):
    batch: int = field(default=32, metadata={"low": 1})
    """Queries that are stored, then answered, together."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    tau: float = number(0.05, low=0.0)
    """Weight of the Gaussian classes; 0 gives zero-shot."""


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Take the class texts; the memory is empty before the first query."""
    return {}, text_tensors(task, config.text, method=METHOD.name)


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """Walk through the queries in their order; rows that are no queries answer as the nearest."""
    x = rows.together.x
    log_y = F.log_softmax(zero_shot_logits(fixed, x), dim=-1)  # [n c]
    y = log_y.exp()
    entropy = -(y * (y + EPSILON).log()).sum(-1)
    # an empty place has the entropy of a uniform answer, which none beats that is no surer
    largest = torch.tensor(float(y.shape[-1])).log().to(entropy)
    label = torch.where(entropy < largest, y.argmax(-1), -1)
    memory = online_memory.empty(y.shape[-1], CAPACITY, x)
    parts = []
    for start in range(0, x.shape[0], config.batch):
        part = slice(start, min(start + config.batch, x.shape[0]))
        memory = online_memory.arrive(memory, label[part], entropy[part], start)
        mean, solved = gaussians(x, memory, fixed["anchors"], seen=part.stop)
        parts.append(x[part] @ solved - (mean * solved.mT).sum(-1) / 2)
    made = {"log_y": log_y, "g": torch.cat(parts)}
    if rows.among is None:
        return made
    nearest = neighbours(rows.x, x, 1)[1][:, 0]
    return {name: values[nearest] for name, values in made.items()}


def gaussians(
    x: Float[Tensor, "n d"], memory: Memory, text: Float[Tensor, "c d"], *, seen: int
) -> tuple[Float[Tensor, "c d"], Float[Tensor, "d c"]]:
    """Return mu of (3), and P mu of (4).

    Args:
        x: All queries; the memory names those that it holds.
        memory: What is held.
        text: Class anchors.
        seen: Queries that came so far, which bounds N.
    """
    (c, d), is_held = text.shape, memory.is_held[..., None].to(x)  # [c 8 1]
    rows = x[memory.place] * is_held  # [c 8 d]
    count = is_held.sum(1)  # [c 1]
    mean = torch.where(count >= 2, rows.sum(1) / CAPACITY, text)
    n = count.sum().clamp_min(2)
    residual = (rows - mean[:, None]) * is_held
    residual = ((residual - residual.sum((0, 1)) / n) * is_held).flatten(0, 1)
    scatter = (residual.mT @ residual).double()
    trace, eye = scatter.diagonal().sum(), torch.eye(d, dtype=scatter.dtype, device=x.device)
    # without scatter P is its pseudo-inverse, 0
    ridge = torch.where(trace > 0, trace / (n - 1), 1.0) * eye
    factor = torch.linalg.cholesky(scatter + ridge)
    solved = d * torch.cholesky_solve(mean.mT.double(), factor) * (trace > 0)
    if min(seen, c * CAPACITY) > 4 * d:
        inverse = torch.linalg.pinv(scatter / (n - 1), hermitian=True)
        solved = torch.where(n <= 4 * d, solved, inverse @ mean.mT.double())
    solved = torch.where((count >= 3).any(), solved, d * mean.mT.double())
    return mean, solved.to(x)


def combine(terms: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Float[Tensor, "n c"]:
    """Equation (1), normalised."""
    prior = F.log_softmax(hyper.tau * terms["g"], dim=-1)
    return F.log_softmax(terms["log_y"] + prior, dim=-1)


def caution(together: Together) -> str:
    """Warn where the stream is too short to learn Gaussians from."""
    if together.rows >= FEW * together.classes:
        return ""
    return (
        f"{together.rows:.4g} queries a stream are fewer than {FEW} a class ({together.classes} "
        f"classes). OGA loses there: measured on 512 queries of 256 classes, 65.0 against 70.1 "
        f"zero-shot."
    )


METHOD = Method(
    name="oga",
    summary="Online: Gaussian classes from sure queries so far, beside the texts.",
    source="released code: Fuchs et al. 2025, arXiv:2501.04352",
    transductive=True,
    online=True,
    caution=caution,
    needs=lambda config: frozenset({Need(role="query")}),
    prepare=prepare,
    terms=terms,
    combine=combine,
)

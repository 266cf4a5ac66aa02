"""SuS-X: TIP-X on a corpus: a cache of retrieved rows, and how alike they look to the class texts.

    logits = s x T^T + b + alpha exp(-beta (1 - x K^T)) V + gamma phi(x) V (1)
    phi_qm = u (h - KL(p(x_q) || p(k_m))) / (h - l)                        (2)
    p(z)   = softmax(z T^T / temperature)                                  (3)

    x [n d] query rows, unit      T [c d] class anchors, unit      s, b logit scale and bias
    K [m d] corpus rows k_m       V [m c] their one-hot pseudo-labels, times their weights
    l, h smallest and largest KL of two corpus rows      u largest minus smallest of their cosines

(2) gives the divergences of the signatures (3) the range of the affinities.

Reference: Udandarao et al., SuS-X: Training-Free Name-Only Transfer of Vision-Language Models,
ICCV 2023, arXiv:2211.16198.
Source: released code @0910683, tipx.py; of the paper the abstract alone was read.
Differs from the paper: the released code takes the ranges of (2) over all queries at once; here
they come from pairs of corpus rows, so that queries are answered one by one. Its votes are
-(smallest affinity + u - phi), which for classes with equally many rows differs from (2) by the
same for every class; (2) leaves a class without rows at 0, where the released code would let it
win. The released grid has 200,000 points; ours has its ranges and 10,000. The defaults without a
search are ours; the temperature is the released one.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from heads.class_texts import text_tensors, zero_shot_logits
from heads.contract.method import Method, Need
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import Grid, WithText, evenly, number
from heads.ops.algebra import affinities, sum_by_label, with_cache
from heads.ops.divergence import divergences, pair_range

PAIRED = 1024
"""Corpus rows, evenly spread, whose pairs with all others give the ranges of (2)."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    alpha: float = number(1.0, low=0.0)
    """Weight of the affinities' votes."""
    beta: float = number(5.5, low=0.0)
    """Sharpness of the affinity; larger trusts only near rows."""
    gamma: float = number(1.0, low=0.0, logits="affine")
    """Weight of the signatures' votes; 0 gives Tip-Adapter on the corpus."""
    temperature: float = number(0.5, above=0.0, prepare=True)
    """Temperature of the softmax over cosines that makes a signature."""


def needs(config: WithText) -> frozenset[Need]:
    """Read the corpus and the queries; no labelled image."""
    return frozenset({Need(role="query"), Need(role="corpus")})


def prepare(task: TaskView, config: WithText, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Memorise the corpus, its signatures and the ranges of (2)."""
    assert task.corpus is not None, "the protocol gives a corpus to methods that need one"
    text = text_tensors(task, config.text, method=METHOD.name)
    keys, anchors = task.corpus.x, text["anchors"]
    signatures = log_signatures(keys, anchors, hyper.temperature)
    low, high = pair_range(
        lambda some: divergences(signatures[some], signatures), len(keys), PAIRED
    )
    near, far = pair_range(lambda some: affinities(keys[some], keys), len(keys), PAIRED)
    scale = (far - near) / (high - low).clamp_min(torch.finfo(keys.dtype).tiny)
    memory = {"keys": keys, "labels": task.corpus.y, "weights": task.corpus.row_weights}
    return {}, text | memory | {"signatures": signatures, "high": high, "per_nat": scale}


def log_signatures(
    x: Float[Tensor, "n d"], anchors: Float[Tensor, "c d"], temperature: Tensor | float
) -> Float[Tensor, "n c"]:
    """Return the logarithms of (3)."""
    return torch.log_softmax(x @ anchors.mT / temperature, dim=-1)


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: WithText, hyper: Hyper) -> Tensors:
    """Compute the three products of (1), once for the whole grid."""
    asked = log_signatures(rows.x, fixed["anchors"], hyper.temperature)
    phi = fixed["per_nat"] * (fixed["high"] - divergences(asked, fixed["signatures"]))  # [n m]
    c = fixed["anchors"].shape[-2]
    return {
        "text": zero_shot_logits(fixed, rows.x),
        "distance": 1 - affinities(rows.x, fixed["keys"]),
        "signature": sum_by_label(phi * fixed["weights"], fixed["labels"], classes=c),
    }


def combine(terms: Tensors, fixed: Tensors, config: WithText, hyper: Hyper) -> Float[Tensor, "n c"]:
    """Equation (1)."""
    cache = with_cache(
        terms["text"],
        terms["distance"],
        fixed["labels"],
        alpha=hyper.alpha,
        beta=hyper.beta,
        weights=fixed["weights"],
    )
    return cache + hyper.gamma * terms["signature"]


METHOD = Method(
    name="sus-x",
    summary="Tip-Adapter on a corpus, with votes by likeness of class signatures; no shots.",
    source="released code: Udandarao et al. 2023, arXiv:2211.16198",
    needs=needs,
    prepare=prepare,
    terms=terms,
    combine=combine,
    weighs_corpus=True,
    post_grid=Grid(
        {"beta": evenly(1, 50, 20), "alpha": evenly(0.1, 50, 10), "gamma": evenly(0.1, 30, 50)}
    ),
    holds=("keys", "signatures"),
)

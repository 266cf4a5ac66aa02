"""Regularized linear adapter: a square map of the image features, held near the identity.

    u      = normalise(x W)                                                (1)
    logits = s u T0^T + b                                                  (2)
    loss   = CE(logits, y) + lam |W - I|^2                                 (3)

    x [n d] rows, unit            T0 [c d] class anchors, unit     s, b logit scale and bias
    W [d d] map, trained, starts at I

Every step takes all shots, each in one of its cached views. lam is 1 / K for K shots a class unless
it is set, so that nothing has to be chosen on validation rows.

Reference: Fahes et al., CLIP's Visual Embedding Projector is a Few-shot Cornucopia (ProLIP), 2024,
arXiv:2410.05270.
Source: released code, astra-vision/ProLIP @18facf5, methods/RegLinearAdapter.py: equations, 300
steps of Adam with eps 1e-4 under a cosine.
Differs from the paper: float32 instead of float16; each shot draws its own view in a step, where
the released code takes the next of 300 for all shots at once. The released code was run at four
learning rates from 1e-5 to 1e-2; the default is one of them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from heads.class_texts import rebind_texts, text_tensors, zero_shot_logits
from heads.contract.method import Method, shots_with_views
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import WithText, number
from heads.contract.stages import cross_entropy_of, one_stage
from heads.training.optim import adamw
from heads.training.samplers import full


@dataclass(frozen=True, kw_only=True)
class Config(WithText):
    steps: int = number(300, low=0)
    """Steps of training, each on all shots."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    lr: float = number(1e-3, above=0.0)
    """Adam's step size at the start; falls to 0 as a cosine."""
    lam: float = number(1 / 16, low=0.0)
    """How strongly W is held at the identity; 1 / K unless it is set."""


def defaults(shots: int | None) -> dict[str, float]:
    """Return lam = 1 / K; for all shots that of the benchmarks' largest K, 16."""
    return {"lam": 1 / (shots or 16)}


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Start at the identity."""
    x = task.support.x
    return {"map": torch.eye(x.shape[1]).to(x)}, text_tensors(task, config.text, method=METHOD.name)


def held(params: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Tensor:
    """Return the second summand of (3)."""
    moved = params["map"] - torch.eye(params["map"].shape[-1]).to(params["map"])
    return hyper.lam * moved.square().sum()


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """Equations (1) and (2)."""
    mapped = F.normalize(rows.x @ params["map"], dim=-1)
    return {"logits": zero_shot_logits(fixed, mapped)}


METHOD = Method(
    name="regularized-linear",
    summary="Square map of the image features, held near the identity by 1 / shots.",
    source="released code: Fahes et al. 2024, arXiv:2410.05270",
    needs=shots_with_views,
    stages=lambda config: one_stage(
        loss=cross_entropy_of(terms, penalty=held),
        batches=full(),
        update=adamw(eps=1e-4, weight_decay=0.0, schedule="cosine"),
    ),
    prepare=prepare,
    terms=terms,
    defaults=defaults,
    rebind=rebind_texts,
)

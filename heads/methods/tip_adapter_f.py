"""Tip-Adapter-F: Tip-Adapter whose keys are trained.

    logits = s x T^T + alpha exp(-beta (1 - x K^T)) V                      (1)
    loss   = CE(logits, y) over K, at train_alpha and the initial beta     (2)

    x [n d] rows, unit            T [c d] class anchors, unit      s logit scale
    K [m d] keys, trained, start at the support rows               V [m c] one-hot labels, fixed

After training alpha and beta are searched once more. How far the keys move depends on train_alpha,
so it is searched too, over the values that were released (`init_alpha` of the configurations; their
`init_beta` is always 1): 1.17 for ImageNet, Food101, OxfordPets and SUN397, 2 for DTD and EuroSAT,
3 for Caltech101, StanfordCars and UCF101, 5 for FGVCAircraft, 10 for OxfordFlowers.

Reference: Zhang et al., Tip-Adapter, ECCV 2022, arXiv:2207.09519, section 3.2.
Source: paper and released code @d0e2d6f: AdamW 1e-3 with eps 1e-4, cosine per step, batch 256,
20 epochs.
Differs from the paper: the last epoch is kept; the released code keeps the one that is best on the
test set, so its published figures are optimistic. Each step trains on a cached augmented view,
where there are any, in place of a fresh augmentation. The released code knows train_alpha of its
eleven data sets; here validation chooses it. Keys and grid as in tip-adapter.
"""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from heads.class_texts import text_tensors, zero_shot_logits
from heads.contract.method import Method, shots_with_views
from heads.contract.rows import Batch, Rows, TaskView, Tensors
from heads.contract.settings import Grid, WithText, evenly, number
from heads.contract.stages import one_stage, stateless
from heads.ops.algebra import affinities, cross_entropy, with_cache
from heads.training.optim import adamw
from heads.training.samplers import shuffled


@dataclass(frozen=True, kw_only=True)
class Config(WithText):
    variant: Literal["code", "paper"] = "code"
    """How cached views make a key: `code` averages raw features, `paper` unit ones."""
    epochs: int = number(20, low=0)
    """Passes over the support; the released code takes 100 for EuroSAT."""
    batch: int = number(256, low=1)
    """Rows of a step."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    lr: float = number(1e-3, above=0.0)
    """AdamW's step size at the start; falls to 0 as a cosine."""
    train_alpha: float = number(1.17, above=0.0)
    """Weight of the cache term in training."""
    alpha: float = number(1.17, low=0.0, logits="affine")
    """Weight of the cache term; 0 gives zero-shot."""
    beta: float = number(1.0, low=0.0, logits="smooth")
    """Sharpness of the affinity; larger trusts only near keys."""


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Start the keys at the shots."""
    fixed = {"labels": task.support.y} | text_tensors(task, config.text, method=METHOD.name)
    return {"keys": task.support.mean_of_views(raw=config.variant == "code")}, fixed


@stateless
def loss(params: Tensors, fixed: Tensors, batch: Batch, config: Config, hyper: Hyper) -> Tensor:
    """Equation (2)."""
    found, labels = terms(params, fixed, batch, config, hyper), fixed["labels"]
    logits = with_cache(**found, labels=labels, alpha=hyper.train_alpha, beta=hyper.beta)
    return cross_entropy(logits, batch.y, batch.weights)


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """Compute the two products of (1), once for the whole alpha-beta grid."""
    distance = 1 - affinities(rows.x, params["keys"])
    return {"text": zero_shot_logits(fixed, rows.x), "distance": distance}  # [n c], [n m]


def combine(terms: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Float[Tensor, "n c"]:
    """Equation (1)."""
    return with_cache(**terms, labels=fixed["labels"], alpha=hyper.alpha, beta=hyper.beta)


METHOD = Method(
    name="tip-adapter-f",
    summary="Tip-Adapter with trained keys.",
    source="paper and released code: Zhang et al. 2022, arXiv:2207.09519",
    needs=shots_with_views,
    stages=lambda config: one_stage(
        loss=loss,
        batches=shuffled(config.batch),
        update=adamw(eps=1e-4, weight_decay=0.01, schedule="cosine"),
    ),
    prepare=prepare,
    terms=terms,
    combine=combine,
    train_grid=Grid({"train_alpha": [1.17, 2.0, 3.0, 5.0, 10.0]}),
    post_grid=Grid({"beta": evenly(0.1, 12, 200), "alpha": evenly(0.1, 5, 20)}),
    holds=("keys",),
)

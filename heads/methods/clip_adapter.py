"""CLIP-Adapter: a bottleneck beside the image feature, mixed in by a fixed ratio.

    u      = ratio relu(relu(x D^T) U^T) + (1 - ratio) x                   (1)
    logits = s normalise(u) T^T + b                                        (2)
    loss   = CE(logits, y) over D and U                                    (3)

    x [n d] rows                  T [c d] class anchors, unit      s, b logit scale and bias
    D [h d], U [d h] trained, h = d / 4; both start as torch.nn.Linear does

The released code feeds raw features. Without biases (1) is homogeneous, so the length of x cancels
in (2) and unit rows give the same logits and the same gradients.

Reference: Gao et al., CLIP-Adapter: Better Vision-Language Models with Feature Adapters, IJCV 2024,
arXiv:2110.04544, section 3.2 with the visual adapter alone.
Source: paper and released code @9ac913a, with the training recipe of CoOp that it points to: SGD,
momentum 0.9, decay 5e-4, cosine by epoch after one epoch at 1e-5, batch 32, 50 epochs at 1 shot,
100 up to 4, 200 beyond, the last incomplete batch of an epoch left out.
Differs from the paper: ratio stays at the released 0.2 unless set; the paper searches it for each
data set. CoOp's step size is searched here. Where CoOp's epochs are more than 3,000 steps, fewer
are taken: 30 of 200 for 196 classes of 16 shots; `epochs` sets any number. Each step trains on a
cached augmented view, where there are any, in place of a fresh augmentation.
"""

from dataclasses import dataclass, field

import torch
from torch.nn import functional as F

from heads.class_texts import rebind_texts, text_tensors
from heads.contract.method import Method, shots_with_views
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import Grid, WithText, number
from heads.contract.stages import Sizes, cross_entropy_of, one_stage
from heads.ops.randomness import linear_start
from heads.training.optim import dassl, sgd
from heads.training.samplers import shuffled

STEPS = 3_000
"""Steps of the usual schedule at most, in whole epochs."""


@dataclass(frozen=True, kw_only=True)
class Config(WithText):
    epochs: int | None = field(default=None, metadata={"low": 0})
    """Passes over the support; None takes CoOp's number for the shots, up to STEPS steps."""
    batch: int = number(32, low=1)
    """Rows of a step."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    lr: float = number(2e-3, above=0.0)
    """SGD's step size after the warm-up; falls as a cosine."""
    ratio: float = number(0.2, low=0.0, high=1.0)
    """Share of the adapter; 0 gives zero-shot."""


def steps(sizes: Sizes, config: Config) -> int:
    """Count the batches of all epochs."""
    by_shots = 50 if sizes.shots == 1 else 100 if sizes.shots <= 4 else 200
    usual = min(by_shots, max(1, STEPS // sizes.per_epoch))
    return (usual if config.epochs is None else config.epochs) * sizes.per_epoch


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Draw the bottleneck's start from the task's seed."""
    x = task.support.x
    d = x.shape[1]
    hidden = max(1, d // 4)
    rng = torch.Generator().manual_seed(task.seed)
    params = {
        "down": linear_start(rng, hidden, d).to(x),  # [h d]
        "up": linear_start(rng, d, hidden).to(x),  # [d h]
    }
    return params, text_tensors(task, config.text, method=METHOD.name)


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """Equations (1) and (2)."""
    x = rows.x
    adapted = F.relu(F.relu(x @ params["down"].mT) @ params["up"].mT)  # [n d]
    mixed = F.normalize(hyper.ratio * adapted + (1 - hyper.ratio) * x, dim=-1)
    return {"logits": fixed["scale"] * mixed @ fixed["anchors"].mT + fixed["bias"]}


METHOD = Method(
    name="clip-adapter",
    summary="A trained bottleneck beside the image feature.",
    source="paper and released code: Gao et al. 2021, arXiv:2110.04544",
    needs=shots_with_views,
    stages=lambda config: one_stage(
        loss=cross_entropy_of(terms),
        batches=shuffled(config.batch, drop_last=True),
        steps=steps,
        update=sgd(momentum=0.9, weight_decay=5e-4, schedule=dassl()),
    ),
    prepare=prepare,
    terms=terms,
    train_grid=Grid({"lr": [2e-3, 1e-2, 1e-1]}),
    rebind=rebind_texts,
)

"""Cross-modal linear probe: the class texts are further shots of one linear classifier.

    logits = s x W^T                                                       (1)
    loss   = mean CE(logits, y) over half a batch of images and half a batch of texts   (2)
    answers come from (1 - wise_ft) W + wise_ft T                          (3)

    x [n d] images or texts, unit       W [c d] trained, starts at the anchors T [c d], unit
    s       logit scale, 100            T normalised mean of the class's texts

Texts are drawn one by one (each template of each class is one), independently of the images, both
shuffled. With `init=random` W starts uniform within +-1/sqrt(d).

Reference: Lin et al., Multimodality Helps Unimodality: Cross-Modal Few-Shot Learning with
Multimodal Models, CVPR 2023, arXiv:2301.06267.
Source: released code @064bb98: AdamW with a linear warm-up of 50 steps from 1e-5 and a
cosine over 12,800, lr in {1e-3, 1e-4}, weight decay in {0, 0.01, 1e-4}, batch in {8, 32}, and
validation every 100 steps, of which the best is kept. (3) is its WiSE-FT at 0.5, reported beside.
Differs from the paper: its body was not read. From the released code: the defaults search fewer
points and end a run whose validation no longer rises; the page says what that costs and how to set
the released search. Of looks that are equally good the latest is kept, theirs is the first. Images
come in one of their cached views, where there are any; theirs as the centre crop and its mirror
image. A half batch larger than the images or texts there are takes all of them; theirs leaves that
size out.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from heads.class_texts import text_tensors
from heads.contract.linear import Linear
from heads.contract.method import Method, shots_with_views
from heads.contract.rows import Batch, Rows, TaskView, Tensors
from heads.contract.settings import Grid, WithText, number
from heads.contract.stages import one_stage, stateless
from heads.ops.algebra import cross_entropy
from heads.ops.randomness import uniform_by_class
from heads.training.optim import adamw, dassl
from heads.training.samplers import shuffled


@dataclass(frozen=True, kw_only=True)
class Config(WithText):
    init: Literal["zero-shot", "random"] = "zero-shot"
    """Where W starts."""
    batch: int = number(32, low=2)
    """Rows of a step, half of them texts."""
    steps: int = number(12_800, low=0)
    """Steps of training at most."""
    patience: int = number(10, low=0)
    """Looks at validation (every 100 steps) without a better one that end a run; 0 never does."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    lr: float = number(1e-3, above=0.0)
    """AdamW's step size after the warm-up; falls as a cosine."""
    weight_decay: float = number(0.01, low=0.0)
    """AdamW's."""
    scale: float = number(100.0, above=0.0)
    """Factor on the products of (1); CLIP's logit scale."""
    wise_ft: float = number(0.0, low=0.0, high=1.0)
    """Share of T in the classifier that answers."""


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Start at the class texts, or at random."""
    anchors = text_tensors(task, config.text, method=METHOD.name)["anchors"]
    assert task.text is not None
    texts, owner = task.text.texts(config.text)
    start, d = anchors.clone(), anchors.shape[1]
    if config.init == "random":
        start = uniform_by_class(task.classes, task.seed, d, d**-0.5).to(anchors)
    fixed = {"anchors": anchors, "texts": texts.to(anchors), "owner": owner.to(anchors.device)}
    return {"weight": start}, fixed


@stateless
def loss(params: Tensors, fixed: Tensors, batch: Batch, config: Config, hyper: Hyper) -> Tensor:
    """Equation (2)."""
    drawn = batch.beside["texts"]
    x = torch.cat([batch.x, fixed["texts"][drawn]])
    y = torch.cat([batch.y, fixed["owner"][drawn]])
    weight = torch.cat([batch.weights, torch.ones_like(drawn, dtype=batch.weights.dtype)])
    return cross_entropy(hyper.scale * x @ params["weight"].mT, y, weight)


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """Compute the products of (1) with both classifiers of (3)."""
    x = rows.x
    return {"learned": x @ params["weight"].mT, "zero_shot": x @ fixed["anchors"].mT}  # [n c]


def combine(terms: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Float[Tensor, "n c"]:
    """Equations (1) and (3)."""
    learned = (1 - hyper.wise_ft) * terms["learned"]
    return hyper.scale * (learned + hyper.wise_ft * terms["zero_shot"])


def linear(params: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Linear:
    """Equations (1) and (3)."""
    weight = torch.lerp(params["weight"], fixed["anchors"], hyper.wise_ft)
    return Linear(hyper.scale * weight, weight.new_zeros(len(weight)))


METHOD = Method(
    name="cross-modal-linear-probe",
    summary="Linear classifier that learns from images and class texts alike.",
    source="released code: Lin et al. 2023, arXiv:2301.06267",
    needs=shots_with_views,
    stages=lambda config: one_stage(
        loss=loss,
        batches=shuffled(
            config.batch - config.batch // 2,
            drop_last=True,
            beside=(("texts", config.batch // 2),),
        ),
        update=adamw(
            weight_decay="weight_decay",
            schedule=dassl(50, low=1e-5, shape="linear", by="step"),
        ),
        keep="best-val",
        look=100,
        patience=config.patience,
    ),
    prepare=prepare,
    terms=terms,
    combine=combine,
    train_grid=Grid({"lr": [1e-3, 1e-4]}),
    training_only=("owner", "texts"),
    linear=linear,
)

"""ZS-LP: a linear probe by cosine that starts at the class texts.

    logits = s x normalise(W)^T + b                                        (1)
    loss   = CE(logits, y) over W                                          (2)

    x [n d] rows, unit            W [c d] class weights, trained, start at the texts T [c d],
    s, b logit scale and bias     un-normalised: their length divides the steps of their direction

Nothing is chosen on validation, and the last step is kept.

Reference: Silva-Rodriguez et al., A Closer Look at the Few-Shot Adaptation of Large
Vision-Language Models, CVPR 2024, arXiv:2312.12730, section 4.
Source: released code @2b18ea4: SGD 0.1 with momentum 0.9 (Dassl's default), no weight decay, batch
256, 300 epochs, cosine by epochs after one at 1e-5; T is the mean of un-normalised text features.
All cached views of all shots are shuffled together, and an epoch has as many batches as one pass
over the images.
Differs from the paper: its body was not read. From the released code: it caches 20 random crops of
8 to 100 % of the area; here those views stand in that the cache has, and without any the clean
images. Imported texts whose length is lost are taken `text_length` times as long.
"""

from dataclasses import dataclass

from torch import Tensor

from heads.class_texts import note_text_factor, raw_text_tensors, start_text_factor
from heads.contract import (
    Batch,
    Method,
    Rows,
    Stage,
    TaskView,
    Tensors,
    WithText,
    number,
    shots_with_views,
)
from heads.ops.algebra import cosine_logits, cross_entropy
from heads.training.optim import dassl, sgd
from heads.training.samplers import by_epochs, view_pool


@dataclass(frozen=True, kw_only=True)
class Config(WithText):
    """What changes a branch or the number of steps."""

    epochs: int = number(300, low=0)
    """Passes as long as the support."""
    batch: int = number(256, low=1)
    """Rows of a step."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    """Floats of training."""

    lr: float = number(0.1, above=0.0)
    """Step size after the first epoch; falls as a cosine."""
    text_length: float = number(10.0, above=0.0, prepare=True)
    """Length given to texts whose own is lost."""


def stages(config: Config) -> tuple[Stage, ...]:
    """Train the weights."""
    return (
        Stage(
            trains=frozenset({"weight"}),
            loss=loss,
            batches=view_pool(config.batch, drop_last=True),
            steps=by_epochs,
            update=sgd(momentum=0.9, schedule=dassl()),
            start=start_text_factor,
            watch=("text_factor",),
        ),
    )


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Start at the texts."""
    fixed = raw_text_tensors(task, config.text, hyper.text_length, method=METHOD.name)
    return {"weight": fixed["base"].clone()}, fixed


def loss(
    params: Tensors, fixed: Tensors, state: Tensors, batch: Batch, config: Config, hyper: Hyper
) -> tuple[Tensor, Tensors]:
    """Equation (2)."""
    logits = terms(params, fixed, batch, config, hyper)["logits"]
    return cross_entropy(logits, batch.y, batch.weights), state


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """Equation (1)."""
    cosine = cosine_logits(rows.x, params["weight"])  # [n c]
    return {"logits": fixed["scale"] * cosine + fixed["bias"]}


METHOD = Method(
    name="zs-lp",
    summary="Cosine linear probe that starts at the class texts; chooses nothing on validation.",
    source="released code: Silva-Rodriguez et al. 2024, arXiv:2312.12730",
    config=Config,
    hyper=Hyper,
    needs=shots_with_views,
    stages=stages,
    prepare=prepare,
    terms=terms,
    notes=note_text_factor,
    training_only=("base", "text_factor"),
)

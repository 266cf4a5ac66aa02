"""TaskRes: the class texts stay, and a residual beside each is trained.

    T'     = T + alpha R                                                   (1)
    logits = s x normalise(T')^T + b                                       (2)
    loss   = CE(logits, y) over R                                          (3)

    x [n d] rows, unit            T [c d] class texts, un-normalised       s, b logit scale and bias
    R [c d] residual, trained, starts at 0 (logits are zero-shot)

Reference: Yu et al., Task Residual for Tuning Vision-Language Models, CVPR 2023, arXiv:2211.10277.
Source: released code @293cc9e and the settings of its scripts: Adam 2e-3 (ImageNet: 2e-4), batch
256, alpha 0.5 (Flowers: 1), 100 epochs up to 4 shots and 200 above, cosine by epochs after one at
1e-5; from Dassl's defaults weight decay 5e-4, which in Adam joins the gradient.
T is the mean of un-normalised text features.
Differs from the paper: its body was not read. From the released code: imported texts whose length
is lost are taken `text_length` times as long; the text projection that it can load fine-tuned (the
enhanced base) is not built; each step trains on a cached augmented view, where there are any, in
place of a fresh augmentation.
"""

from dataclasses import dataclass, field

from heads.class_texts import note_text_factor, raw_text_tensors, start_text_factor
from heads.contract.linear import Linear, of_cosines
from heads.contract.method import Method, shots_with_views
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import WithText, number
from heads.contract.stages import Sizes, cross_entropy_of, one_stage
from heads.ops.algebra import cosine_logits
from heads.training.optim import adam, dassl
from heads.training.samplers import shuffled


@dataclass(frozen=True, kw_only=True)
class Config(WithText):
    epochs: int | None = field(default=None, metadata={"low": 0})
    """Passes over the support; None is 100 up to 4 shots, 200 above."""
    batch: int = number(256, low=1)
    """Rows of a step."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    lr: float = number(2e-3, above=0.0)
    """Adam's step size after the first epoch; falls as a cosine."""
    alpha: float = number(0.5, low=0.0)
    """Weight of the residual; 0 gives zero-shot."""
    text_length: float = number(10.0, above=0.0, prepare=True)
    """Length given to texts whose own is lost."""


def steps(sizes: Sizes, config: Config) -> int:
    """Count the batches of all epochs."""
    usual = 100 if sizes.shots <= 4 else 200
    return sizes.per_epoch * (usual if config.epochs is None else config.epochs)


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Start without residual."""
    fixed = raw_text_tensors(task, config.text, hyper.text_length, method=METHOD.name)
    return {"residual": fixed["base"].new_zeros(fixed["base"].shape)}, fixed


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """Equations (1) and (2)."""
    texts = fixed["base"] + hyper.alpha * params["residual"]  # [c d]
    return {"logits": fixed["scale"] * cosine_logits(rows.x, texts) + fixed["bias"]}


def linear(params: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Linear:
    """Equations (1) and (2)."""
    return of_cosines(fixed, fixed["base"] + hyper.alpha * params["residual"])


METHOD = Method(
    name="taskres",
    summary="A trained residual beside each class text.",
    source="released code: Yu et al. 2023, arXiv:2211.10277",
    needs=shots_with_views,
    stages=lambda config: one_stage(
        loss=cross_entropy_of(terms),
        batches=shuffled(config.batch, drop_last=True),
        steps=steps,
        update=adam(weight_decay=5e-4, schedule=dassl()),
        start=start_text_factor,
        watch=("text_factor",),
    ),
    prepare=prepare,
    terms=terms,
    notes=note_text_factor,
    training_only=("text_factor",),
    linear=linear,
)

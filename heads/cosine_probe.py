"""The linear probe by cosine that starts at the class texts: what zs-lp and clap share.

    logits = s x normalise(W)^T + b                                        (1)

    x [n d] rows, unit            W [c d] class weights, trained, start at the texts,
    s, b logit scale and bias     un-normalised: their length divides the steps of their direction

Training is that of the released code of Silva-Rodriguez et al., CVPR 2024, arXiv:2312.12730,
@2b18ea4: SGD with momentum 0.9, cosine by epochs after one at 1e-5, all views of all shots
shuffled together.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from heads.class_texts import raw_text_tensors, start_text_factor
from heads.contract.linear import Linear, of_cosines
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import WithText, number
from heads.contract.stages import Stage, cross_entropy_of, one_stage
from heads.ops.algebra import cosine_logits
from heads.training.optim import dassl, sgd
from heads.training.samplers import view_pool


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


def at_texts(
    task: TaskView, config: Config, hyper: Hyper, *, method: str
) -> tuple[Tensors, Tensors]:
    """Build (params, fixed): the weight [c d] at the texts, and what `raw_text_tensors` collects.

    Raises:
        MissingComponentError: If the data set has no such texts.
    """
    fixed = raw_text_tensors(task, config.text, hyper.text_length, method=method)
    return {"weight": fixed["base"].clone()}, fixed


def train_weight(config: Config, penalty: Callable[..., Tensor] | None = None) -> tuple[Stage, ...]:
    """Train the weight in one round by cross-entropy; `penalty` as in `cross_entropy_of`."""
    return one_stage(
        loss=cross_entropy_of(terms, penalty=penalty),
        batches=view_pool(config.batch, drop_last=True),
        update=sgd(momentum=0.9, schedule=dassl()),
        start=start_text_factor,
        watch=("text_factor",),
    )


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """Equation (1)."""
    cosine = cosine_logits(rows.x, params["weight"])  # [n c]
    return {"logits": fixed["scale"] * cosine + fixed["bias"]}


def linear(params: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Linear:
    """Equation (1)."""
    return of_cosines(fixed, params["weight"])

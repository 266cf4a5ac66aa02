"""Zero-shot CLIP: the class texts are the classifier.

    logits = s x T^T + b                                                   (1)

    x [n d] query rows, unit      T [c d] class anchors, unit
    s logit scale                 b logit bias, 0 for softmax-trained models

Reference: Radford et al., Learning Transferable Visual Models From Natural Language Supervision,
ICML 2021, arXiv:2103.00020, section 3.1; the anchor as normalise(mean_j normalise(e_j)) over
texts j, as in Tip-Adapter's released classifier.
Source: paper and released code. Differs from the paper: nothing.
"""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from heads.core.algebra import text_tensors, zero_shot_logits
from heads.core.contract import Grid, Need, Stage, TaskView, Tensors

name = "zero-shot"
summary = "Class texts as the classifier; no shots."
source = "paper and released code: Radford et al. 2021, arXiv:2103.00020"
transductive = False


@dataclass(frozen=True, kw_only=True)
class Config:
    """What changes a branch."""

    text: Literal["name", "template", "description"] | None = None
    """What the anchors are made of; None is the data set's default."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    """Nothing to choose."""


train_grid = Grid()
post_grid = Grid()


def needs(config: Config) -> frozenset[Need]:
    """Query rows only."""
    return frozenset({Need(role="query")})


def stages(config: Config) -> tuple[Stage, ...]:
    """Train nothing."""
    return ()


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Take the class texts."""
    return {}, text_tensors(task, config.text, method=name)


def terms(params: Tensors, fixed: Tensors, query: Tensors, config: Config, hyper: Hyper) -> Tensors:
    """Equation (1)."""
    return {"zero_shot": zero_shot_logits(fixed, query["x"])}


def combine(terms: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Float[Tensor, "n c"]:
    """Hand the logits on."""
    return terms["zero_shot"]

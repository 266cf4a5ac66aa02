"""LP++: a linear probe and a weight for each class text, with step sizes read off the data.

    logits_c = x . w_c + b_c + a_c (x . t_c)                               (1)
    loss     = mean_i CE(logits_i, y_i), over all shots in every step      (2)
    W, b     by momentum 0.9 at the rate 4 n / lambda_max(X^T X)           (3)
    a_c     <- a_c - n / (4 max_c sum_i (x_i . t_c)^2) G_c, every 10 steps (4)

    x [d] row, unit               X [n d] shots            t_c [d] class anchor, unit
    W [c d], trained, w_c starts at the sum of the class's shots
    b [c], trained, starts at random within +-1/sqrt(d)
    a [c], trained, starts at 250 times the mean cosine of shots and their own text, class by class
    G [c] gradient of (2) by a: with `variant=code` the sum of those of all steps so far, with
          `variant=clean` that of the step alone

Reference: Huang et al., LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP, CVPR 2024,
arXiv:2404.02285.
Source: released code @4d1b771, linear_probe_p2.py; equations and constants are its own. It never
sets the gradient of a back to zero, which is `variant=code`, the default.
As there, 300 steps are taken and the one that is best on validation is kept, of equals the latest
(theirs is K images a class: `--selection k-shot-val`).
Differs from the paper: its body was not read. From the released code: a shot is its clean image,
theirs one random crop; a class without shots starts at w = 0 and does not count in the start of a.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from heads.class_texts import text_tensors
from heads.contract.linear import Linear
from heads.contract.method import Method
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import WithText, number
from heads.contract.stages import cross_entropy_of, one_stage
from heads.ops.algebra import largest_eigenvalue
from heads.ops.randomness import uniform_by_class
from heads.training.samplers import full

MOMENTUM = 0.9


@dataclass(frozen=True, kw_only=True)
class Config(WithText):
    variant: Literal["code", "clean"] = "code"
    """Which gradient moves a."""
    steps: int = number(300, low=0)
    """Steps over all shots."""
    every: int = number(10, low=1)
    """Steps between two steps of a."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    boost: float = number(250.0, low=0.0, prepare=True)
    """Start of a over the mean cosine of shots and their own text."""


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Start at the sums of the shots, and read the two rates of (3) and (4) off them."""
    x, labels = task.support.x, task.support.y
    n, d = x.shape
    anchors = text_tensors(task, config.text, method=METHOD.name)["anchors"]
    cosines = x @ anchors.mT  # [n c]
    own = cosines.gather(1, labels[:, None])[:, 0]
    count = torch.bincount(labels, minlength=task.c)
    mean_own = x.new_zeros(task.c).index_add(0, labels, own) / count.clamp(min=1)
    fixed = {
        "anchors": anchors,
        "rate": 4 * n / largest_eigenvalue(x),
        "alpha_rate": n / (4 * cosines.square().sum(0).max()),
    }
    params = {
        "weight": x.new_zeros(task.c, d).index_add(0, labels, x),
        "bias": uniform_by_class(task.classes, task.seed, 1, d**-0.5).to(task.support.x)[:, 0],
        "alpha": (hyper.boost * mean_own.sum() / (count > 0).sum()).expand(task.c).clone(),
    }
    return params, fixed


@dataclass(frozen=True)
class LipschitzSteps:
    """Equations (3) and (4)."""

    elementwise: ClassVar[bool] = False

    def init(self, params: Tensors) -> Tensors:
        """Start without momentum."""
        return {name: torch.zeros_like(p) for name, p in params.items()}

    def step(
        self,
        params: Tensors,
        grads: Tensors,
        state: Tensors,
        *,
        step: int,
        steps: int,
        config: Config,
        hyper: Any,
        fixed: Tensors,
        per_epoch: int = 1,
    ) -> tuple[Tensors, Tensors]:
        """Move W and b, and now and then a; all gradients are of the same logits."""
        kept = {n: MOMENTUM * state[n] + grads[n] for n in ("weight", "bias")}
        moved = {n: params[n] - fixed["rate"] * kept[n] for n in kept}
        kept["alpha"] = state["alpha"] + grads["alpha"]
        slope = kept["alpha"] if config.variant == "code" else grads["alpha"]
        moved["alpha"] = params["alpha"]
        if (step + 1) % config.every == 0:
            moved["alpha"] = params["alpha"] - fixed["alpha_rate"] * slope
        return moved, kept


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """Equation (1)."""
    x = rows.x
    probe = x @ params["weight"].mT + params["bias"]  # [n c]
    return {"logits": probe + params["alpha"] * (x @ fixed["anchors"].mT)}


def linear(params: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Linear:
    """Equation (1)."""
    return Linear(params["weight"] + params["alpha"][:, None] * fixed["anchors"], params["bias"])


METHOD = Method(
    name="lp++",
    summary="Linear probe beside weighted class texts; its step sizes follow from the shots.",
    source="released code: Huang et al. 2024, arXiv:2404.02285",
    stages=lambda config: one_stage(
        loss=cross_entropy_of(terms),
        batches=full(augment=False),
        update=LipschitzSteps(),
        keep="best-val",
        look=1,
    ),
    prepare=prepare,
    terms=terms,
    training_only=("rate", "alpha_rate"),
    linear=linear,
)

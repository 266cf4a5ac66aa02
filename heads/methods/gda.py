"""GDA: Gaussian discriminant analysis with one shared covariance, beside the zero-shot classifier.

    logits = s x T^T + alpha (x W^T + b)                                   (1)
    W = M P        b_c = log(1/c) - 1/2 mu_c P mu_c^T                      (2)
    P = d ((n - 1) S + tr(S) I)^+                                          (3)

    x [q d] query rows, unit      T [c d] class anchors, unit      s logit scale
    M [c d] class means mu_c      S [d d] covariance of the rows about their class means
    P [d d] precision after Kubokawa and Srivastava                n rows

Every augmented view of a shot is a row of its own. Rows of a corpus have weights: means and S are
weighted, and n is the sum of the weights. (3) is solved, not inverted: the trace makes the
matrix positive definite. Rows without scatter (one shot, no views) leave the zero-shot classifier.

Reference: Wang et al., A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation, ICLR 2024,
arXiv:2402.04087.
Source: released code @560fe21, main_few_shots.py; the paper's body was not read.
Differs from the paper: solved in float64, where the released code takes a pseudo-inverse in
float32; a class without shots takes the mean of all rows, where the released code gives NaN.
Weights of corpus rows are ours.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from heads.class_texts import text_tensors, zero_shot_logits
from heads.contract.method import Method, shots_with_views
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import Grid, WithText, number
from heads.ops.discriminant import discriminant


@dataclass(frozen=True, kw_only=True)
class Hyper:
    alpha: float = number(1.0, low=0.0)
    """Weight of the discriminant; 0 gives zero-shot."""


def prepare(task: TaskView, config: WithText, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Solve (2) and (3) in float64."""
    labels = task.support.y
    rows, views = task.support.x, task.support.get("views")
    if views is not None:
        rows, labels = views.flatten(0, 1), labels.repeat_interleave(views.shape[1])
    weight, offset = discriminant(rows, labels, task.c, task.support.weights)
    solved = {"weight": weight.to(rows), "offset": offset.to(rows)}
    return {}, solved | text_tensors(task, config.text, method=METHOD.name)


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: WithText, hyper: Hyper) -> Tensors:
    """Compute the two classifiers of (1), once for all alpha."""
    gaussian = rows.x @ fixed["weight"].mT + fixed["offset"]
    return {"zero_shot": zero_shot_logits(fixed, rows.x), "discriminant": gaussian}  # [n c]


def combine(terms: Tensors, fixed: Tensors, config: WithText, hyper: Hyper) -> Float[Tensor, "n c"]:
    """Equation (1)."""
    return terms["zero_shot"] + hyper.alpha * terms["discriminant"]


METHOD = Method(
    name="gda",
    summary="Gaussian discriminant analysis of the shots beside the zero-shot classifier.",
    source="released code: Wang et al. 2024, arXiv:2402.04087",
    needs=shots_with_views,
    prepare=prepare,
    terms=terms,
    combine=combine,
    weighs_corpus=True,
    post_grid=Grid({"alpha": [1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0]}),
)

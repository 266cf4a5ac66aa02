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

Where the data set has no texts, or with `fusion=false`, x W^T + b answers alone: a linear
discriminant with (3) as its shrinkage. Rows without scatter then take P = I: the nearest
class mean.

Reference: Wang et al., A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation, ICLR 2024,
arXiv:2402.04087.
Source: released code @560fe21, main_few_shots.py; the paper's body was not read.
Differs from the paper: solved in float64, where the released code takes a pseudo-inverse in
float32; a class without shots takes the mean of all rows, where the released code gives NaN. The
discriminant without texts is ours; the paper always adds it to the zero-shot classifier.
Weights of corpus rows are ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from heads.class_texts import text_tensors, zero_shot_logits
from heads.contract.linear import Linear, of_anchors, of_solved
from heads.contract.method import Method, Watched, shots_with_views
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import Grid, WithText, number
from heads.ops.discriminant import discriminant, nearest_mean


@dataclass(frozen=True, kw_only=True)
class Config(WithText):
    fusion: bool = True
    """Add the zero-shot logits where there are texts; without them alpha changes no answer."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    alpha: float = number(1.0, low=0.0)
    """Weight of the discriminant; 0 gives zero-shot."""


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Solve (2) and (3) in float64."""
    each = task.support.each_view()
    rows, labels = each.x, each.y
    weight, offset = discriminant(rows, labels, task.c, each.weights)
    missing = task.text is None and config.text is None
    alone = missing or not config.fusion
    if alone and not bool(weight.any()):
        weight, offset = nearest_mean(rows, labels, task.c)
    solved = {"weight": weight.to(rows), "offset": offset.to(rows)}
    if alone:
        return {}, solved | {"without_texts": rows.new_tensor(float(missing))}
    return {}, solved | text_tensors(task, config.text, method=METHOD.name)


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """Compute the two classifiers of (1), or the second alone, once for all alpha."""
    gaussian = of_solved(fixed).logits(rows.x)  # [n c]
    if "anchors" not in fixed:
        return {"discriminant": gaussian}
    return {"zero_shot": zero_shot_logits(fixed, rows.x), "discriminant": gaussian}


def combine(terms: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Float[Tensor, "n c"]:
    """Equation (1); alpha orders nothing where the discriminant stands alone."""
    if "zero_shot" not in terms:
        return terms["discriminant"]
    return terms["zero_shot"] + hyper.alpha * terms["discriminant"]


def notes(watched: Sequence[Watched]) -> list[str]:
    """Return a note if the data set has no texts."""
    if any(1.0 in one.get("without_texts", ()) for one in watched):
        return ["The data set has no class texts: the discriminant answered alone."]
    return []


def linear(params: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Linear:
    """Equation (1), or the discriminant alone."""
    gaussian = of_solved(fixed)
    if "anchors" not in fixed:
        return gaussian
    return of_anchors(fixed, fixed["anchors"]).plus(gaussian, hyper.alpha)


METHOD = Method(
    name="gda",
    summary="Gaussian discriminant analysis beside the zero-shot classifier, or without texts.",
    source="released code: Wang et al. 2024, arXiv:2402.04087",
    needs=shots_with_views,
    prepare=prepare,
    terms=terms,
    combine=combine,
    weighs_corpus=True,
    watch=("without_texts",),
    notes=notes,
    training_only=("without_texts",),
    post_grid=Grid({"alpha": [1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0]}),
    linear=linear,
)

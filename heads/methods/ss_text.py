"""SS-Text: class weights in closed form, the text and the shots of each class added.

    w_c    = l t_c + s / (N lambda_c) sum of the rows x_i of class c       (1)
    lambda = max(1 / N, 0.001) for all classes                variant=ss-text        (2)
    lambda = max(1 / n_c, 0.001) for class c                  variant=ss-text-plus   (3)
    w_c'   = w_c - normalise(2 w_c - mean_k w_k)              variant=ss-text-plus   (4)
    logits = s x normalise(W)^T + b                                        (5)

    x [n d] rows, unit            T [c d] class anchors, unit      s, b logit scale and bias
    l      length of the texts beside rows of length 1             N, n_c  shots in all, of class c

Up to 1000 shots (2) makes (1) w_c = l t_c + s sum x_i: the class mean, and a text that counts l / s
shots. By (3) and equal shots it counts c l / s. A class without shots keeps its text.

Texts and images lie apart in CLIP's space: where classes mix the two differently, those with more
text lose their queries to the others. Both do that if shots are not balanced. (4) subtracts a
vector of length 1, which turns around a weight that is about as short: it is refused.

Reference: Silva-Rodriguez et al., IPMI 2025, arXiv:2506.06076 (SS-Text); MICCAI 2025,
arXiv:2506.17500 (SS-Text+).
Source: released code of both, jusiro/FCA @7ef90c5 and jusiro/SS-Text @4ff4897; the papers' bodies
were not read.
Differs from the paper: made for medical models, whose features enter with their own lengths; here
rows and texts are unit, and l is a setting whose defaults are ours. A shot with views is the mean
of them. lambda from the zero-shot probabilities, an option of the released code, is not built.
"""

import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from torch.nn import functional as F

from featcache.errors import FitWarning, UsageError
from featcache.wording import Setting
from heads.class_texts import text_tensors
from heads.contract.linear import of_anchors
from heads.contract.method import Method, shots_with_views
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import WithText, number

LEAST = 1e-3
"""Smallest lambda, as released."""
LENGTHS = {"ss-text": 30.0, "ss-text-plus": 0.1}
"""l / s by variant: of ss-text the best of seven on validation rows of caltech50 and imagenet256,
of ss-text-plus about the length of CLIP's texts beside its s of 100."""
SHORT_TEXTS = {"ss-text": 5.0, "ss-text-plus": 0.05}
"""l / s by variant below which answers were worse than zero-shot on those rows."""
SHORT_WEIGHT = 1.5
"""Length of a weight below which (4) is refused: at 1.25 no answer was right, from 1.8 on most."""


@dataclass(frozen=True, kw_only=True)
class Config(WithText):
    variant: Literal["ss-text", "ss-text-plus"] = "ss-text"
    """Equation (2), or (3) and (4)."""
    repel: bool = True
    """Move weights apart by (4); only of ss-text-plus."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    text_length: float = number(0.0, low=0.0, prepare=True)
    """Length of the texts beside unit rows; 0 takes 30 times the logit scale for ss-text and 0.1
    times for ss-text-plus, which are 3000 and 10 for CLIP."""


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Add texts and shots, and normalise the sums."""
    text = text_tensors(task, config.text, method=METHOD.name)
    rows, labels = task.support.mean_of_views(), task.support.y
    counts = torch.bincount(labels, minlength=task.c)
    anchors, scale = text["anchors"].double(), float(text["scale"])
    length = hyper.text_length or scale * LENGTHS[config.variant]
    warn_of_mixing(length, scale, counts, config.variant)
    sums = scale * torch.zeros_like(anchors).index_add(0, labels, rows.double())
    weight = mixed(length * anchors, sums, counts, config.variant)
    if config.variant == "ss-text-plus" and config.repel:
        check_lengths(weight)
        weight = apart(weight)
    unit = F.normalize(weight, dim=-1).to(rows)
    return {}, {"weight": unit, "scale": text["scale"], "bias": text["bias"]}


def mixed(
    texts: Float64[Tensor, "c d"],
    sums: Float64[Tensor, "c d"],
    counts: Int64[Tensor, " c"],
    variant: str,
) -> Float64[Tensor, "c d"]:
    """Equation (1) by (2) or (3); `sums` of the shots are already times s."""
    n = counts.sum().double().clamp_min(1)
    if variant == "ss-text":
        return texts + sums / (n * (1 / n).clamp_min(LEAST))
    penalty = (1 / counts.double().clamp_min(1)).clamp_min(LEAST)
    return texts + sums / (n * penalty)[:, None]


def apart(weight: Float64[Tensor, "c d"]) -> Float64[Tensor, "c d"]:
    """Equation (4)."""
    return weight - F.normalize(2 * weight - weight.mean(0), dim=-1)


def check_lengths(weight: Float64[Tensor, "c d"]) -> None:
    """Refuse (4) where it turns weights around.

    Raises:
        UsageError: If a weight is about as short as what (4) subtracts.
    """
    shortest = float(weight.norm(dim=-1).min())
    if shortest < SHORT_WEIGHT:
        raise UsageError(
            f"ss-text-plus subtracts a vector of length 1 from every class weight, and one is only "
            f"{shortest:.2g} long: its sign could turn. Give ",
            Setting("text_length", "10"),
            ", or leave that step out with ",
            Setting("repel", "false"),
            ".",
        )


def warn_of_mixing(length: float, scale: float, counts: Int64[Tensor, " c"], variant: str) -> None:
    """Warn where texts were measured to count too little, or too differently between classes.

    Args:
        length: Of the texts.
        scale: Logit scale; it lengthens the shots.
        counts: Shots of each class.
        variant: That of the Config.
    """
    few, many = int(counts.min()), int(counts.max())
    least = scale * SHORT_TEXTS[variant]
    if length < least:
        warnings.warn(
            f"With text_length={length:g} texts hardly count beside the shots of {variant}, which "
            f"was then below zero-shot on real data. Leave text_length out, or set it to {least:g} "
            f"or more.",
            FitWarning,
            stacklevel=3,
        )
    if 2 * few <= many:
        warnings.warn(
            f"ss-text weighs a class's shots against its text by their number, here {few} to "
            f"{many}: classes with few shots lose their queries. Train clap or proker instead.",
            FitWarning,
            stacklevel=3,
        )


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """Equation (5)."""
    return {"logits": fixed["scale"] * rows.x @ fixed["weight"].mT + fixed["bias"]}


METHOD = Method(
    name="ss-text",
    summary="The text and the shots of each class added, in closed form; nothing is searched.",
    source="released code: Silva-Rodriguez et al. 2025, arXiv:2506.06076, arXiv:2506.17500",
    needs=shots_with_views,
    prepare=prepare,
    terms=terms,
    linear=lambda params, fixed, config, hyper: of_anchors(fixed, fixed["weight"]),
)

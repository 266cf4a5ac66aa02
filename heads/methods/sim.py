"""SiM: ridge regression on the cosines with prompts; the names of the classes are not read.

    L = X G^T        W = (L^T L + lam I)^-1 L^T Y                          (1)
    logits = 100 (x G^T) W                                                 (2)

    X [n d] support rows, unit    Y [n c] one-hot labels           x [q d] query rows, unit
    G [p d] prompts, unit: any texts, of whatever class or of none

(1) is solved by the smaller of two systems: with M = G^T G

    G^T W = M X^T (X M X^T + lam I)^-1 Y = M (X^T X M + lam I)^-1 X^T Y    (3)

so that a head is one vector a class, however many prompts there are.

Reference: Vocabulary-free few-shot learning for Vision-Language Models, 2025, arXiv:2506.04005.
Source: paper, by its equations. The released code @46b253f (AGPL-3.0) gave golden values; nothing
of it is in ours.
Differs from the paper: the prompts are the user's choice. The paper takes the ImageNet classes,
each the mean of seven templates, or the nouns of WordNet; here a prompt is one text: a sentence of
no class (`text=prompt`), or a text that the data set has. Solved in float64; the released code
rounds W to float16. lam is not searched, as in the paper.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from featcache.keys import AnyTextKind
from heads.class_texts import single_texts
from heads.contract.linear import Linear
from heads.contract.method import Method
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import number
from heads.ops.algebra import is_class

SCALE = 100.0
"""Factor of (2); it orders nothing."""


@dataclass(frozen=True, kw_only=True)
class Config:
    text: AnyTextKind | None = None
    """The texts that are prompts; `prompt` are those of no class, None the data set's default."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    lam: float = number(0.1, above=0.0, prepare=True)
    """Strength of the penalty; the paper's for 1000 prompts, and 0.2 for those of WordNet."""


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Solve (1) in float64.

    Raises:
        MissingComponentError: If the data set has no such texts.
    """
    x = task.support.x
    prompts, _ = single_texts(task, config.text, method=METHOD.name)
    weight = solve(x.double(), task.support.y, prompts.double(), task.c, hyper.lam)
    return {}, {"weight": SCALE * weight.to(x)}


def solve(
    x: Float64[Tensor, "n d"],
    labels: Int64[Tensor, " n"],
    prompts: Float64[Tensor, "p d"],
    classes: int,
    lam: float,
) -> Float64[Tensor, "c d"]:
    """Return the transpose of (3).

    Example:
        >>> eye = torch.eye(2).double()
        >>> solve(eye, torch.tensor([1, 0]), eye, 2, lam=1.0)
        tensor([[0.0000, 0.5000],
                [0.5000, 0.0000]], dtype=torch.float64)
    """
    gram, y = prompts.mT @ prompts, is_class(labels, classes).double()
    n, d = x.shape
    if n <= d:
        system = x @ gram @ x.mT
        system.diagonal().add_(lam)
        solved = x.mT @ torch.linalg.solve(system, y)
    else:
        system = x.mT @ x @ gram
        system.diagonal().add_(lam)
        solved = torch.linalg.solve(system, x.mT @ y)
    weight: Tensor = (gram @ solved).mT
    return weight


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """Equation (2)."""
    logits: Float[Tensor, "n c"] = rows.x @ fixed["weight"].mT
    return {"logits": logits}


def linear(params: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Linear:
    """Equation (2)."""
    weight = fixed["weight"]
    return Linear(weight, weight.new_zeros(len(weight)))


METHOD = Method(
    name="sim",
    summary="Ridge regression on the cosines with prompts; does not need the names of the classes.",
    source="paper: arXiv:2506.04005",
    prepare=prepare,
    terms=terms,
    linear=linear,
)

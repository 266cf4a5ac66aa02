"""LFA: one square map of the image features onto the class texts, from a rotation and refined.

    W0     = (1 - beta) Q + beta I          Q = argmin over rotations of |X Q - T[y]|^2     (1)
    L      = mean_i mean_k max(0, |u_i - t_y| - |u_i - t_k| + (1 - t_k . t_y) / 4)          (2)
    logits = s cos(x W, T) + b                                                              (3)

    X [n d] support rows, unit    y their classes                  T [c d] class texts, unit
    W [d d] map, trained on (2), starts at W0                      u = normalise(x W)
    t_k  the 3 texts nearest to u_i; its own adds 0                s, b logit scale and bias

Every step takes three quarters of the rows, drawn anew; with probability 1/2 Gaussian noise is
added to them, and with probability 1/2 some of their channels are left out. `loss=triplet` pulls
x W (not normalised) to its own text against the best-scoring wrong one, by Euclidean distance and a
margin of 0.1; `loss=contrastive` is the cross-entropy of x W T^T / 0.07.

beta is chosen among 25 values on three random splits of the support into four fifths and one fifth.
Other classes (`rebind`) are answered by a running mean of W that starts at I.

Reference: Ouali et al., Black Box Few-Shot Adaptation for Vision-Language models, ICCV 2023,
arXiv:2304.01752.
Source: released code @2ee3bba, by its specification: AdamW 5e-4, decay 5e-4, cosine to 1e-7, the
last step is kept.
Differs from the paper: 200 steps for all data sets, where the released code has 30 to 2000, set by
hand on what is not said. Q is unique: where no row speaks, it is the rotation nearest to I. All 25
values of beta share the same three splits. The text of a class is one anchor. Noise comes from a
bank of as many rows as the support has, drawn once and shifted at random in every step. `batch`
bounds the rows of a step. A cached view, where there are any, stands in for one of five crops. The
losses on CSLS and on orthogonality, off in the released code, are left out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from heads.class_texts import rebind_texts, text_tensors
from heads.contract.method import Method, Watched, shots_with_views
from heads.contract.rows import Batch, Rows, TaskView, Tensors
from heads.contract.settings import WithText, number
from heads.contract.stages import Stage, Update, one_stage, stateless
from heads.ops.algebra import cosine_logits, cross_entropy, weighted_mean
from heads.ops.alignment import rotation
from heads.ops.randomness import generator
from heads.ops.reranking import hardest_triplet, reranking
from heads.text_view import TextView
from heads.training.optim import adamw, cosine_to
from heads.training.samplers import shuffled

BETAS = [i / 24 for i in range(25)]
"""Values of beta that are compared."""
SPLITS = 3
"""Random splits of the support that compare them."""
USUAL = 0.9
"""beta where there is a single row; the released advice for new classes."""
BANK = 4096
"""Rows of noise at most."""
CHUNK = 4096
"""Held-out rows that are scored at a time."""
TEMPERATURE = 0.07
"""That of `loss=contrastive`."""


@dataclass(frozen=True, kw_only=True)
class Config(WithText):
    loss: Literal["reranking", "triplet", "contrastive"] = "reranking"
    """What is minimised: (2), or one of the other losses."""
    beta: float | None = field(default=None, metadata={"low": 0.0, "high": 1.0})
    """Share of the identity in (1); None compares 25 values on splits of the support."""
    steps: int = number(200, low=0)
    """Steps of training, whatever the number of shots; 0 answers by W0."""
    batch: int = number(2048, low=1)
    """Rows of a step at most."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    lr: float = number(5e-4, above=0.0)
    """AdamW's step size at the start; falls to 1e-7 as a cosine."""
    noise: float = number(0.035, low=0.0)
    """Standard deviation of the noise, in every channel."""
    drop: float = number(0.05, low=0.0, high=0.9)
    """Share of the channels that are left out."""
    margin: float = number(0.1, low=0.0)
    """By how much the own text should be closer; `loss=triplet`."""


@dataclass(frozen=True, kw_only=True)
class Averaged:
    """AdamW on the map, and beside it the running mean that answers for other classes."""

    inner: Update
    elementwise: ClassVar[bool] = True

    def init(self, params: Tensors) -> Tensors:
        """Return the state for the map."""
        return self.inner.init({"map": params["map"]})

    def step(
        self,
        params: Tensors,
        grads: Tensors,
        state: Tensors,
        *,
        step: int,
        steps: int,
        config: Any,
        hyper: Any,
        fixed: Tensors,
        per_epoch: int = 1,
    ) -> tuple[Tensors, Tensors]:
        """Move the map, then its mean: ever less, until half of the steps are done."""
        moved, state = self.inner.step(
            {"map": params["map"]},
            {"map": grads["map"]},
            state,
            step=step,
            steps=steps,
            config=config,
            hyper=hyper,
            fixed=fixed,
            per_epoch=per_epoch,
        )
        half = steps / 2
        kept = 0.9 + 0.1 * (1 - math.exp(-5 * min(step, half) / half))
        return moved | {"mean": torch.lerp(params["mean"], moved["map"], 1 - kept)}, state


def stages(config: Config) -> tuple[Stage, ...]:
    """Refine the map in one round."""
    return one_stage(
        loss=loss,
        batches=shuffled(config.batch, drop_last=True, share=0.75),
        update=Averaged(inner=adamw(weight_decay=5e-4, schedule=cosine_to(1e-7))),
    )


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Solve (1), and draw the noise of training."""
    fixed = text_tensors(task, config.text, method=METHOD.name)
    x, y, weights = task.support.mean_of_views(), task.support.y, task.support.row_weights
    target = fixed["anchors"][y]
    beta = config.beta
    if beta is None:
        beta = cross_validated(x, y, fixed["anchors"], weights, task.seed)
    eye = torch.eye(x.shape[1], device=x.device, dtype=torch.float64)
    start = ((1 - beta) * rotation(x, target, weights) + beta * eye).to(x)
    fixed |= {"beta": x.new_tensor(beta)} | noise_bank(task.seed, config.steps, x)
    return {"map": start, "mean": eye.to(x)}, fixed


def cross_validated(
    x: Float[Tensor, "n d"],
    y: Int64[Tensor, " n"],
    anchors: Float[Tensor, "c d"],
    weights: Float[Tensor, " n"],
    seed: int,
) -> float:
    """Return the first beta with the best accuracy on held-out rows, in % to two places."""
    n = len(x)
    if n < 2:
        return USUAL
    rng = generator(seed, "lfa", "beta")
    correct, held = x.new_zeros(len(BETAS), dtype=torch.int64), 0
    for _ in range(SPLITS):
        order = torch.randperm(n, generator=rng).to(x.device)
        fitted, rest = order[: max(1, int(0.8 * n))], order[max(1, int(0.8 * n)) :]
        turn = rotation(x[fitted], anchors[y[fitted]], weights[fitted]).to(x)
        held += len(rest)
        for part in torch.split(rest, CHUNK):
            plain, turned = x[part] @ anchors.mT, x[part] @ (turn @ anchors.mT)  # [r c]
            for i, beta in enumerate(BETAS):  # the length of x W0 does not change the order
                answer = torch.lerp(turned, plain, beta).argmax(-1)
                correct[i] += (answer == y[part]).sum()
    accuracy = [round(100 * hits / held, 2) for hits in correct.tolist()]
    return BETAS[accuracy.index(max(accuracy))]


def noise_bank(seed: int, steps: int, x: Float[Tensor, "n d"]) -> Tensors:
    """Draw the noise of training: rows of it, and what each step does with them."""
    rng = generator(seed, "lfa", "noise")
    rows, d, steps = min(len(x), BANK), x.shape[1], max(1, steps)
    drawn = {
        "gaussian": torch.randn(rows, d, generator=rng),
        "uniform": torch.rand(rows, d, generator=rng),
        "is_noisy": torch.randint(2, (steps,), generator=rng).float(),
        "is_dropped": torch.randint(2, (steps,), generator=rng).float(),
    }
    shift = torch.randint(rows, (steps,), generator=rng).to(x.device)
    return {name: t.to(x) for name, t in drawn.items()} | {"shift": shift}


def disturbed(fixed: Tensors, batch: Batch, hyper: Hyper) -> Float[Tensor, "b d"]:
    """Return the rows of a step with its noise and without the channels that it leaves out."""

    def of_step(name: str) -> Tensor:
        return fixed[name].index_select(0, batch.step[None])[0]

    bank = fixed["gaussian"]
    row = (batch.index + of_step("shift")) % bank.shape[0]
    x = batch.x + hyper.noise * of_step("is_noisy") * bank[row]
    share = hyper.drop * of_step("is_dropped")
    return x * (fixed["uniform"][row] >= share) / (1 - share)


@stateless
def loss(params: Tensors, fixed: Tensors, batch: Batch, config: Config, hyper: Hyper) -> Tensor:
    """Equation (2), or another loss."""
    h, texts = disturbed(fixed, batch, hyper) @ params["map"], fixed["anchors"]
    if config.loss == "contrastive":
        return cross_entropy(h @ texts.mT / TEMPERATURE, batch.y, batch.weights)
    if config.loss == "triplet":
        each = hardest_triplet(h, texts, batch.y, hyper.margin)
    else:
        each = reranking(h, texts, batch.y)
    return weighted_mean(each, batch.weights)


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """Equation (3)."""
    cosine = cosine_logits(rows.x @ params["map"], fixed["anchors"])
    return {"logits": fixed["scale"] * cosine + fixed["bias"]}  # [n c]


def rebind(
    params: Tensors, fixed: Tensors, text: TextView, config: Config
) -> tuple[Tensors, Tensors]:
    """Take other texts, and the running mean of the map; without training the map itself."""
    params, fixed = rebind_texts(params, fixed, text, config)
    return (params | {"map": params["mean"]} if config.steps else params), fixed


def notes(watched: Sequence[Watched]) -> list[str]:
    """Return a note on every beta that was used."""
    used = sorted({round(one["beta"][0], 3) for one in watched if one.get("beta")})
    return [f"Share of the identity at the start (beta): {', '.join(f'{b:g}' for b in used)}."]


METHOD = Method(
    name="lfa",
    summary="Square map onto the class texts: a rotation, refined by a re-ranking loss.",
    source="released code: Ouali et al. 2023, arXiv:2304.01752",
    needs=shots_with_views,
    stages=stages,
    prepare=prepare,
    terms=terms,
    watch=("beta",),
    notes=notes,
    rebind=rebind,
    training_only=("beta", "gaussian", "uniform", "is_noisy", "is_dropped", "shift"),
)

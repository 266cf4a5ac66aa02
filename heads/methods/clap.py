"""CLAP: ZS-LP whose weights are held at the class texts, each class as far as its text is right.

    logits = s x normalise(W)^T + b                                        (1)
    loss   = CE(logits, y) + mean_c l_c |w_c - t_c|^2                      (2)
    l_c    = mean over the class's shots, in all views, of softmax(logits at W = T)_c   (3)

    x [n d] rows, unit            W [c d] class weights, trained, start at the texts T [c d],
    s, b logit scale and bias     un-normalised

l is computed once. Nothing is chosen on validation, and the last step is kept.

Reference: Silva-Rodriguez et al., A Closer Look at the Few-Shot Adaptation of Large
Vision-Language Models, CVPR 2024, arXiv:2312.12730, section 5.
Source: released code @2b18ea4, whose scripts leave l as it starts (constraint `l2`); training as in
zs-lp: SGD 0.1, momentum 0.9, batch 256, 300 epochs, cosine by epochs after one at 1e-5.
Differs from the paper: its body was not read. From the released code: a class without shots gets
the mean l of the others, where theirs divides by 0; its further constraints, which change l in
training, are not built. Views and texts whose length is lost as in zs-lp.
"""

import torch
from torch import Tensor

from heads import cosine_probe
from heads.class_texts import note_text_factor
from heads.contract.method import Method, shots_with_views
from heads.contract.rows import TaskView, Tensors
from heads.cosine_probe import Config, Hyper, terms
from heads.ops.algebra import cosine_logits


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Start at the texts, and see by (3) how far each is right about its shots."""
    params, fixed = cosine_probe.at_texts(task, config, hyper, method=METHOD.name)
    labels = task.support.y
    views = task.support.get("views")
    rows = task.support.x[:, None] if views is None else views  # [n v d]
    total, count = rows.new_zeros(task.c), torch.bincount(labels, minlength=task.c)
    for v in range(rows.shape[1]):
        logits = fixed["scale"] * cosine_logits(rows[:, v], fixed["base"])  # [n c]
        own = logits.softmax(-1).gather(1, labels[:, None])[:, 0]
        total = total.index_add(0, labels, own / rows.shape[1])
    each = total / count.clamp(min=1)
    l2 = torch.where(count > 0, each, each.sum() / (count > 0).sum())  # [c]
    return params, fixed | {"l2": l2}


def held(params: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Tensor:
    """Return the second summand of (2)."""
    moved = (params["weight"] - fixed["base"]).square().sum(-1)  # [c]
    return (fixed["l2"] * moved).mean()


METHOD = Method(
    name="clap",
    summary="Cosine linear probe held at the class texts; chooses nothing on validation.",
    source="released code: Silva-Rodriguez et al. 2024, arXiv:2312.12730",
    needs=shots_with_views,
    stages=lambda config: cosine_probe.train_weight(config, held),
    prepare=prepare,
    terms=terms,
    notes=note_text_factor,
    training_only=("base", "l2", "text_factor"),
    linear=cosine_probe.linear,
)

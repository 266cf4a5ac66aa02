"""CC-CDFSL: two cycles between class texts and image patches, beside cross-entropy on the views.

    p      = normalise(patch A), A the least squares of the patches onto the texts of their images,
             penalised by ridge |A - I|^2 (`patch_map`)                                  (0)
    g(x)   = normalise(x + step relu(x D) U)                               (1)
    P      = g(anchors), the k of p closest to each text, of an image's views or of
             all images' (`anchors`)                                                     (2)
    u_j    = normalise(sum_i a_ji P_i),      a_j = pick_i(t_j . P_i / tau)               (3)
    L_text = -mean_j log b_jj,               b_j = softmax_k(u_j . t_k / tau_back)       (4)
    r_n    = normalise(sum_j q_nj t_j),      q_n = pick_j(P_n . t_j / tau_back)          (5)
    y_n    = normalise(sum_m w_nm P_m),      w_n = pick_m(r_n . P_m / tau)               (6)
    L_img  = 1 - mean_n P_n . keep(y_n)                                    (7)
    logits = s g(x) t^T + b                                                (8)
    loss   = CE over all views + lam_text L_text + lam_image L_img
             + identity (mean(1 - g(x) . x) + mean_n(1 - P_n . anchor_n)
             + mean_j(1 - t_j . T0_j))                                     (9)

    adapter=lora moves the last block in the place of g, with h [n t w] the cached tokens of images:

    g(x), p = f(h), f the block with LoRA in its attention; x, anchor as f does at its start (10)

    x [n d] rows, unit                        D [d r], U [r d] trained, U starts at 0: g(x) = x
    t [c d] class texts, unit, trained, start at the anchors T0           s, b logit scale and bias
    pick    softmax (`cycle=soft`); its argmax (`literal`); the argmax forwards and the softmax
            backwards (`straight-through`)
    keep    stops the gradient with `soft`; else it is the identity

In (6) a patch looks among the other views of its own image (`retrieval=cross-view`), all of its
image (`intra-image`) or all of the step (`all-images`), never at itself. With pick = argmax (4) is
the paper's 1 - mean_j t_j . t_argmax(b_j). `control=augment-only` trains the same on the same views
with lam_text = lam_image = 0: what the cycles gain is measured against that.

Reference: Zhao et al., Interpretable Cross-Domain Few-Shot Learning with Rectified Target-Domain
Local Alignment, CVPR 2026, arXiv:2603.17655.
Source: reconstruction; (9) without its last two lines, k and the scopes of (6) from the paper's
pages on experiments, (2) to (7) as others paraphrase them. Its method pages were not readable, and
the authors released no code.
Differs from the paper: it fine-tunes an encoder by LoRA; here a small residual head, shared by
image rows and patches, moves frozen features, or LoRA one block of it (`adapter=lora`), so its
published figures are not to be expected. The
literal cycles give L_text no gradient to the image side, and L_img one that a constant head
satisfies; hence the soft cycles, the contrastive (4), the identity term and the monitor of collapse
(mean pairwise cosine of P) are ours. The patches of (2) are chosen once, on the frozen features.
(0) is ours as well: patches of a frozen backbone carry little text (`heads/patch_map.py`), which in
the paper training changes; `patch_map=none` is without it.
`anchors=image`: ceil(k / (A + 1)) of each view for the class of the image and the `rivals` closest
others; a step reads those of its images. `corpus`: the k of each class among all patches of the
support, whatever the labels; a step reads those of `classes` classes, (3) and (4) are about these,
and a patch that finds no other of its image in P is left out of (7). `corpus-with-pool` searches
unlabelled images as well. With `adapter=lora` P is chosen anew at each step from the patches of f,
moved by the map (0) of the start; caches have tokens of clean images alone, so no views are read,
and `cross-view` is `intra-image`. The defaults were chosen on validation rows, never on test rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from featcache.errors import UsageError
from featcache.wording import Setting
from heads import cycle_anchors
from heads.class_texts import text_tensors
from heads.contract.method import SUPPORT_AND_QUERY, Method, Need, Watched
from heads.contract.rows import Batch, LazyRows, Rows, TaskView, Tensors
from heads.contract.settings import WithText, number
from heads.contract.stages import Stage, one_stage
from heads.cycle_steps import by_head, by_lora, head, residual_head
from heads.last_block_lora import (
    FACTORS,
    TOKENS,
    BlockPatches,
    Shape,
    adapted,
    block_of,
    factors,
    global_features,
    tensors_of,
)
from heads.ops.algebra import cross_entropy, mean_cosine, weighted_mean
from heads.ops.attention import Pick
from heads.ops.cycles import Retrieval, image_cycle, share_right, text_cycle
from heads.patch_corpus import parts_of
from heads.patch_map import patch_map
from heads.training.optim import adamw
from heads.training.samplers import shuffled

RISE, TOP = 0.2, 0.95
"""A head has collapsed when patches are that much more alike than at the start, or so alike."""
MEASURED = ("likeness", "closed", "right")
WATCHED = tuple(f"{name}{when}" for name in MEASURED for when in ("_before", ""))
"""How alike patches are, the share of texts whose cycle closes, and that of patches whose nearest
text is the right one; before training and after it."""


@dataclass(frozen=True, kw_only=True)
class Config(WithText):
    control: Literal["none", "augment-only"] = "none"
    """augment-only leaves out both cycles and keeps everything else."""
    cycle: Pick = "soft"
    """How a patch or a text is picked."""
    adapter: Literal["head", "lora"] = "head"
    """What is trained beside the texts: (1) on cached features, or (10) on cached tokens of support
    and queries, without views."""
    retrieval: Retrieval = "cross-view"
    """Where (6) looks."""
    anchors: Literal["image", "corpus", "corpus-with-pool"] = "image"
    """Where (2) looks: in each image by itself, for its class and rivals; in all images of the
    support at once, for every class; or in those and in the unlabelled pool."""
    variant: Literal["any", "clearclip", "vanilla", "maskclip"] = "any"
    """How patches were taken from the last block; any is clearclip where the cache has several."""
    patch_map: Literal["none", "ridge"] = "ridge"
    """Move the patches to the texts by (0) before the cycles; none is the paper's."""
    augment: bool = True
    """Use the cached views beside the clean image."""
    shrink: bool = True
    """Keep only the patches of (2); else all of them."""
    k: int = number(10, low=1)
    """Patches that are kept, an image and class; with a corpus, a class."""
    rivals: int = number(4, low=0)
    """Classes beside its own that an image's patches are kept for; `anchors=image`."""
    classes: int = number(256, low=1)
    """Classes whose patches a step reads, drawn anew each time; with a corpus."""
    rank: int = number(32, low=1)
    """Width r of the head."""
    lora_rank: int = number(4, low=1)
    """Rank of LoRA, for `adapter=lora`."""
    train_text: bool = True
    """Train t."""
    steps: int = number(60, low=0)
    """Steps of training, whatever the number of shots."""
    batch: int = number(128, low=1)
    """Images of a step, each in all its views."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    lr: float = number(1e-3, above=0.0)
    """AdamW's step size at the start; falls to 0 as a cosine."""
    lam_text: float = number(0.2, low=0.0)
    """Weight of the cycle text, patch, text; the paper's lambda 1."""
    lam_image: float = number(0.5, low=0.0)
    """Weight of the cycle patch, text, patch; the paper's lambda 2."""
    identity: float = number(10.0, low=0.0)
    """How strongly the head and the texts are held at their start."""
    step: float = number(1.0, low=0.0)
    """Size of the residual; 0 leaves the image features as they are."""
    ridge: float = number(1e-4, above=0.0, prepare=True)
    """Weight of the identity in (0), in units of the patches' mean eigenvalue; `patch_map`."""
    tau: float = number(0.02, above=0.0)
    """Temperature of picking patches."""
    tau_back: float = number(0.02, above=0.0)
    """Temperature of picking texts."""
    lora_scale: float = number(1.0, above=0.0)
    """Size of what LoRA adds, for `adapter=lora`."""


@dataclass(frozen=True, kw_only=True)
class OnBlock(Config, Shape):
    """The settings of `adapter=lora`, and what of the block is no tensor."""


def facts(task: TaskView, config: Config) -> Mapping[str, Any]:
    """Return what (10) has to know of the block."""
    if config.adapter == "head":
        return {}
    return block_of(task).settings()


def needs(config: Config) -> frozenset[Need]:
    """Patches of the support images, and their augmented views whole and in patches.

    Of the pool, where it is read, patches of the images and, where there are any, of their views.
    With `adapter=lora` tokens of support and queries, and nothing else.
    """
    if config.adapter == "lora":
        tokens = Need(role="support", kind="tokens", recipe=TOKENS.recipe)
        return SUPPORT_AND_QUERY | {tokens, replace(tokens, role="query")}
    variant = None if config.variant == "any" else config.variant
    of_images = Need(role="support", kind="patches", recipe=variant, lazy=config.anchors != "image")
    of_views = replace(of_images, kind="view_patches", recipe="cdfsl", variant=variant)
    read = SUPPORT_AND_QUERY | {of_images}
    if config.augment:
        read |= {Need(role="support", kind="views", recipe="cdfsl"), of_views}
    if config.anchors == "corpus-with-pool":
        read |= {Need(role="pool"), replace(of_images, role="pool", lazy=False)}
        if config.augment:
            read |= {replace(of_views, role="pool", lazy=False, optional=True)}
    return read


def stages(config: Config) -> tuple[Stage, ...]:
    """Train head or LoRA and texts on batches of images, and beside them anchors of a corpus."""
    moved = FACTORS if config.adapter == "lora" else {"down", "up"}
    drawn = () if config.anchors == "image" else (("pool", config.classes),)
    batches = shuffled(config.batch, augment=False, beside=drawn)
    # The patches were chosen beforehand: no step reads all of them again.
    unread = tuple((n.key, 0) for n in needs(config) if n.role == "support" and "patches" in n.kind)
    return one_stage(
        trains=frozenset({*moved, "text"} if config.train_text else moved),
        loss=loss,
        batches=replace(batches, take=tuple(sorted(unread))),
        update=adamw(weight_decay=0.0, schedule="cosine"),
        start=start,
        watch=WATCHED,
        leave=leave if config.adapter == "lora" else None,
    )


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Start at zero-shot, and keep the patches that the cycles are about.

    Raises:
        UsageError: If settings exclude each other.
    """
    check(config)
    fixed = text_tensors(task, config.text, method=METHOD.name)
    texts, rows, change = fixed["anchors"], task.support, None
    if isinstance(config, OnBlock):
        params, parts = on_block(task, config, fixed)
    else:
        params = residual_head(config.rank, rows.x, task.seed)
        parts = parts_of(rows, "cdfsl", views=config.augment)
    if config.patch_map == "ridge":
        change = patch_map(parts, rows.y, rows.row_weights, texts, hyper.ridge)
    params["text"] = texts.clone()
    if isinstance(config, OnBlock):
        return params, fixed if change is None else fixed | {"change": change}
    how: Any = {"k": config.k, "recipe": "cdfsl", "views": config.augment}
    if config.anchors == "image":
        how |= {"k": config.k if config.shrink else 0, "rivals": config.rivals}
        return params, fixed | cycle_anchors.of_images(rows, texts, change, **how)
    sets = [rows]
    if config.anchors == "corpus-with-pool":
        assert task.pool is not None
        sets.append(task.pool)
    return params, fixed | cycle_anchors.of_corpus(sets, texts, change, **how)


def check(config: Config) -> None:
    """Refuse settings that exclude each other.

    Raises:
        UsageError: If there are such.
    """
    if config.adapter == "lora":
        if config.anchors != "image":
            raise UsageError(
                "cc-cdfsl's adapter=lora moves the patches, so none can be chosen of a corpus "
                "beforehand; use ",
                Setting("anchors", "image"),
                ".",
            )
        return
    if config.retrieval == "cross-view" and not config.augment:
        raise UsageError(
            "cc-cdfsl's retrieval=cross-view looks at other views, and augment=false leaves none; "
            "add ",
            Setting("retrieval", "intra-image"),
            ".",
        )
    if config.anchors != "image" and not config.shrink:
        raise UsageError(
            "cc-cdfsl's shrink=false keeps every patch, and a corpus is there to keep few; leave "
            "out ",
            Setting("shrink", "false"),
            ", or set ",
            Setting("anchors", "image"),
            ".",
        )


def on_block(
    task: TaskView, config: OnBlock, fixed: Tensors
) -> tuple[Tensors, list[Tensor | LazyRows]]:
    """Put the block among the fixed tensors; return the factors of LoRA, and its patches."""
    block, rows = block_of(task), task.support
    fixed |= tensors_of(block, rows.x)
    patches = BlockPatches(rows.kinds[TOKENS], config, fixed, block.dim)
    return factors(block, config.lora_rank, rows.x, task.seed), [patches]


def start(params: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Tensors:
    """Measure nothing: the first step does, at the parameters of the start."""
    return dict.fromkeys(WATCHED, torch.zeros_like(fixed["scale"]))


def loss(
    params: Tensors, fixed: Tensors, state: Tensors, batch: Batch, config: Config, hyper: Hyper
) -> tuple[Tensor, Tensors]:
    """Equation (9)."""
    texts, retrieval = F.normalize(params["text"], dim=-1), config.retrieval
    if isinstance(config, OnBlock):
        few: Any = {"k": config.k if config.shrink else 0, "rivals": config.rivals}
        seen = by_lora(params, fixed, batch, config, hyper.lora_scale, **few)
        retrieval = "intra-image" if retrieval == "cross-view" else retrieval
    else:
        own = config.anchors == "image"
        seen = by_head(params, fixed, batch, hyper.step, views=config.augment, own=own)
    patches, kept = seen.patches, seen.kept
    logits = fixed["scale"] * seen.x @ texts.mT + fixed["bias"]
    value = cross_entropy(logits, seen.y, seen.weight)
    drift = weighted_mean(1 - (seen.x * seen.x_before).sum(-1), seen.weight)
    drift = drift + weighted_mean((1 - (patches * seen.anchors).sum(-1)).flatten(), kept.flatten())
    drift = drift + (1 - (texts * fixed["anchors"]).sum(-1)).mean()
    value = value + hyper.identity * drift
    if config.control != "none":  # the cycles are measured, and move nothing
        patches, texts = patches.detach(), texts.detach()
    cosine = patches @ texts.mT  # [b u c]
    how: Any = {"cycle": config.cycle, "tau": hyper.tau, "tau_back": hyper.tau_back}
    told, closed = text_cycle(texts, patches, cosine, kept, at=seen.asked, **how)
    if config.control == "none":
        shown = image_cycle(
            texts, patches, cosine, kept, seen.view, retrieval=retrieval, image=seen.image, **how
        )
        value = value + hyper.lam_text * told + hyper.lam_image * shown
    measured = {
        "likeness": mean_cosine(patches.detach(), kept),
        "closed": closed,
        "right": share_right(cosine.detach(), seen.owner, kept),
    }
    return value, _watched(state, measured, batch.step == 0)


def leave(params: Tensors, fixed: Tensors, config: Config, hyper: Hyper) -> Tensors:
    """Put what LoRA learned into the block, by which (10) then answers."""
    return adapted(params, fixed, hyper.lora_scale)


def _watched(state: Tensors, measured: Tensors, is_first: Tensor) -> Tensors:
    """Keep what the first step measured: the parameters are those of the start there."""
    first = {
        f"{name}_before": torch.where(is_first, measured[name], state[f"{name}_before"])
        for name in MEASURED
    }
    return state | measured | first


def notes(watched: Sequence[Watched]) -> list[str]:
    """Say how alike patches became and what the cycles did, and warn where patches collapsed."""
    ends = [{name: w[name][-1] for name in WATCHED} for w in watched if w.get("likeness")]
    if not ends:
        return []
    mean = {name: sum(end[name] for end in ends) / len(ends) for name in WATCHED}
    told = [
        f"Patches had a mean pairwise cosine of {mean['likeness_before']:.2f} before training, "
        f"{mean['likeness']:.2f} after it.",
        f"Of the class texts {mean['closed_before']:.0%} came back to themselves through the "
        f"patches before training, {mean['closed']:.0%} after it; of the patches "
        f"{mean['right_before']:.0%} were closest to the text of their own image, "
        f"{mean['right']:.0%} after it.",
    ]
    pairs = [(end["likeness_before"], end["likeness"]) for end in ends]
    bad = sum(after - before > RISE or after > max(TOP, before + 0.01) for before, after in pairs)
    if bad:
        told.append(
            f"The head collapsed in {bad} of {len(pairs)} trainings: its patches became alike. "
            f"Lower lam_image, or raise identity."
        )
    return told


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Hyper) -> Tensors:
    """Equation (8)."""
    texts = F.normalize(params["text"], dim=-1)
    if isinstance(config, OnBlock):
        tokens = rows.get(*TOKENS)
        assert tokens is not None
        moved = global_features(config, fixed, tokens)
    else:
        moved = head(params, rows.x, hyper.step)
    return {"logits": fixed["scale"] * moved @ texts.mT + fixed["bias"]}


METHOD = Method(
    name="cc-cdfsl",
    summary="A residual head trained with two cycles between class texts and patches of views.",
    source="reconstruction at head level, no code released: Zhao et al. 2026, arXiv:2603.17655",
    needs=needs,
    stages=stages,
    prepare=prepare,
    terms=terms,
    notes=notes,
    facts=facts,
    bound=OnBlock,
    training_only=("anchors", "change", "pool", "kept", "view", "image", "owner"),
    version=2,
)

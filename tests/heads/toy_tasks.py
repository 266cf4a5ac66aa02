"""A task for any registered method on the toy world, and settings that train it briefly."""

import itertools
from dataclasses import replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch

from featcache.last_block import LastBlock, shapes
from featcache.types import FeatureSet, TextBank
from heads.contract.method import AnyMethod
from heads.contract.rows import Rows, TaskView
from heads.contract.settings import Grid
from heads.episode import Episode
from heads.fitted import Fitted
from heads.protocols.builder import EpisodeBuilder
from heads.protocols.retrieved import Retrieved
from heads.selection.settings import Settings, configure
from heads.training.trainer import train
from tests.heads.conftest import make_world

SHORT = {"steps": 6, "epochs": 2, "batch": 12, "max_iter": 30, "every": 2}
"""Settings that shorten training, for the methods that have them."""


def short(method: AnyMethod) -> dict[str, Any]:
    return {k: v for k, v in SHORT.items() if hasattr(method.config(), k)}


ALSO = {
    "crops.lazsl-5": (5,),
    "crops.fair-6": (6,),
    "views.strong-3": (3,),
    "views.weak-2": (2,),
    "views.cdfsl-4": (4,),
    **{f"patches.{variant}": (9,) for variant in ("clearclip", "vanilla", "maskclip")},
    "tokens.last-block": (10,),
    **{
        f"view_patches.{variant}.cdfsl-4": (4, 9)
        for variant in ("clearclip", "vanilla", "maskclip")
    },
}
"""Components of the toy world beside global features and views."""


def toy_block(w: int = 16, d: int = 16) -> LastBlock:
    """Build a last block of two heads with seeded weights."""
    rng = torch.Generator().manual_seed(4)
    every, _ = shapes(w, 2 * w, d)
    tensors = {name: 0.2 * torch.randn(shape, generator=rng) for name, shape in every.items()}
    return LastBlock(
        heads=2,
        activation="quick_gelu",
        eps=1e-5,
        pool="tok",
        norm_after_pool=False,
        tensors=tensors,
    )


def rich_world() -> FeatureSet:
    """Build a toy world with every kind of features, and names, templates and descriptions."""
    counts = {"train": 6, "val": 3, "test": 4}
    made = make_world(counts=counts, views=3, also=ALSO, descriptions=True)
    assert isinstance(made.text, TextBank)
    assert made.text.template_rows is not None
    text = replace(made.text, names=made.text.template_rows[:, 0])
    return replace(made, text=text, read_last_block=toy_block)


def make_task(features: FeatureSet, method: AnyMethod, config: Any = None, **given: Any) -> Episode:
    """Give a method the training rows as its support, as its pool, or half of them as each."""
    needs = method.needs(config or method.config())
    roles = {need.role for need in needs}
    made = EpisodeBuilder(
        features=features,
        needs=needs,
        device=torch.device("cpu"),
        retrieved=retrieved(features) if "corpus" in roles else None,
        splits={"test": features.usable("test")},
        **given,
    )
    train, val = features.usable("train"), features.usable("val")
    roles = {need.role for need in needs}
    if {"pool", "support"} <= roles:
        return made.build(train[::2], val, seed=3, shots=3, pool=train[1::2])
    if "pool" in roles:
        return made.build(train[:0], val, seed=3, shots=0, pool=train)
    if "corpus" in roles and "support" not in roles:
        return made.build(train[:0], val, seed=3, shots=0)
    return made.build(train, val, seed=3, shots=6)


def retrieved(features: FeatureSet, *, noise: float = 0.2, own_role: bool = True) -> Retrieved:
    """Return a corpus: rows near those of train, with their labels but for every seventh."""
    train = features.usable("train")
    x = features.unit("global", train)
    moved = x + noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(7))
    labels = torch.from_numpy(features.labels[train].astype("int64"))
    wrong = torch.arange(len(x)) % 7 == 0
    labels = torch.where(wrong, (labels + 1) % len(features.classes), labels)
    rows = Rows.of(torch.nn.functional.normalize(moved, dim=-1), labels)
    return Retrieved(rows=rows, name="toy", own_role=own_role)


def few(grid: Grid, most: int = 2) -> Grid:
    return Grid({name: list(values)[:most] for name, values in grid.axes.items()})


def settings(method: AnyMethod) -> Settings:
    made = configure(method, short(method))
    return replace(made, train_grid=few(made.train_grid), post_grid=few(made.post_grid))


def fitted(method: AnyMethod, view: TaskView) -> Fitted:
    made = settings(method)
    (run,) = train(method, made.config, [view], [made.hyper])
    return run.head


def variants(method: AnyMethod, features: FeatureSet, *, together: bool = True) -> list[Any]:
    """List the Configs of every choice and switch of a method, in every combination.

    Args:
        method: The method.
        features: What is read of them, kinds of text that are there and patch variants, is walked
            one at a time.
        together: Combine choices; else each is walked beside the defaults of the others.
    """
    assert isinstance(features.text, TextBank)
    hints = get_type_hints(method.config)
    there = features.text.available()
    choices = {name: _choices(hint) for name, hint in hints.items()}
    read = {"text": tuple(there), "variant": choices.get("variant", ())}
    walked = {n: found for n, found in choices.items() if found and n not in read}
    made = [method.config(**{name: v}) for name, found in walked.items() for v in found]
    if together:
        products = itertools.product(*walked.values())
        made = [method.config(**dict(zip(walked, values, strict=True))) for values in products]
    return made + [
        method.config(**{name: value})
        for name, values in read.items()
        for value in choices.get(name, ())
        if value in values
    ]


def _choices(hint: Any) -> tuple[Any, ...]:
    """Return the values of a switch or of a Literal, which None may join; () of anything else."""
    if hint is bool:
        return (False, True)
    if get_origin(hint) is Literal:
        return get_args(hint)
    return tuple(value for part in get_args(hint) for value in _choices(part))

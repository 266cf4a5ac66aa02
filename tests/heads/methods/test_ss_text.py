import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from featcache.errors import FitWarning, UsageError
from heads.contract.rows import Kind, Rows, TaskView
from heads.methods import ss_text
from heads.methods.ss_text import Config, Hyper

PLAIN, PLUS = Config(), Config(variant="ss-text-plus")
BALANCED = (2, 2, 2, 2)


def logits(task: TaskView, x: Tensor, config: Config = PLAIN, length: float = 0.0) -> Tensor:
    hyper = Hyper(text_length=length)
    params, fixed = ss_text.prepare(task, config, hyper)
    return ss_text.terms(params, fixed, Rows.of(x), config, hyper)["logits"]


def naive(task: TaskView, x: Tensor, config: Config, length: float, rows: Tensor) -> Tensor:
    """Equations (1) to (5) in loops, at the toy's logit scale of 20."""
    assert task.text is not None
    y, n = task.support.y.tolist(), len(task.support.y)
    weights = []
    for c, t in enumerate(task.text.anchors().double()):
        lam = max(1 / n, 1e-3)
        if config.variant == "ss-text-plus":
            lam = max(1 / y.count(c), 1e-3) if c in y else float("inf")
        w = length * t
        for row, label in zip(rows, y, strict=True):
            if label == c:
                w = w + row / lam / (1 / 20) / n
        weights.append(w)
    mean = torch.stack(weights).mean(0)
    if config.variant == "ss-text-plus" and config.repel:
        weights = [w - (2 * w - mean) / (2 * w - mean).norm() for w in weights]
    return torch.tensor([[20 * float(q @ w / w.norm()) for w in weights] for q in x]).double()


@pytest.mark.parametrize("views", [0, 3])
@pytest.mark.parametrize("config", [Config(), PLUS, replace(PLUS, repel=False)])
def test_logits_equal_naive_loops(toy: Any, config: Config, views: int) -> None:
    task, x = toy(counts=(3, 2, 3, 2), views=views)
    rows = task.support.x
    if views:
        rows = F.normalize(task.support.kinds[Kind("views", "rrc50")].mean(1), dim=-1)
    length = 7.0 if config.variant == "ss-text-plus" else 170.0
    got = logits(task, x, config, length)
    torch.testing.assert_close(got, naive(task, x, config, length, rows), rtol=1e-5, atol=1e-5)


def test_the_length_of_the_texts_follows_from_variant_and_scale(toy: Any) -> None:
    task, x = toy(counts=BALANCED)
    assert torch.equal(logits(task, x), logits(task, x, length=600.0))
    assert torch.equal(logits(task, x, PLUS), logits(task, x, PLUS, 2.0))


def test_the_penalty_has_a_floor(toy: Any) -> None:
    """With more than 1000 shots in all, or of a class, they count less than one each."""
    texts, sums = torch.zeros(2, 3).double(), torch.ones(2, 3).double()
    counts = torch.tensor([3000, 1000])
    torch.testing.assert_close(ss_text.mixed(texts, sums, counts, "ss-text"), sums / 4)
    by_class = ss_text.mixed(texts, sums, counts, "ss-text-plus")
    torch.testing.assert_close(by_class, sums / 4)  # 1000 of 4000, 3000 not counted in full


@pytest.mark.filterwarnings("ignore::featcache.errors.FitWarning")
def test_a_class_without_shots_keeps_its_text(toy: Any) -> None:
    task, x = toy(counts=(3, 0, 2, 2))
    text = 20 * x @ task.text.anchors()[1].double()
    torch.testing.assert_close(logits(task, x)[:, 1], text, rtol=1e-6, atol=1e-6)


def test_long_texts_are_zero_shot(toy: Any) -> None:
    task, x = toy(counts=BALANCED, bias=-3.0)
    expected = 20.0 * x @ task.text.anchors().double().T - 3.0
    torch.testing.assert_close(logits(task, x, length=1e9), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("config", "length"), [(Config(), 90.0), (PLUS, 0.9)])
def test_short_texts_are_warned_of(toy: Any, config: Config, length: float) -> None:
    """At the toy's logit scale of 20, where 100 and 1 are what 500 and 5 are at 100."""
    task, x = toy(counts=BALANCED)
    with pytest.warns(FitWarning, match=f"text_length={length:g} texts hardly count"):
        logits(task, x, replace(config, repel=False), length)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logits(task, x, replace(config, repel=False), 1.2 * length)


@pytest.mark.parametrize("config", [PLAIN, PLUS])
@pytest.mark.parametrize("counts", [(4, 2, 4, 4), (0, 1, 1, 1)])
def test_unbalanced_shots_are_warned_of(toy: Any, config: Config, counts: tuple[int, ...]) -> None:
    task, x = toy(counts=counts)
    with pytest.warns(FitWarning, match=f"here {min(counts)} to {max(counts)}"):
        logits(task, x, config)
    task, x = toy(counts=(2, 3, 3, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logits(task, x, config)


def test_a_step_that_could_turn_signs_is_refused(toy: Any) -> None:
    # 196 classes of one shot and unit texts: weights are 1.25 long and no answer is right
    task, x = toy(counts=(1,) * 200, d=8)
    with pytest.raises(UsageError, match="text_length=10"):
        logits(task, x, PLUS, length=1.0)
    logits(task, x, replace(PLUS, repel=False), length=1.0)
    logits(task, x, PLUS)


GOLDEN = [
    (name, support, f"{name}_{shots}shot")
    for name, support, shots in (
        ("caltech50", "train1", 1),
        ("caltech50", "train4", 4),
        ("caltech50", "train16", 16),
        ("imagenet256", "train", 4),
    )
]


def check(got: Tensor, released: Any) -> None:
    """Compare with jusiro/SS-Text@4ff4897, stored in float16."""
    assert np.abs(got.numpy() - released.astype(np.float32)).max() < 0.05


@pytest.mark.parametrize(("name", "support", "golden"), GOLDEN)
@pytest.mark.filterwarnings("ignore::featcache.errors.FitWarning")
def test_golden(
    name: str, support: str, golden: str, features: Any, shared: Callable[[str], Path]
) -> None:
    task, x, _ = features(name, support)
    file = np.load(shared(f"golden/ss_text_{golden}.npz"), allow_pickle=False)
    check(logits(task, x, length=1.0), file["logits"])
    file = np.load(shared(f"golden/ss_text_plus_x10_{golden}.npz"), allow_pickle=False)
    check(logits(task, x, PLUS), file["logits"])


@pytest.mark.filterwarnings("ignore::featcache.errors.FitWarning")
def test_golden_with_unit_texts(features: Any, shared: Callable[[str], Path]) -> None:
    task, x, _ = features("caltech50", "train1")
    file = np.load(shared("golden/ss_text_plus_caltech50_1shot.npz"), allow_pickle=False)
    check(logits(task, x, PLUS, 1.0), file["logits"])


@pytest.mark.parametrize("variant", ["ss-text", "ss-text-plus"])
def test_golden_unbalanced(variant: Any, features: Any, shared: Callable[[str], Path]) -> None:
    """The first (7 c + 1) mod 17 shots of class c, and unit texts, where (4) is refused."""
    task, x, _ = features("caltech50", "train16")
    file = shared(f"golden/{variant.replace('-', '_')}_caltech50_imbalanced.npz")
    released = np.load(file, allow_pickle=False)["logits"]
    anchors = task.text.anchors().double()
    sums, counts = torch.zeros_like(anchors), torch.tensor([(7 * c + 1) % 17 for c in range(50)])
    for c, count in enumerate(counts.tolist()):
        own = task.support.x[task.support.y == c][:count]
        sums[c] = 100 * own.double().sum(0)
    weight = ss_text.mixed(anchors, sums, counts, variant)
    if variant == "ss-text-plus":
        weight = ss_text.apart(weight)
        with pytest.raises(UsageError, match="sign could turn"):
            ss_text.check_lengths(ss_text.mixed(anchors, sums, counts, variant))
    check((100 * x.double() @ F.normalize(weight, dim=-1).mT).float(), released)


@pytest.mark.parametrize(
    ("config", "length", "released"),
    [
        (Config(), 1.0, (84.80, 94.03, 94.80, 58.01)),
        (PLUS, 1.0, (90.49, 94.45, 95.00, 61.13)),
        (PLUS, 10.0, (95.70, 97.36, 95.77, 72.46)),
        (replace(PLUS, repel=False), 10.0, (95.77, 97.29, 95.77, 73.05)),
    ],
)
@pytest.mark.long
@pytest.mark.filterwarnings("ignore::featcache.errors.FitWarning")
def test_top1_of_the_released_code(
    config: Config, length: float, released: tuple[float, ...], features: Any
) -> None:
    for (name, support, _), top1 in zip(GOLDEN, released, strict=True):
        task, x, y = features(name, support)
        right = (logits(task, x, config, length).argmax(1) == y).double().mean()
        assert round(100 * float(right), 2) == top1

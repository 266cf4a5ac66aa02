"""Temperatures, errors and thresholds of zero-shot on real features, from independent code."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from heads.ops.calibration import expected_calibration_error
from heads.ops.conformal import class_scores, rank, smaller, within
from heads.ops.pooling import temperature

Load = Callable[[str], tuple[Tensor, Tensor, Tensor, Tensor]]


@pytest.fixture(scope="module")
def zero_shot(shared: Callable[[str], Path]) -> Load:
    """Return zero-shot logits and labels of val and of test."""

    def load(name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with np.load(shared(f"features/{name}_vitb32.npz")) as file:
            data = {key: file[key] for key in file.files if not key.endswith("paths")}
        text, val, test = (
            F.normalize(torch.from_numpy(data[f"{key}_features"]).float(), dim=-1)
            for key in ("text", "val", "test")
        )
        y_val, y_test = (torch.from_numpy(data[f"{key}_labels"]).long() for key in ("val", "test"))
        return 100 * val @ text.T, 100 * test @ text.T, y_val, y_test

    return load


def nll(logits: Tensor, labels: Tensor, t: float) -> float:
    return float(F.cross_entropy(logits.double() / t, labels))


def error(logits: Tensor, labels: Tensor, t: float) -> float:
    p = torch.softmax(logits.double() / t, dim=-1)
    return 100 * expected_calibration_error(p.amax(-1), p.argmax(-1) == labels)


@pytest.mark.parametrize(
    ("name", "t", "losses", "errors"),
    [
        ("caltech50", 0.617, (0.1545, 0.1188), (4.84, 1.15)),
        ("imagenet256", 0.876, (1.186, 1.166), (6.49, 3.33)),
    ],
)
def test_temperature_and_calibration_error(
    name: str, t: float, losses: tuple[float, float], errors: tuple[float, float], zero_shot: Load
) -> None:
    val, test, y_val, y_test = zero_shot(name)
    found = temperature(val, y_val, smooth=False)
    assert found == pytest.approx(t, abs=5e-4)
    for heat, loss, wrong in zip((1.0, found), losses, errors, strict=True):
        assert nll(test, y_test, heat) == pytest.approx(loss, abs=5e-4)
        assert error(test, y_test, heat) == pytest.approx(wrong, abs=6e-3)


@pytest.mark.parametrize(
    ("name", "coverage", "q"),
    [
        ("caltech50", 0.9, 0.341326),
        ("imagenet256", 0.9, 0.977360),
        ("caltech50", 0.95, 0.626872),
        ("imagenet256", 0.95, 0.995710),
    ],
)
def test_thresholds_of_the_exact_rank(
    name: str, coverage: float, q: float, zero_shot: Load
) -> None:
    val, _, labels, _ = zero_shot(name)
    scores = class_scores(val.double().softmax(-1), "lac").gather(1, labels[:, None])[:, 0]
    found = float(scores.sort().values[rank(len(scores), coverage) - 1])
    assert found == pytest.approx(q, abs=1.5e-6)  # the figures are of float32


@pytest.mark.parametrize(
    ("name", "rule", "covered", "size"),
    [
        ("caltech50", "lac", 91.05, 0.922),
        ("imagenet256", "lac", 91.02, 3.77),
        ("caltech50", "aps", 89.5, 1.36),
        pytest.param("imagenet256", "aps", 90.1, 10.4, marks=pytest.mark.long),
        ("caltech50", "raps", 89.6, 1.35),
        pytest.param("imagenet256", "raps", 90.2, 9.0, marks=pytest.mark.long),
    ],
)
def test_coverage_and_size_of_sets(
    name: str, rule: str, covered: float, size: float, zero_shot: Load
) -> None:
    """The figures of aps and raps are means over 20 seeds of u; ours are other seeds."""
    val, test, y_val, y_test = zero_shot(name)
    rng = torch.Generator().manual_seed(1)
    measured = []
    for _ in range(1 if rule == "lac" else 20):
        u = [None if rule == "lac" else torch.rand(len(z), generator=rng) for z in (val, test)]
        known, asked = (
            class_scores(z.double().softmax(-1), rule, one)
            for z, one in zip((val, test), u, strict=True)
        )
        at_label = known.gather(1, y_val[:, None])[:, 0].sort().values
        sets = within(smaller(at_label, asked), len(at_label), 0.9).double()
        measured.append(
            (100 * float(sets.gather(1, y_test[:, None]).mean()), float(sets.sum(1).mean()))
        )
    found = np.mean(measured, axis=0)
    slack = np.std(measured, axis=0) / 20**0.5
    assert found[0] == pytest.approx(covered, abs=0.06 + 4 * slack[0])
    assert found[1] == pytest.approx(size, abs=0.006 if rule == "lac" else 0.06 + 4 * slack[1])

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from featcache.errors import MissingComponentError
from featcache.keys import TextKind
from featcache.types import TextSet
from heads.contract.rows import Rows, TaskView
from heads.contract.settings import Nothing, WithText
from heads.methods import zero_shot


def logits(task: TaskView, x: torch.Tensor, **settings: Any) -> torch.Tensor:
    config, hyper = WithText(**settings), Nothing()
    params, fixed = zero_shot.prepare(task, config, hyper)
    terms = zero_shot.terms(params, fixed, Rows.of(x), config, hyper)
    return zero_shot.METHOD.combine(terms, fixed, config, hyper)


def test_logits_equal_naive_loops(toy: Any) -> None:
    task, x = toy(bias=-3.0)
    got = logits(task, x)
    rows = task.text.template_rows.double()
    for i in range(len(x)):
        for c in range(task.c):
            mean = sum(rows[c, t] / rows[c, t].norm() for t in range(2)) / 2
            expected = 20.0 * float(x[i] @ (mean / mean.norm())) - 3.0
            # anchors are kept in float32
            assert float(got[i, c]) == pytest.approx(expected, abs=1e-5)


def test_each_kind_of_text_is_its_own_classifier(toy: Any) -> None:
    task, x = toy()
    assert torch.equal(logits(task, x), logits(task, x, text="template"))
    by_name = logits(task, x, text="name")
    assert not torch.allclose(by_name, logits(task, x), atol=0.1)
    with pytest.raises(MissingComponentError, match="'description'"):
        logits(task, x, text="description")


@pytest.mark.parametrize("kind", get_args(TextKind))
def test_every_kind_of_text_equals_its_authors_score(toy: Any, kind: str) -> None:
    """Normalised means score by one cosine; dclip and waffle by the mean of all cosines."""
    task, x = toy(bias=1.5)
    task = replace(task, text=with_every_kind(task.text))
    rows, owner = task.text.texts(kind)
    got = logits(task, x, text=kind)
    for i in range(len(x)):
        for c in range(task.c):
            own = [q.double() for q, o in zip(rows, owner, strict=True) if o == c]
            if kind in ("dclip", "waffle"):
                score = sum(float(x[i] @ q) for q in own) / len(own)
            else:
                total = torch.stack(own).sum(0)
                score = float(x[i] @ total / total.norm())
            assert float(got[i, c]) == pytest.approx(20.0 * score + 1.5, abs=1e-4)


def test_one_text_a_class_scores_alike_either_way(toy: Any) -> None:
    task, x = toy()
    single = TextSet(texts=("a",) * 4, rows=task.text.names, owner=torch.arange(4))
    task = replace(task, text=replace(task.text, sets={"dclip": single, "cupl": single}))
    by_name = logits(task, x, text="name")
    for kind in ("cupl", "dclip"):
        torch.testing.assert_close(logits(task, x, text=kind), by_name, atol=1e-5, rtol=0)


def with_every_kind(bank: Any) -> Any:
    """Add descriptions and further sets, two or three texts a class."""
    rng = torch.Generator().manual_seed(5)
    owner = torch.tensor([0, 3, 1, 1, 2, 0, 2, 3, 3])

    def texts() -> TextSet:
        rows = 3 * torch.rand(9, bank.names.shape[1], generator=rng)
        return TextSet(texts=tuple("abcdefghi"), rows=rows, owner=owner)

    described = texts()
    return replace(
        bank,
        descriptions=described.texts,
        description_rows=described.rows,
        owner=owner,
        sets={kind: texts() for kind in ("cupl", "dclip", "waffle")},
    )


def test_no_texts_is_said(toy: Any) -> None:
    task, x = toy(text=False)
    with pytest.raises(MissingComponentError, match=r"zero-shot.*needs class texts"):
        logits(task, x)


def test_shots_are_not_read(toy: Any) -> None:
    task, x = toy()
    task.support.x.zero_()
    assert torch.isfinite(logits(task, x)).all()


@pytest.mark.parametrize(("name", "support"), [("caltech50", "train1"), ("imagenet256", "train")])
def test_golden(name: str, support: str, features: Any, shared: Callable[[str], Path]) -> None:
    task, x, _ = features(name, support)
    golden = np.load(shared(f"golden/zeroshot_{name}.npz"))["logits"]
    assert np.abs(logits(task, x).numpy() - golden).max() < 1e-4

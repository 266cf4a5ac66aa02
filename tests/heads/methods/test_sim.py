from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from featcache.errors import MissingComponentError
from featcache.types import TextSet
from heads.contract.rows import Rows, TaskView
from heads.methods import sim

CONFIG = sim.Config()


def logits(task: TaskView, x: Tensor, config: sim.Config = CONFIG, **values: float) -> Tensor:
    hyper = sim.Hyper(**values)
    params, fixed = sim.prepare(task, config, hyper)
    return sim.terms(params, fixed, Rows.of(x), config, hyper)["logits"]


def naive(x: Tensor, rows: Tensor, labels: Tensor, prompts: Tensor, lam: float) -> Tensor:
    """Equations (1) and (2), one cosine after the other, solved in the space of the prompts."""
    p, c = len(prompts), int(labels.max()) + 1
    system, target = lam * torch.eye(p).double(), torch.zeros(p, c).double()
    for row, label in zip(rows, labels.tolist(), strict=True):
        cosine = [float(row @ g) for g in prompts]
        for i in range(p):
            target[i, label] += cosine[i]
            for j in range(p):
                system[i, j] += cosine[i] * cosine[j]
    weight = torch.linalg.inv(system) @ target
    similar = torch.tensor([[float(q @ g) for g in prompts] for q in x], dtype=torch.float64)
    answers: Tensor = 100 * similar @ weight
    return answers


@pytest.mark.parametrize("counts", [(3, 1, 4, 2), (1, 1, 1, 1)])  # more and fewer rows than d = 6
@pytest.mark.parametrize("kind", ["name", "template"])
def test_logits_equal_naive_loops(toy: Any, counts: tuple[int, ...], kind: Any) -> None:
    task, x = toy(counts=counts)
    assert task.text is not None
    prompts = task.text.texts(kind)[0].double()
    assert len(prompts) == (4 if kind == "name" else 8)
    expected = naive(x, task.support.x, task.support.labels, prompts, 0.3)
    got = logits(task, x, sim.Config(text=kind), lam=0.3)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_who_owns_a_prompt_does_not_matter(toy: Any) -> None:
    task, x = toy()
    before = logits(task, x, sim.Config(text="template"))
    rows = task.text.template_rows
    dealt = rows.flatten(0, 1)[torch.tensor([5, 0, 7, 2, 1, 6, 3, 4])].reshape(rows.shape)
    task = replace(task, text=replace(task.text, template_rows=dealt))
    got = logits(task, x, sim.Config(text="template"))
    torch.testing.assert_close(got, before, rtol=1e-9, atol=1e-9)


def test_a_class_without_shots_is_never_answered(toy: Any) -> None:
    task, x = toy(n=30)
    task = replace(task, classes=(*task.classes, "no shots"))
    assert bool((logits(task, x)[:, 4] == 0).all())


def test_without_prompts_it_says_what_to_do(toy: Any) -> None:
    task, x = toy(text=False)
    with pytest.raises(MissingComponentError, match=r"sim.*needs class texts"):
        logits(task, x)


GOLDEN = [
    ("caltech50", "train1", 1),
    ("caltech50", "train4", 4),
    ("caltech50", "train16", 16),
    ("imagenet256", "train", 4),
]


@pytest.mark.parametrize(("name", "support", "shots"), GOLDEN)
def test_golden(
    name: str, support: str, shots: int, features: Any, shared: Callable[[str], Path]
) -> None:
    # MaxZanella/vocabulary-free-FSL@46b253f, lam 0.1, the 1203 class vectors of LVIS as prompts
    task, x, y = features(name, support)
    path = shared("text_features/detic_lvis_v1_clip_a+cname.npy")
    vectors = torch.from_numpy(np.load(path, allow_pickle=False)).float()
    vectors = vectors if vectors.shape[1] == x.shape[1] else vectors.T
    prompts = F.normalize(vectors, dim=-1)
    text: Any = replace(  # whose prompts they are does not matter
        task.text,
        descriptions=("",) * len(prompts),
        description_rows=prompts,
        owner=torch.arange(len(prompts)) % task.c,
    )
    got = logits(replace(task, text=text), x, sim.Config(text="description"))
    with np.load(shared(f"golden/sim_lvis_{name}_{shots}shot.npz"), allow_pickle=False) as file:
        wanted = torch.from_numpy(file["logits"]).float()
    assert float((got - wanted).abs().max()) < 1e-2 * float(wanted.max() - wanted.min())
    hits = {"caltech50": {1: 89.11, 4: 96.32, 16: 97.29}, "imagenet256": {4: 63.28}}[name][shots]
    assert float((got.argmax(1) == y).double().mean()) == pytest.approx(hits / 100, abs=2e-3)


def with_prompts(task: TaskView, prompts: Tensor) -> TaskView:
    """Return a task whose data set has prompts of no class."""
    kept = TextSet(
        texts=tuple(map(str, range(len(prompts)))),
        rows=prompts.float(),
        owner=torch.full((len(prompts),), -1),
    )
    text: Any = task.text
    return replace(task, text=replace(text, sets={"prompt": kept}))


def test_prompts_of_no_class_are_read_and_the_names_are_not(toy: Any) -> None:
    task, x = toy(counts=(3, 1, 4, 2))
    generator = torch.Generator().manual_seed(7)
    rows = 3 * torch.randn(9, x.shape[1], generator=generator)
    config = sim.Config(text="prompt")
    got = logits(with_prompts(task, rows), x, config, lam=0.3)
    unit = F.normalize(rows, dim=-1).double()
    expected = naive(x, task.support.x, task.support.labels, unit, 0.3)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    renamed = replace(task.text, names=-task.text.names, template_rows=-task.text.template_rows)
    other = with_prompts(replace(task, text=renamed), rows)
    assert torch.equal(logits(other, x, config, lam=0.3), got)


def test_a_cache_without_prompts_says_how_to_add_them(toy: Any) -> None:
    task, x = toy()
    with pytest.raises(MissingComponentError, match=r"no prompts; it has: name.*prompts=FILE"):
        logits(task, x, sim.Config(text="prompt"))

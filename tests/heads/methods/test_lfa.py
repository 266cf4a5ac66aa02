import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from heads.contract.rows import Rows, TaskView
from heads.methods import lfa
from heads.ops.alignment import rotation
from heads.ops.randomness import generator
from heads.ops.reranking import hardest_triplet, reranking
from heads.training.samplers import shuffled
from heads.training.trainer import train

STILL = lfa.Hyper(noise=0.0, drop=0.0)


def anchors(task: TaskView) -> Tensor:
    assert task.text is not None
    return task.text.anchors().to(task.support.x)


def labels(task: TaskView) -> Tensor:
    assert task.support.labels is not None
    return task.support.labels


def answered(task: TaskView, x: Tensor, config: lfa.Config, hyper: lfa.Hyper = STILL) -> Tensor:
    (run,) = train(lfa.METHOD, config, [task], [hyper])
    return run.head.logits(Rows.of(x))


def naive_rank(h: Tensor, texts: Tensor, y: list[int]) -> list[float]:
    """Equation (2) of one row after the other, in loops."""
    out = []
    for row, label in zip(h, y, strict=True):
        u = row / row.norm()
        distance = [float((u - t).norm()) for t in texts]
        near = sorted(range(len(texts)), key=distance.__getitem__)[:3]
        hinge = [
            0.0
            if k == label
            else max(0.0, distance[label] - distance[k] + (1 - float(texts[k] @ texts[label])) / 4)
            for k in near
        ]
        out.append(sum(hinge) / len(hinge))
    return out


def naive_triplet(h: Tensor, texts: Tensor, y: list[int], margin: float) -> list[float]:
    out = []
    for row, label in zip(h, y, strict=True):
        wrong = max(
            (k for k in range(len(texts)) if k != label), key=lambda k: float(row @ texts[k])
        )
        near, far = (float((row - texts[k] + 1e-6).norm()) for k in (label, wrong))
        out.append(max(0.0, near - far + margin))
    return out


def test_losses_equal_naive_loops(toy: Any) -> None:
    task, x = toy(n=30)
    texts, y = anchors(task), torch.arange(30) % 4
    h = x + 0.3 * texts[y]  # some rows rank well
    rank, far = naive_rank(h, texts, y.tolist()), naive_triplet(h, texts, y.tolist(), 0.1)
    assert 0 < sum(value == 0 for value in rank) < 30
    assert 0 < sum(value == 0 for value in far) < 30
    torch.testing.assert_close(
        reranking(h, texts, y), torch.tensor(rank, dtype=torch.float64), atol=1e-6, rtol=0
    )
    got = hardest_triplet(h, texts, y, 0.1)
    torch.testing.assert_close(got, torch.tensor(far, dtype=torch.float64), atol=1e-6, rtol=0)


def naive_training(task: TaskView, start: Tensor, config: lfa.Config) -> tuple[Tensor, Tensor]:
    """Full-batch AdamW with a cosine to 1e-7 by torch itself; (last map, running mean)."""
    x, texts, y = task.support.x, anchors(task), labels(task)
    weight = start.clone().requires_grad_()
    optim = torch.optim.AdamW([weight], lr=5e-4, weight_decay=5e-4)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optim, config.steps, eta_min=1e-7)
    mean = torch.eye(x.shape[1]).to(x)
    for step in range(config.steps):
        h = x @ weight
        if config.loss == "triplet":
            cosine = h @ texts.T
            cosine[torch.arange(len(y)), y] = -torch.inf
            value = F.triplet_margin_loss(h, texts[y], texts[cosine.argmax(1)], margin=0.1)
        elif config.loss == "contrastive":
            value = F.cross_entropy(h @ texts.T / 0.07, y)
        else:
            u = F.normalize(h, dim=-1)
            distance = torch.cdist(u, texts)
            near = distance.topk(min(3, len(texts)), largest=False).indices
            margin = (1 - (texts[near] * texts[y][:, None]).sum(-1)) / 4
            own = distance.gather(1, y[:, None])
            hinge = (own - distance.gather(1, near) + margin).clamp_min(0)
            value = torch.where(near == y[:, None], 0, hinge).mean()
        optim.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optim.step()
        rate.step()
        kept = 0.9 + 0.1 * (1 - math.exp(-5 * min(step, config.steps / 2) / (config.steps / 2)))
        mean = kept * mean + (1 - kept) * weight.detach()
    return weight.detach(), mean


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every step take the whole support, as the golden values do."""
    monkeypatch.setattr(lfa, "shuffled", lambda size, **more: shuffled(size, drop_last=True))


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize("loss", ["reranking", "triplet", "contrastive"])
def test_training_equals_torch(toy: Any, loss: Any) -> None:
    task, x = toy(counts=(5, 3, 4, 6))
    config = lfa.Config(loss=loss, steps=20, beta=0.5)
    params, _ = lfa.prepare(task, config, STILL)
    last, mean = naive_training(task, params["map"], config)
    (run,) = train(lfa.METHOD, config, [task], [STILL])
    assert float((last - params["map"]).abs().max()) > 1e-3
    torch.testing.assert_close(run.head.params["map"], last, rtol=0, atol=1e-6)
    torch.testing.assert_close(run.head.params["mean"], mean, rtol=0, atol=1e-6)
    cosine = F.normalize(x @ last, dim=-1) @ anchors(task).T
    torch.testing.assert_close(run.head.logits(Rows.of(x)), 20 * cosine, rtol=0, atol=1e-4)


def test_the_rotation_is_the_best_and_turns_the_rest_least(toy: Any) -> None:
    task, _ = toy(d=9)
    x, target = task.support.x, anchors(task)[labels(task)]
    turn = rotation(x, target)
    eye = torch.eye(9).double()
    torch.testing.assert_close(turn.T @ turn, eye)
    tiny = torch.linalg.svd(x.T @ target + 1e-8 * eye)  # the limit of a small multiple of I
    torch.testing.assert_close(turn, tiny.U @ tiny.Vh, rtol=0, atol=1e-6)
    best = float((x @ turn - target).square().sum())
    for seed in range(5):
        rng = torch.Generator().manual_seed(seed)
        skew = torch.randn(9, 9, generator=rng, dtype=torch.float64) / 10
        other = turn @ torch.linalg.matrix_exp(skew - skew.T)
        assert float((x @ other - target).square().sum()) > best
    doubled = torch.cat([x, x[:3]]), torch.cat([target, target[:3]])
    weight = torch.ones(len(x)).double()
    weight[:3] = 2
    torch.testing.assert_close(rotation(x, target, weight), rotation(*doubled), rtol=0, atol=1e-8)


def test_beta_is_the_first_best_on_the_splits(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task, _ = toy(counts=(6, 6, 6, 6), d=8)
    x, y, texts = task.support.x, labels(task), anchors(task)
    weights = torch.ones(len(x)).double()
    rng = generator(task.seed, "lfa", "beta")
    accuracy = torch.zeros(25)
    for _ in range(3):
        order = torch.randperm(24, generator=rng)
        fitted, rest = order[:19], order[19:]
        turn = rotation(x[fitted], texts[y[fitted]])
        for i in range(25):
            w0 = (1 - i / 24) * turn + i / 24 * torch.eye(8).double()
            answer = (F.normalize(x[rest] @ w0, dim=-1) @ texts.T).argmax(1)
            accuracy[i] += (answer == y[rest]).sum()
    expected = int(accuracy.argmax()) / 24
    assert lfa.cross_validated(x, y, texts, weights, task.seed) == expected
    monkeypatch.setattr(lfa, "CHUNK", 2)
    assert lfa.cross_validated(x, y, texts, weights, task.seed) == expected
    assert lfa.cross_validated(x[:1], y[:1], texts, weights[:1], task.seed) == 0.9
    (run,) = train(lfa.METHOD, lfa.Config(steps=1), [task], [STILL])
    assert run.watch["beta"] == [pytest.approx(expected)]
    assert lfa.METHOD.notes([run.watch]) == [
        f"Share of the identity at the start (beta): {expected:.3g}."
    ]


def test_all_of_the_identity_is_zero_shot(toy: Any) -> None:
    task, x = toy(bias=0.5)
    got = answered(task, x, lfa.Config(beta=1.0, steps=0))
    torch.testing.assert_close(got, 20 * x @ anchors(task).T + 0.5)


def test_a_step_adds_its_noise_and_leaves_out_channels(toy: Any, whole_batch: Any) -> None:
    task, _ = toy(counts=(300, 300), d=40)
    batch = whole_batch(task)
    _, fixed = lfa.prepare(task, lfa.Config(steps=64, beta=1.0), lfa.Hyper())
    flags = list(zip(fixed["is_noisy"].tolist(), fixed["is_dropped"].tolist(), strict=True))
    assert len(set(flags)) == 4
    seen = []
    for flag in set(flags):
        at = replace(batch, step=torch.tensor(flags.index(flag)))
        x = lfa.disturbed(fixed, at, lfa.Hyper())
        left_out = x == 0
        assert float(left_out.double().mean()) == pytest.approx(0.05 * flag[1], abs=0.005)
        gap = (x * (1 - 0.05 * flag[1]) - batch.x)[~left_out]
        assert float(gap.std()) == pytest.approx(0.035 * flag[0], abs=1e-3)
        seen.append(x)
    shifts = fixed["shift"].tolist()
    assert len(set(shifts)) > 32
    assert max(shifts) < 600


def test_other_classes_are_answered_by_the_running_mean(toy: Any) -> None:
    task, x = toy(counts=(5, 3, 4, 6))
    (run,) = train(lfa.METHOD, lfa.Config(steps=9), [task], [STILL])
    assert task.text is not None
    head = run.head
    params, fixed = lfa.rebind(head.params, head.fixed, task.text, head.config)
    cosine = F.normalize(x @ head.params["mean"], dim=-1) @ anchors(task).T
    got = lfa.terms(params, fixed, Rows.of(x), head.config, head.hyper)["logits"]
    torch.testing.assert_close(got, 20 * cosine)
    assert not torch.allclose(head.params["mean"], head.params["map"])


def golden(shared: Callable[[str], Path], name: str, shots: int) -> dict[str, Tensor]:
    with np.load(shared(f"golden/lfa_{name}_{shots}shot.npz"), allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files if file[key].ndim > 0}


CASES = [("caltech50", 1), ("caltech50", 4), ("caltech50", 16), ("imagenet256", 4)]


@pytest.mark.parametrize(("name", "shots"), CASES)
def test_golden_start(name: str, shots: int, features: Any, shared: Callable[[str], Path]) -> None:
    # saic-fi/LFA@2ee3bba in float32, values stored as float16
    task, x, _ = features(name, "train" if name == "imagenet256" else f"train{shots}")
    wanted = golden(shared, name, shots)
    x = x[wanted["rows"]]
    got = answered(task, x, lfa.Config(beta=0.0, steps=0))
    assert float((got - wanted["logits_procrustes0"].float()).abs().max()) < 0.1
    # where beta > 0 the released complement is arbitrary: a positive factor a row
    got, theirs = answered(task, x, lfa.Config(beta=0.9, steps=0)), wanted["logits_procrustes09"]
    factor = (got * theirs).sum(1, keepdim=True) / got.square().sum(1, keepdim=True)
    assert float((factor * got - theirs).abs().max()) < 0.1
    assert float((factor - 1).abs().max()) < 0.05
    assert same_answers(got, theirs) == 1.0


def same_answers(got: Tensor, theirs: Tensor, tie: float = 0.1) -> float:
    """Return the share of rows whose best class is the released one, or within `tie` of it."""
    best = theirs.float().gather(1, got.argmax(1, keepdim=True))[:, 0]
    return float((theirs.float().amax(1) - best < tie).double().mean())


TIES = {"caltech50": 0.1, "imagenet256": 0.35}
"""How far apart, of 100, classes are told from a tie: by float16; and with 256 classes for 512
channels by the released start, which is arbitrary in half of them. Starts that differ there alone,
in three draws, differ from the release in 6 or 7 of 400 answers, by up to 0.34."""


@pytest.mark.long
@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize(("name", "shots"), CASES)
def test_golden_answers_of_trained_maps(
    name: str, shots: int, features: Any, shared: Callable[[str], Path]
) -> None:
    """200 steps without noise; the start differs where no shot speaks, so answers are compared."""
    task, x, _ = features(name, "train" if name == "imagenet256" else f"train{shots}")
    wanted = golden(shared, name, shots)
    for key, loss in (("logits_adaptive", "reranking"), ("logits_triplet", "triplet")):
        if key in wanted:
            config = lfa.Config(loss=loss, beta=0.9)  # type: ignore[arg-type]
            got = answered(task, x[wanted["rows"]], config)
            assert same_answers(got, wanted[key], TIES[name]) == 1.0
            assert same_answers(got, wanted[key]) > 0.97


@pytest.mark.long
@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize("loss", ["reranking", "triplet"])
def test_golden_steps(
    loss: Any, features: Any, shared: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, x, _ = features("caltech50", "train4")
    path = shared("golden/lfa_steps_caltech50_4shot.npz")
    with np.load(path, allow_pickle=False) as file:
        start = torch.from_numpy(file["W_start"])
        wanted = torch.from_numpy(file[f"logits_{'triplet' if loss == 'triplet' else 'adaptive'}"])
    prepare = lfa.METHOD.prepare

    def started(*given: Any) -> Any:
        params, fixed = prepare(*given)
        return params | {"map": start.clone()}, fixed

    config = lfa.Config(loss=loss, steps=50, beta=0.9)
    (run,) = train(replace(lfa.METHOD, prepare=started), config, [task], [STILL])
    got = run.head.logits(Rows.of(x[:400]))
    assert float((got - wanted).abs().max()) < 1e-3

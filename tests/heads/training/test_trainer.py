"""The trainer: alone or stacked, a run is the same run; stages, search and failures."""

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from heads.contract.method import AnyMethod
from heads.contract.rows import Kind, Rows, TaskView
from heads.contract.settings import with_values
from heads.fitted import Fitted
from heads.training.stacking import prepare, width_of
from heads.training.trainer import train


def points(toy: AnyMethod, rates: tuple[float, ...] = (0.01, 0.05, 0.2)) -> list[Any]:
    return [with_values(toy.hyper(), {"lr": lr}) for lr in rates]


class CountingJudge:
    """Searches alpha by a rule of its own and remembers who was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, int]] = []

    def accuracy(self, task: int, head: Fitted) -> float | None:
        return None

    def search(self, task: int, point: int, stage: int, head: Fitted) -> dict[str, float]:
        self.asked.append((task, point, stage))
        return {"alpha": 2.0 + task + 10 * point}


@pytest.mark.parametrize("name", ["toy", "toy_two"])
def test_one_run_and_stacked_runs_agree(
    name: str, request: pytest.FixtureRequest, make_view: Any
) -> None:
    method: AnyMethod = request.getfixturevalue(name)
    views = [make_view(seed=s) for s in range(2)]
    config = method.config(epochs=7, batch=9)
    judges = [CountingJudge(), CountingJudge()]
    alone = list(train(method, config, views, points(method), judges[0], width=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stacked = list(train(method, config, views, points(method), judges[1], width=100))
    assert sorted(judges[0].asked) == sorted(judges[1].asked)
    by_run = {(o.task, o.point): o for o in stacked}
    assert len(by_run) == len(alone) == 6
    for one in alone:
        other = by_run[one.task, one.point]
        assert one.head.hyper == other.head.hyper
        for mine, theirs in (
            (one.head.params, other.head.params),
            (one.head.fixed, other.head.fixed),
        ):
            assert mine.keys() == theirs.keys()
            for key, value in mine.items():
                torch.testing.assert_close(value, theirs[key], rtol=0, atol=1e-9)
        for key, trace in one.watch.items():
            assert trace == pytest.approx(other.watch[key])


@pytest.mark.parametrize("width", [1, 2, 3])
def test_width_groups_the_grid_alone(toy: AnyMethod, make_view: Any, width: int) -> None:
    runs = list(train(toy, toy.config(), [make_view()], points(toy), width=width))
    assert [o.point for o in runs] == [0, 1, 2]
    reference = list(train(toy, toy.config(), [make_view()], points(toy), width=1))
    for one, other in zip(runs, reference, strict=True):
        torch.testing.assert_close(
            one.head.params["weight"], other.head.params["weight"], rtol=0, atol=1e-9
        )


def test_tasks_of_other_shapes_are_not_stacked(toy: AnyMethod, make_view: Any) -> None:
    views = [make_view(n=20), make_view(n=24), make_view(n=24, seed=1)]
    runs = list(train(toy, toy.config(), views, points(toy), width=100))
    assert [(o.task, o.point) for o in runs] == [(s, g) for s in range(3) for g in range(3)]


def test_a_hand_written_loop_gives_the_same(toy: AnyMethod, make_view: Any) -> None:
    """Full batches, so that the loop needs no sampler of ours."""
    view: TaskView = make_view(n=12)
    (run,) = train(toy, toy.config(epochs=20, batch=100), [view], points(toy, (0.05,)))
    weight = torch.zeros(4, 8, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    opt = torch.optim.AdamW([weight, bias], lr=0.05, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=20)
    assert view.text is not None
    assert view.support.labels is not None
    for _ in range(20):
        x = view.support.x
        logits = 10 * x @ view.text.anchors().mT + 10 * (x @ weight.mT + bias)
        opt.zero_grad()
        F.cross_entropy(logits, view.support.labels).backward()  # type: ignore[no-untyped-call]
        opt.step()
        schedule.step()
    torch.testing.assert_close(run.head.params["weight"], weight.detach(), rtol=0, atol=1e-9)


def test_same_seed_same_bits_and_other_seed_others(toy: AnyMethod, make_view: Any) -> None:
    def weight(seed: int) -> torch.Tensor:
        view = make_view()
        view = TaskView(
            support=view.support, pool=None, text=view.text, classes=view.classes, seed=seed
        )
        (run,) = train(toy, toy.config(batch=7), [view], points(toy, (0.05,)))
        return run.head.params["weight"]

    assert torch.equal(weight(1), weight(1))
    assert not torch.equal(weight(1), weight(2))


def test_prepare_is_shared_unless_it_read_what_differs(make_toy: Any, make_view: Any) -> None:
    calls = []
    plain = make_toy("toy", lambda config: ())

    def counted(task: TaskView, config: Any, hyper: Any) -> Any:
        calls.append(hyper.shift)
        return plain.prepare(task, config, hyper)

    method = make_toy("toy", lambda config: (), prepare=counted)
    rates = points(method)
    assert len(list(train(method, method.config(), [make_view()], rates))) == 3
    assert len(calls) == 1
    shifted = [
        with_values(method.hyper(), {"shift": s, "lr": r}) for s in (0.0, 1.0) for r in (0.1, 1)
    ]
    runs = list(train(method, method.config(), [make_view()], shifted))
    assert calls[1:] == [0.0, 1.0]
    assert [float(o.head.params["weight"][0, 0]) for o in sorted(runs, key=lambda o: o.point)] == [
        0, 0, 1, 1,
    ]  # fmt: skip


def test_search_carries_into_the_next_stage(toy_two: AnyMethod, make_view: Any) -> None:
    judge = CountingJudge()
    runs = list(train(toy_two, toy_two.config(), [make_view()], points(toy_two), judge))
    assert judge.asked == [(0, g, 0) for g in range(3)]
    for run in runs:
        assert run.head.hyper.alpha == 2.0 + 10 * run.point
        assert run.watch["level"][-1] > run.watch["level"][0]
    frozen = [o.head.fixed["keys"] for o in runs]
    assert not torch.equal(frozen[0], frozen[1])
    torch.testing.assert_close(
        frozen[2], runs[2].head.fixed["anchors"] + runs[2].head.params["weight"]
    )


class Script:
    """Says what accuracy each epoch had, whatever was learned."""

    def __init__(self, accuracies: list[float]) -> None:
        self.accuracies = accuracies
        self.seen: list[torch.Tensor] = []

    def accuracy(self, task: int, head: Fitted) -> float | None:
        self.seen.append(head.params["weight"].clone())
        return self.accuracies[len(self.seen) - 1]

    def search(self, task: int, point: int, stage: int, head: Fitted) -> dict[str, float]:
        return {}


def test_best_val_keeps_the_latest_of_the_best_epochs(toy: AnyMethod, make_view: Any) -> None:
    judge = Script([0.5, 0.9, 0.7, 0.9, 0.1])
    config = toy.config(epochs=5, keep="best-val")
    (run,) = train(toy, config, [make_view()], points(toy, (0.05,)), judge)
    assert torch.equal(run.head.params["weight"], judge.seen[3])


def test_best_val_of_stacked_runs_is_kept_run_by_run(toy: AnyMethod, make_view: Any) -> None:
    judge = Script([0.9, 0.1, 0.5, 0.6, 0.5, 0.7])  # epoch by epoch, two runs
    config = toy.config(epochs=3, keep="best-val")
    runs = list(train(toy, config, [make_view()], points(toy, (0.05, 0.1)), judge, width=2))
    assert torch.equal(runs[0].head.params["weight"], judge.seen[0])
    assert torch.equal(runs[1].head.params["weight"], judge.seen[5])


def test_validation_is_asked_every_so_many_steps_and_at_the_end(
    toy: AnyMethod, make_view: Any
) -> None:
    judge = Script([0.1, 0.9, 0.3, 0.2])
    config = toy.config(epochs=5, batch=10, keep="best-val", look=3)  # 10 steps
    (run,) = train(toy, config, [make_view()], points(toy, (0.05,)), judge)
    assert len(judge.seen) == 4
    assert torch.equal(run.head.params["weight"], judge.seen[1])


def test_a_run_ends_when_its_patience_is_used_up(toy: AnyMethod, make_view: Any) -> None:
    judge = Script([0.5, 0.9, 0.9, 0.4] + [1.0] * 9)
    config = toy.config(epochs=13, keep="best-val", patience=2)
    (run,) = train(toy, config, [make_view()], points(toy, (0.05,)), judge)
    assert len(judge.seen) == 4  # equals do not count as better, but the latest of them is kept
    assert torch.equal(run.head.params["weight"], judge.seen[2])


def test_runs_end_one_by_one(toy: AnyMethod, make_view: Any) -> None:
    judge = Script([0.9, 0.1, 0.5, 0.2, 0.3, 0.2, 0.1])  # the first run ends at its second look
    config = toy.config(epochs=9, keep="best-val", patience=1)
    runs = list(train(toy, config, [make_view()], points(toy, (0.05, 0.1)), judge, width=2))
    assert len(judge.seen) == 6
    assert torch.equal(runs[0].head.params["weight"], judge.seen[0])
    assert torch.equal(runs[1].head.params["weight"], judge.seen[4])


@pytest.mark.parametrize("width", [1, 3])
def test_a_failed_point_is_named_and_leaves_the_others_alone(
    toy: AnyMethod, make_view: Any, width: int
) -> None:
    runs = list(
        train(toy, toy.config(), [make_view()], points(toy, (0.05, 1e308, 0.2)), width=width)
    )
    assert [o.failed is None for o in runs] == [True, False, True]
    assert runs[1].failed is not None
    assert "toy" in runs[1].failed
    assert "lr=1e+308" in runs[1].failed
    alone = list(train(toy, toy.config(), [make_view()], points(toy, (0.2,))))
    torch.testing.assert_close(
        runs[2].head.params["weight"], alone[0].head.params["weight"], rtol=0, atol=1e-9
    )


def test_class_weights_reach_the_loss(toy: AnyMethod, make_view: Any) -> None:
    view = make_view(n=8, c=2)
    heavy = torch.where(view.support.labels == 0, 1.9, 0.1).double()
    weighted = replace(view, support=replace(view.support, weights=heavy))
    runs = [next(train(toy, toy.config(), [v], points(toy, (0.05,)))) for v in (view, weighted)]
    biases = [run.head.params["bias"] for run in runs]
    assert biases[1][0] - biases[1][1] > biases[0][0] - biases[0][1]


def test_width_follows_the_work_of_a_step(toy: AnyMethod, make_view: Any) -> None:
    def width(n: int, d: int) -> int:
        view = make_view(n=n, d=d)
        (cell,) = prepare(toy, toy.config(batch=n), 0, view, points(toy))
        return width_of(cell, toy.stages(toy.config(batch=n)), toy.config(batch=n))

    assert width(20, 16) > 1
    assert width(20_000, 512) == 1
    assert width(20, 32_768) == 1  # few rows, but an optimiser's passes over many parameters


@pytest.mark.parametrize(("rows", "seen"), [(8, [8, 8, 4]), (5, [5, 5, 5, 5])])
def test_a_run_alone_computes_with_no_padding(
    toy: AnyMethod, make_toy: Any, make_view: Any, rows: int, seen: list[int]
) -> None:
    (stage,) = toy.stages(toy.config(batch=rows))
    sizes: list[int] = []

    def counted(params: Any, fixed: Any, state: Any, batch: Any, *rest: Any) -> Any:
        sizes.append(len(batch.x))
        return stage.loss(params, fixed, state, batch, *rest)

    method = make_toy("toy", lambda config: (replace(stage, loss=counted),))
    (run,) = train(method, toy.config(epochs=1, batch=rows), [make_view()], points(toy, (0.05,)))
    assert sizes == seen
    stacked = list(
        train(toy, toy.config(epochs=1, batch=rows), [make_view()], points(toy, (0.05, 1)))
    )
    torch.testing.assert_close(
        run.head.params["weight"], stacked[0].head.params["weight"], rtol=0, atol=1e-9
    )


def test_support_of_a_stage_may_be_seen_in_views(toy: AnyMethod, make_view: Any) -> None:
    view = make_view()
    noisy = F.normalize(view.support.x[:, None] + 0.3, dim=-1)
    rows = Rows(
        x=view.support.x,
        norms=view.support.norms,
        labels=view.support.labels,
        kinds={Kind("views", "rrc50"): noisy},
    )
    other = TaskView(support=rows, pool=None, text=view.text, classes=view.classes, seed=0)
    runs = [next(train(toy, toy.config(), [v], points(toy, (0.05,)))) for v in (view, other)]
    assert not torch.equal(runs[0].head.params["weight"], runs[1].head.params["weight"])

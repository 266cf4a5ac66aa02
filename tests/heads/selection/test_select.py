"""Selection: the best on validation, ties to the default, folds, failures; never the query."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from featcache.errors import TaskError, TrainingError, UsageError
from heads import registry
from heads.contract.method import AnyMethod
from heads.contract.rows import Rows, TaskView
from heads.contract.settings import Grid
from heads.episode import Episode
from heads.selection import select as selection
from heads.selection.chosen import Chosen
from heads.selection.folds import folds
from heads.selection.grid import GridSearch, distances
from heads.selection.select import has_choice, select
from heads.selection.settings import configure
from heads.training.trainer import Outcome, train
from tests.heads.toy_tasks import make_task, rich_world


@pytest.fixture
def task(make_view: Any) -> Episode:
    view = make_view(n=16, dtype=torch.float32)
    return Episode.of(
        view=view,
        val=make_view(n=12, seed=7, dtype=torch.float32).support,
        query=make_view(n=12, seed=8, dtype=torch.float32).support,
    )


def one(method: AnyMethod, task: Episode, mode: str, **given: Any) -> Chosen:
    (chosen,) = select(method, configure(method, given), [task], mode)
    return chosen


def bits(chosen: Chosen) -> list[bytes]:
    tensors = [*chosen.head.params.values(), *chosen.head.fixed.values()]
    return [t.numpy().tobytes() for t in tensors]


def same_as_alone(toy: AnyMethod, task: Episode, chosen: Chosen) -> None:
    """Check that the head is the one trained at its point on the whole support, as it was."""
    alone = one(toy, task, "none", lr=chosen.values["lr"])
    for name, value in alone.head.params.items():
        torch.testing.assert_close(value, chosen.head.params[name])


def test_the_chosen_point_is_the_best_on_validation(toy: AnyMethod, task: Episode) -> None:
    chosen = one(toy, task, "few-shot-val")
    assert task.val is not None
    assert chosen.accuracy == chosen.head.accuracy(task.val)
    for lr in toy.train_grid.axes["lr"]:
        for alpha in toy.post_grid.axes["alpha"]:
            other = one(toy, task, "none", lr=lr).head.at({"alpha": alpha})
            assert other.accuracy(task.val) <= chosen.accuracy
    same_as_alone(toy, task, chosen)


def test_equal_points_fall_to_the_default_then_the_nearest(toy: AnyMethod, task: Episode) -> None:
    search = GridSearch(configure(toy))
    ties = np.ones((3, 4))
    assert search.best(ties, range(3)) == (1, 2)  # lr 0.05, alpha 1: the defaults
    ties[1, 2] = 0
    assert search.best(ties, range(3)) in {(1, 1), (1, 3), (0, 2), (2, 2)}
    worse = ties.copy()
    worse[0, 3] = 5
    assert search.best(worse, range(3)) == (0, 3)


def test_distance_to_a_default_between_grid_values_is_logarithmic() -> None:
    grid = Grid({"lr": [0.01, 0.1, 1.0]})
    _, near, far = distances(grid, {"lr": 0.2})
    assert near == pytest.approx(np.log10(2), abs=1e-6)
    assert far == pytest.approx(1 - np.log10(2), abs=1e-6)


def test_the_order_of_the_grid_does_not_matter(
    make_toy: Any, toy: AnyMethod, task: Episode
) -> None:
    stages = toy.stages
    turned = make_toy("toy", stages, train_grid=Grid({"lr": [0.2, 0.05, 0.01]}))
    assert one(turned, task, "full-val").values == one(toy, task, "full-val").values


def test_labels_of_the_query_are_never_read(toy_two: AnyMethod, task: Episode) -> None:
    shuffled = task.with_query(with_labels(task.query, seed=1))
    for mode in ("few-shot-val", "cv", "none"):
        assert bits(one(toy_two, task, mode)) == bits(one(toy_two, shuffled, mode))


def test_labels_of_validation_are_not_read_without_selection(
    toy_two: AnyMethod, task: Episode
) -> None:
    assert task.val is not None
    shuffled = replace(task, val=with_labels(task.val, seed=1))
    for mode in ("none", "cv"):
        assert bits(one(toy_two, task, mode)) == bits(one(toy_two, shuffled, mode))


def with_labels(rows: Rows, seed: int) -> Rows:
    assert rows.labels is not None
    order = torch.randperm(len(rows.x), generator=torch.Generator().manual_seed(seed))
    return replace(rows, labels=rows.labels[order])


def test_cv_pools_the_folds(toy: AnyMethod, task: Episode) -> None:
    views, held_out = folds(task.view)
    assert len(views) == 4
    assert sum(len(rows.x) for rows in held_out) == 16
    for view, rows in zip(views, held_out, strict=True):
        assert view.support.labels is not None
        assert rows.labels is not None
        assert torch.bincount(view.support.labels).tolist() == [3, 3, 3, 3]
        assert torch.bincount(rows.labels).tolist() == [1, 1, 1, 1]
        assert not {tuple(r) for r in view.support.x.tolist()} & {tuple(r) for r in rows.x.tolist()}
    chosen = one(toy, task, "cv")
    settings = configure(toy)
    correct = np.zeros((3, 4))
    for view, rows in zip(views, held_out, strict=True):
        for i, lr in enumerate(settings.train_grid.axes["lr"]):
            fold = replace(task, view=view, val=rows)
            for j, alpha in enumerate(settings.post_grid.axes["alpha"]):
                head = one(toy, fold, "none", lr=lr).head.at({"alpha": alpha})
                correct[i, j] += round(head.accuracy(rows) * 4)
    assert chosen.accuracy == correct.max() / 16
    i, j = GridSearch(settings).best(correct, range(3))
    assert chosen.values["lr"] == settings.train_grid.axes["lr"][i]
    assert chosen.values["alpha"] == settings.post_grid.axes["alpha"][j]
    same_as_alone(toy, task, chosen)


def test_cv_searches_between_stages(toy_two: AnyMethod, task: Episode) -> None:
    chosen = one(toy_two, task, "cv")
    assert chosen.values["alpha"] in toy_two.post_grid.axes["alpha"]
    assert "keys" in chosen.head.fixed


def test_cv_keeps_single_rows_in_training(toy: AnyMethod, make_view: Any, task: Episode) -> None:
    view = make_view(n=9, dtype=torch.float32)
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 3])
    view = replace(view, support=replace(view.support, labels=labels))
    views, _ = folds(view)
    assert all(3 in v.support.labels.tolist() for v in views if v.support.labels is not None)
    lonely = replace(view, support=view.support.take(torch.tensor([0, 3, 6, 8])))
    with pytest.raises(TaskError, match="two or more training images"):
        one(toy, replace(task, view=lonely), "cv")


@pytest.mark.parametrize("mode", ["few-shot-val", "cv"])
def test_a_grid_may_walk_over_the_config(toy: AnyMethod, task: Episode, mode: str) -> None:
    chosen = one(toy, task, mode, epochs="1,40", lr=0.05, alpha=1.0)
    epochs = chosen.values["epochs"]
    assert epochs in (1, 40)
    assert chosen.head.config.epochs == epochs
    alone = one(toy, task, "none", epochs=int(epochs), lr=0.05, alpha=1.0)
    assert bits(alone) == bits(chosen)
    if mode == "few-shot-val":
        both = {n: one(toy, task, "none", epochs=n, lr=0.05, alpha=1.0) for n in (1, 40)}
        assert task.val is not None
        right = {n: c.head.accuracy(task.val) for n, c in both.items()}
        assert chosen.accuracy == max(right.values())


@pytest.mark.parametrize("mode", ["few-shot-val", "cv"])
def test_a_grid_is_refined_around_its_best(make_toy: Any, task: Episode, mode: str) -> None:
    refined = make_toy("toy", train_grid=Grid({"lr": [1e-3, 1e-1]}, refine=3))
    coarse = make_toy("toy", train_grid=Grid({"lr": [1e-3, 1e-1]}))
    seen: list[tuple[int, int]] = []
    (chosen,) = select(
        refined,
        configure(refined),
        [task],
        mode,
        progress=lambda what, done, of: seen.append((done, of)),
    )
    peak = one(coarse, task, mode).values["lr"]
    lr = chosen.values["lr"]
    steps = np.log10(lr / peak) * 4  # ends and middles of three rounds lie on quarters of a decade
    assert steps == pytest.approx(round(steps), abs=1e-6)
    assert abs(steps) <= 4
    alone = one(coarse, task, "none", lr=lr)
    assert bits(alone) == bits(chosen)
    assert seen[-1][0] == seen[-1][1]


@pytest.mark.parametrize("mode", ["few-shot-val", "cv", "oracle"])
@pytest.mark.parametrize("refine", [0, 3])
def test_a_scout_saves_the_training_and_changes_no_choice(
    make_toy: Any, task: Episode, mode: str, refine: int
) -> None:
    """One that answers as the heads would leads to the head that training all of them leads to."""
    grid = Grid({"lr": [1e-3, 1e-2, 1e-1]}, refine=refine)
    plain = make_toy("toy", train_grid=grid, post_grid=Grid())
    asked: list[float] = []

    def scout(view: TaskView, config: Any) -> Any:
        def answer(points: Any, rows: Tensor) -> Any:
            judged = Rows(x=rows, norms=torch.ones(len(rows)), labels=None)
            for hyper in points:
                asked.append(hyper.lr)
                (outcome,) = train(plain, config, [view], [hyper])
                yield outcome.head.logits(judged)

        return answer

    scouted = make_toy("toy", train_grid=grid, post_grid=Grid(), scout=scout)
    given = replace(task, val=task.query) if mode == "oracle" else task
    one_by_one, chosen = (one(m, given, mode) for m in (plain, scouted))
    assert asked
    assert chosen.values == one_by_one.values
    assert chosen.accuracy == one_by_one.accuracy
    for name, trained in chosen.head.params.items():  # runs beside each other round differently
        torch.testing.assert_close(trained, one_by_one.head.params[name])


def test_values_of_the_users_own_are_not_refined(make_toy: Any, task: Episode) -> None:
    refined = make_toy("toy", train_grid=Grid({"lr": [1e-3, 1e-1]}, refine=8))
    assert one(refined, task, "few-shot-val", lr="0.02,0.3").values["lr"] in (0.02, 0.3)


def test_a_failed_point_never_wins_and_is_reported(toy: AnyMethod, task: Episode) -> None:
    chosen = one(toy, task, "few-shot-val", lr="0.05,1e38")
    assert chosen.values["lr"] == 0.05
    assert len(chosen.failed) == 1
    assert "lr=1e+38" in chosen.failed[0]


@pytest.mark.parametrize("mode", ["few-shot-val", "cv", "none"])
def test_all_failed_is_an_error_that_says_what_to_do(
    toy: AnyMethod, task: Episode, mode: str
) -> None:
    with pytest.raises(TrainingError, match=r"lr=1e\+38.*e\.g\. lr=1e-4"):
        one(toy, task, mode, lr="1e38")


def test_none_refuses_a_grid_of_the_users_own(toy: AnyMethod, task: Episode) -> None:
    with pytest.raises(UsageError, match="choose among the values of alpha"):
        one(toy, task, "none", alpha="1,2")


def test_no_validation_says_what_to_do(toy: AnyMethod, task: Episode) -> None:
    with pytest.raises(TaskError, match="Use selection='cv'"):
        one(toy, replace(task, val=None), "few-shot-val")


def test_has_choice(toy: AnyMethod, toy_two: AnyMethod) -> None:
    fixed = configure(toy, {"lr": 0.1, "alpha": 1})
    assert not has_choice(toy, fixed, "few-shot-val")
    assert has_choice(toy, configure(toy, {"lr": 0.1}), "few-shot-val")
    assert has_choice(toy_two, configure(toy_two, {"lr": 0.1, "alpha": 1}), "few-shot-val")
    kept = configure(toy, {"lr": 0.1, "alpha": 1, "keep": "best-val"})
    assert has_choice(toy, kept, "few-shot-val")
    assert not has_choice(toy, kept, "cv")  # folds cannot say which step to keep


def test_progress_counts_every_run(toy: AnyMethod, task: Episode) -> None:
    told: list[tuple[str, int, int]] = []
    select(
        toy,
        configure(toy),
        [task, task],
        "full-val",
        progress=lambda what, done, total: told.append((what, done, total)),
    )
    assert told == [("training", i, 6) for i in range(1, 7)]


def test_selection_does_not_hold_every_head(make_toy: Any, task: Episode) -> None:
    """Heads of a grid can be large: only the best one stays."""
    best = selection._Best(GridSearch(configure(make_toy("toy"))))
    for point in range(3):
        head = cast(Any, SimpleNamespace())
        outcome = Outcome.__new__(Outcome)
        for name, value in {"task": 0, "point": point, "head": head, "failed": None}.items():
            object.__setattr__(outcome, name, value)
        best.offer(outcome, torch.tensor([0, point, 0, 0]))
    assert best._best is not None
    assert best._best[1].point == 2


@pytest.mark.parametrize("mode", ["few-shot-val", "cv", "oracle"])
def test_a_transductive_method_is_chosen_with_the_queries_but_not_their_labels(
    make_toy: Any, task: Episode, mode: str
) -> None:
    seen: list[Rows] = []
    plain = make_toy("toy")

    def noted(params: Any, fixed: Any, rows: Rows, config: Any, hyper: Any) -> Any:
        seen.append(rows)
        return plain.terms(params, fixed, Rows.of(rows.x), config, hyper)

    method = make_toy("toy", terms=noted, transductive=True)
    given = replace(task, val=task.query) if mode == "oracle" else task
    chosen = one(method, given, mode, lr=0.05)
    assert seen
    for rows in seen:
        queries = rows if rows.among is None else rows.among
        assert torch.equal(queries.x, task.query.x)
        assert (rows.among is not None) == (mode != "oracle")
        assert rows.labels is queries.labels is None
    expected = one(plain, given, mode, lr=0.05)
    assert chosen.accuracy == expected.accuracy
    assert chosen.values == expected.values


def test_folds_of_images_without_what_the_method_reads_are_refused() -> None:
    """lazsl reads crops of its queries alone; validation rows have them, the support has not."""
    method = registry.get("lazsl")
    task = make_task(rich_world(), method)
    with pytest.raises(TaskError, match=r"lazsl reads crops .* Use selection='few-shot-val'"):
        one(method, task, "cv", theta=[0.0, 0.8])
    assert one(method, task, "cv", score="dclip", theta=[0.0, 0.8]).accuracy is not None
    assert one(method, task, "few-shot-val", theta=[0.0, 0.8]).accuracy is not None

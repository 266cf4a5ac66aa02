"""gda and proker against the bare linear algebra that they need, side by side in one process.

Example: python benchmarks/linear_algebra.py

Each is fitted through the method's file and searched on validation rows through the scoring that
every run uses: gda at its 7 values of alpha, proker at one value of beta and its 10 of lam. Beside
it stands a straight list of torch calls that does the same for this case alone: products, one
factorisation or one eigendecomposition in float64, sums and the largest class; on the same support
points, of which proker takes no more than its setting says.

Features are random rows around class means and a common direction. Figures are medians of several
runs that take turns, in CPU seconds of one thread: on a busy machine a clock would measure the
others. Exits with 1 if a method takes more than twice as long, or counts other right answers.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional as F

from featcache.types import TextBank
from heads.contract.method import AnyMethod
from heads.contract.rows import Kind, LazyRows, Rows, TaskView
from heads.fitted import Fitted
from heads.methods import gda, proker
from heads.selection import scoring

SHAPES = ((256, 4, 1), (100, 16, 1), (100, 4, 10), (1000, 4, 1))
"""Classes, shots, views."""
D, VAL, SCALE = 512, 2000, 100.0
BETA = 1.7


def main() -> int:
    """Measure all shapes and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, median of {arguments.repeat} in CPU seconds")
    print("\n| method | classes x shots x views | bare, s | method, s | times | right answers |")
    print("|---|---|---|---|---|---|")
    is_good = True
    for shape in SHAPES:
        task, val = world(*shape)
        for name, method, bare in (
            ("gda", gda.METHOD, bare_gda),
            ("proker", proker.METHOD, bare_proker),
        ):
            calls = partial(bare, task, val), partial(searched, method, task, val)
            (slow, expected), (fast, got) = take_turns(calls, arguments.repeat)
            gap = int((got - expected).abs().max())
            is_good &= fast <= 2 * slow and gap <= 1  # a row may stand at a tie
            said = "equal" if gap == 0 else f"up to {gap} of {VAL} differ"
            times = f"{slow:.3f} | {fast:.3f} | {fast / slow:.2f}"
            print(f"| {name} | {' x '.join(map(str, shape))} | {times} | {said} |", flush=True)
    return 0 if is_good else 1


def searched(method: AnyMethod, task: TaskView, val: Rows) -> Tensor:
    """Fit and search as a run does."""
    hyper = method.hyper(beta=BETA) if hasattr(method.hyper(), "beta") else method.hyper()
    config = method.config()
    if scout := method.scout:
        points = [method.hyper(beta=BETA, lam=lam) for lam in method.train_grid.axes["lam"]]
        return torch.from_numpy(
            scoring.correct_by_scout(scout(task, config), points, val, lambda: None)
        )
    params, fixed = method.prepare(task, config, hyper)
    head = Fitted(method=method, config=config, hyper=hyper, params=params, fixed=fixed)
    return scoring.correct_on_grid(head, val, method.post_grid)


def bare_gda(task: TaskView, val: Rows) -> Tensor:
    """Do the algebra of gda for this case alone."""
    rows, y = support(task)
    d, c = rows.shape[1], task.c
    x = rows.double()
    means = torch.zeros(c, d, dtype=torch.float64).index_add_(0, y, x)
    means /= torch.bincount(y, minlength=c)[:, None]
    x = x - means[y]
    scatter = x.T @ x
    scatter.diagonal().add_(scatter.trace() / (len(x) - 1))
    weight = d * torch.cholesky_solve(means.T, torch.linalg.cholesky(scatter)).T
    offset = -(weight * means).sum(1) / 2
    zero_shot = SCALE * val.x @ anchors(task).T
    learned = val.x @ weight.float().T + offset.float()
    alphas = gda.METHOD.post_grid.axes["alpha"]
    return torch.stack([right(zero_shot + a * learned, val) for a in alphas])


def bare_proker(task: TaskView, val: Rows) -> Tensor:
    """Do the algebra of proker for this case alone."""
    points = proker.support_points(task.support, proker.Config().points)
    rows, y = points.x, points.y
    x, text = rows.double(), anchors(task)
    residual = F.one_hot(y, task.c).double() - x @ text.double().T
    values, vectors = torch.linalg.eigh(torch.exp(BETA * (x @ x.T - 1)))
    target = (vectors.T @ residual).float()
    zero_shot = val.x @ text.T
    kernel = torch.exp(BETA * (val.x @ rows.T - 1)) @ vectors.float()
    hits = []
    for lam in proker.METHOD.train_grid.axes["lam"]:
        gain = (lam / (values + lam)).float()
        hits.append(right(zero_shot + kernel @ (gain[:, None] * target), val))
    return torch.stack(hits)


def support(task: TaskView) -> tuple[Tensor, Tensor]:
    """Return support rows and labels, every view a row."""
    rows, y = task.support.x, task.support.labels
    assert y is not None
    views = task.support.get("views")
    return (rows, y) if views is None else (views.flatten(0, 1), y.repeat_interleave(len(views[0])))


def anchors(task: TaskView) -> Tensor:
    """Return the class anchors."""
    assert task.text is not None
    return task.text.anchors()


def right(logits: Tensor, val: Rows) -> Tensor:
    """Count right answers."""
    assert val.labels is not None
    return torch.eq(logits.max(-1).indices, val.labels).sum()


def world(classes: int, shots: int, views: int) -> tuple[TaskView, Rows]:
    """Draw a task and its validation rows."""
    rng = torch.Generator().manual_seed(0)
    means = torch.randn(classes, D, generator=rng)

    def rows(y: Tensor, *shape: int) -> Tensor:
        noise = torch.randn(len(y), *shape, D, generator=rng)
        middle = means[y].reshape(len(y), *(1 for _ in shape), D)
        return F.normalize(2 + middle + 1.5 * noise, dim=-1)

    y = torch.arange(classes).repeat_interleave(shots)
    asked = torch.arange(VAL) % classes
    text = 2 + means + 2 * torch.randn(classes, D, generator=rng)
    names = tuple(f"class {i}" for i in range(classes))
    bank = TextBank(classes=names, names=text, templates=(), template_rows=None, default="name")
    kinds: dict[Kind, Tensor | LazyRows] = {}
    if views > 1:
        kinds[Kind("views", "rrc50")] = rows(y, views)
    made = Rows(x=rows(y), norms=torch.ones(len(y)), labels=y, kinds=kinds)
    val = Rows(x=rows(asked), norms=torch.ones(VAL), labels=asked)
    return TaskView(support=made, pool=None, text=bank, classes=names, seed=0), val


def take_turns(calls: tuple[Callable[[], Tensor], ...], repeat: int) -> list[tuple[float, Tensor]]:
    """Return each call's median CPU seconds and its last result."""
    seconds: list[list[float]] = [[] for _ in calls]
    results = [call() for call in calls]  # the first one pays for memory
    for _ in range(repeat):
        for k, call in enumerate(calls):
            started = time.process_time()
            results[k] = call()
            seconds[k].append(time.process_time() - started)
    return [(median(s), r) for s, r in zip(seconds, results, strict=True)]


if __name__ == "__main__":
    sys.exit(main())

"""Speed of the trainer against a plain hand-written loop of the same equations, taking turns.

Example: python benchmarks/training.py

The plain loop is autograd and `torch.optim.AdamW`, run after run. Both ask the same sampler for
their rows; the plain loop leaves padding out. Times are medians, for one run (an episode, or a
grid point), in CPU seconds of one thread with the wall clock beside them: on a busy machine a
clock measures the others. The last column is the largest difference between parameters learned.

The last table is one task as large as ImageNet: training over cmm's grid, selection, and the
answers to all queries, in a process of its own. Exits with 1 if a bound is missed.
"""

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from featcache.types import TextBank
from heads.contract.method import AnyMethod
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import with_values
from heads.contract.stages import Stage
from heads.episode import Episode
from heads.methods import cmm, dac, tip_adapter_f
from heads.selection.select import select
from heads.selection.settings import configure
from heads.training.samplers import Drawer
from heads.training.stacking import prepare, width_of
from heads.training.trainer import train

METHODS: dict[str, AnyMethod] = {
    "cmm": cmm.METHOD,
    "tip-adapter-f": tip_adapter_f.METHOD,
    "dac": dac.METHOD,
}
CONFIGS = {
    "cmm": cmm.Config(),
    "tip-adapter-f": tip_adapter_f.Config(),
    "dac": dac.Config(stage="v"),
}
RATES = [{"lr": rate} for rate in (3e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2)]
GRIDS = {"cmm": cmm.METHOD.train_grid.points(), "tip-adapter-f": RATES, "dac": RATES}
BOUNDS = {"overhead": 0.25, "work": 1.05}
"""Largest share of the plain loop's time."""
WALL, MEMORY = 120.0, 4.0
"""Seconds and GiB for the task as large as ImageNet."""
PLAIN_TASKS = 8
"""Tasks on which the plain loop is timed, where there are more: its time a run is steady."""
NOISE = 1.0
"""Length of what sets a row apart from its class."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Tasks of one size."""

    name: str
    bound: str
    classes: int
    shots: int
    d: int
    tasks: int = 1
    grid: bool = False
    """Train the whole grid, else the defaults alone."""
    steps: int = 0
    """Steps of a run; 0 is as many as the method takes."""


SHAPES = (
    Shape(name="episodes", bound="overhead", classes=5, shots=5, d=128, tasks=400, steps=50),
    Shape(name="episodes", bound="work", classes=5, shots=5, d=512, tasks=8, steps=100),
    Shape(name="grid", bound="work", classes=24, shots=16, d=128, grid=True, steps=40),
    Shape(name="grid", bound="work", classes=100, shots=16, d=512, grid=True, steps=20),
    Shape(name="one run", bound="work", classes=1000, shots=16, d=512, steps=40),
)
"""Fewer steps than the methods take, so that all of it is measured in minutes."""


def main() -> int:
    """Measure, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=("overhead", "work", "imagenet"))
    parser.add_argument("--methods", nargs="*", choices=tuple(METHODS), default=list(METHODS))
    arguments = parser.parse_args()
    parts = arguments.only or ("overhead", "work", "imagenet")
    torch.set_num_threads(1)
    shapes = [shape for shape in SHAPES if shape.bound in parts]
    missed = compare(shapes, arguments.methods, arguments.repeat) if shapes else 0
    if "imagenet" in parts:
        alone = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=alone) as pool:
            missed += pool.submit(imagenet).result()
    return 1 if missed else 0


def compare(shapes: Sequence[Shape], methods: Sequence[str], repeat: int) -> int:
    """Print the times of every shape and method; return how many missed their bound."""
    print(f"torch {torch.__version__}, one thread, median of {repeat}, ms a run\n")
    head: tuple[str, ...] = (
        "task",
        "d",
        "method",
        "runs, stacked",
        "plain, CPU ms",
        "trainer, CPU ms",
        "share",
    )
    head += ("bound", "wall, plain / trainer", "differ by")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    missed = 0
    for shape in shapes:
        for name in methods:
            row, met = compared(shape, name, repeat)
            missed += not met
            print(f"| {' | '.join(map(str, row))} |", flush=True)
    return missed


def compared(shape: Shape, name: str, repeat: int) -> tuple[tuple[Any, ...], bool]:
    """Return one row of the table, and whether it keeps its bound."""
    method, config = limited(METHODS[name], shape.steps), CONFIGS[name]
    tasks = [task(shape.classes, shape.shots, shape.d, seed=s) for s in range(shape.tasks)]
    grid = GRIDS[name] if shape.grid else [{}]
    points = [with_values(method.hyper(), values) for values in grid]
    few = tasks[:PLAIN_TASKS]

    def trained() -> list[Tensors]:
        done = {(o.task, o.point): o.head.params for o in train(method, config, tasks, points)}
        return [done[s, g] for s in range(len(few)) for g in range(len(points))]

    def looped() -> list[Tensors]:
        return [descend(name, method, config, one, point) for one in few for point in points]

    plain, ours = take_turns((looped, trained), repeat)
    runs = len(tasks) * len(points)
    gap = max(
        float((mine[n] - theirs[n]).abs().max())
        for mine, theirs in zip(ours.result, plain.result, strict=True)
        for n in theirs
    )
    slow, fast = plain.each(len(few) * len(points)), ours.each(runs)
    (cell,) = prepare(method, config, 0, tasks[0], points)
    width = min(runs, width_of(cell, method.stages(config), config))
    share, bound = fast.cpu / slow.cpu, BOUNDS[shape.bound]
    row: tuple[Any, ...] = (
        f"{shape.classes} x {shape.shots}, {shape.name}",
        shape.d,
        name,
        f"{runs}, {width}",
    )
    row += (f"{slow.cpu:.2f}", f"{fast.cpu:.2f}", f"{share:.2f}", bound)
    row += (f"{slow.wall:.2f} / {fast.wall:.2f}", f"{gap:.0e}")
    return row, share <= bound


def limited(method: AnyMethod, steps: int) -> AnyMethod:
    """Return a method that takes fewer steps, if any are given."""
    if not steps:
        return method

    def stages(config: Any) -> tuple[Stage, ...]:
        return tuple(replace(stage, steps=lambda *_: steps) for stage in method.stages(config))

    return replace(method, stages=stages)


def descend(name: str, method: Any, config: Any, view: TaskView, hyper: Any) -> Tensors:
    """Minimise a method's loss in a loop over its batches."""
    start, loss, decay = LOSSES[name](view, hyper)
    (stage,) = method.stages(config)
    labels = view.support.labels
    assert labels is not None
    drawer = Drawer(stage.batches, view.support, view.seed, 0)
    sizes = drawer.sizes(support=len(labels), pool=0, classes=view.c, shots=0)
    steps = stage.steps(sizes, config)
    params = {n: p.clone().requires_grad_() for n, p in start.items()}
    opt = torch.optim.AdamW(list(params.values()), lr=hyper.lr, eps=1e-4, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=steps)
    for step in range(steps):
        epoch, at = divmod(step, drawer.per_epoch)
        if at == 0:
            drawn = drawer.draw(epoch)
            kept = drawn.weight.sum(-1).long().tolist()
        index = drawn.index[at]
        if kept[at] < len(index):
            index = index[drawn.weight[at] > 0]
        opt.zero_grad()
        value = loss(params, view.support.x[index], labels[index], index)
        value.backward()  # type: ignore[no-untyped-call]
        opt.step()
        schedule.step()
    learned = {n: p.detach() for n, p in params.items()}
    if name == "dac":  # its cache is what the adapter makes of the shots
        x = view.support.x
        F.normalize(x + x @ learned["map"].mT, dim=-1)
    return learned


Loss = Callable[[Tensors, Tensor, Tensor, Tensor], Tensor]


def cmm_loss(view: TaskView, hyper: Any) -> tuple[Tensors, Loss, float]:
    """Return where cmm starts, its loss and its weight decay."""
    assert view.text is not None
    anchors, scale = view.text.anchors(), view.text.logit_scale
    shots = len(view.support.x) / view.c
    start = anchors.new_zeros(anchors.shape[1], anchors.shape[1])

    def loss(params: Tensors, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        mapped = F.normalize(x + x @ params["map"], dim=-1)
        cosine = mapped @ F.normalize(params["text"], dim=-1).mT
        logits = scale * (x @ anchors.mT + hyper.alpha * cosine)
        right = cosine.gather(1, y[:, None])[:, 0]
        wrong = cosine.scatter(1, y[:, None], -2.0).amax(-1)
        hinge = F.relu(wrong - right + hyper.margin).mean()
        pull = hyper.l2 * (params["map"] - start).square().sum()
        pull = pull + hyper.l2_text * (params["text"] - anchors).square().sum()
        value: Tensor = F.cross_entropy(logits, y) + hyper.lam * hinge + pull / shots
        return value

    return {"map": start, "text": anchors}, loss, 0.01


def tip_adapter_f_loss(view: TaskView, hyper: Any) -> tuple[Tensors, Loss, float]:
    """Return where tip-adapter-f starts, its loss and its weight decay."""
    assert view.text is not None
    labels = view.support.labels
    assert labels is not None
    anchors, scale = view.text.anchors(), view.text.logit_scale
    empty = anchors.new_zeros(len(labels), view.c)

    def loss(params: Tensors, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        votes = torch.exp(-hyper.beta * (1 - x @ params["keys"].mT))
        cache = empty[: len(x)].index_add(1, labels, votes)
        return F.cross_entropy(scale * x @ anchors.mT + hyper.alpha * cache, y)

    return {"keys": view.support.x}, loss, 0.01


def dac_loss(view: TaskView, hyper: Any) -> tuple[Tensors, Loss, float]:
    """Return where the first stage of dac starts, its loss and its weight decay."""
    shots = len(view.support.x) / view.c

    def loss(params: Tensors, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        h = F.normalize(x + x @ params["map"].mT, dim=-1)
        scores = h @ h.mT / hyper.tau
        others = index[:, None] != index
        share = scores - scores.masked_fill(~others, -torch.inf).logsumexp(-1, keepdim=True)
        positives = (others & (y[:, None] == y)).float()
        each = (positives * share).sum(-1) / positives.sum(-1).clamp_min(1)
        value: Tensor = hyper.l2 * params["map"].square().sum() / shots - each.mean()
        return value

    d = view.support.x.shape[1]
    return {"map": view.support.x.new_zeros(d, d)}, loss, 0.0


LOSSES: dict[str, Callable[[TaskView, Any], tuple[Tensors, Loss, float]]] = {
    "cmm": cmm_loss,
    "tip-adapter-f": tip_adapter_f_loss,
    "dac": dac_loss,
}


def imagenet() -> bool:
    """Train and select cmm, answer all queries; return whether a bound was missed."""
    torch.set_num_threads(2)
    settings = configure(cmm.METHOD, {})
    rows = 1000 * 16, 1000 * 4, 50_000
    support, val, query = (clustered(n, 1000, 512, seed=0, draw=i) for i, n in enumerate(rows))
    one = Episode.of(
        view=replace(task(1000, 1, 512, seed=0), support=support),
        val=val,
        query=query,
    )
    wall, cpu = time.perf_counter(), time.process_time()
    (chosen,) = select(cmm.METHOD, settings, [one], "few-shot-val")
    fitted = time.perf_counter() - wall
    answered = chosen.head.predict(query)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert query.labels is not None
    top1 = float((answered == query.labels).float().mean())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print("\n| cmm, 1000 x 16, 512-d, two threads | |\n|---|---|")
    print(
        f"| points that are trained, and combined | {len(settings.train_grid)}, "
        f"{len(settings.post_grid)} |"
    )
    print(f"| validation rows, queries | {len(val.x)}, {len(query.x)} |")
    print(f"| wall, of it training and selection | {wall:.1f} s, {fitted:.1f} s |")
    print(f"| CPU | {cpu:.1f} s |")
    print(f"| peak memory of the process | {peak:.2f} GiB |")
    print(f"| top-1 on the queries | {100 * top1:.1f} % |", flush=True)
    return wall > WALL or peak > MEMORY


def task(classes: int, shots: int, d: int, *, seed: int) -> TaskView:
    """Make a task of clustered rows and one text a class near its rows."""
    generator = torch.Generator().manual_seed(seed)
    texts = (
        centres(classes, d, seed) + NOISE * torch.randn(classes, d, generator=generator) / d**0.5
    )
    names = tuple(f"class {c}" for c in range(classes))
    text = TextBank(classes=names, names=texts, templates=(), template_rows=None, default="name")
    support = clustered(classes * shots, classes, d, seed=seed, draw=0)
    return TaskView(support=support, pool=None, text=text, classes=names, seed=seed)


def clustered(n: int, classes: int, d: int, *, seed: int, draw: int) -> Rows:
    """Draw unit rows around the centres of their classes."""
    generator = torch.Generator().manual_seed(1_000_003 * (draw + 1) + seed)
    labels = torch.arange(n) % classes
    noise = NOISE * torch.randn(n, d, generator=generator) / d**0.5
    x = F.normalize(centres(classes, d, seed)[labels] + noise, dim=-1)
    return Rows(x=x, norms=torch.ones(n), labels=labels)


def centres(classes: int, d: int, seed: int) -> Tensor:
    """Draw class centres around a common direction: cosines are as high as CLIP's."""
    generator = torch.Generator().manual_seed(seed)
    common: Tensor = torch.randn(d, generator=generator) / d**0.5
    spread = 0.5 * torch.randn(classes, d, generator=generator) / d**0.5
    result: Tensor = common + spread
    return result


@dataclass(frozen=True, kw_only=True)
class Took:
    """Median seconds of a variant, and what it returned."""

    cpu: float
    wall: float
    result: list[Tensors]

    def each(self, runs: int) -> "Took":
        """Return the milliseconds of one run."""
        return replace(self, cpu=1e3 * self.cpu / runs, wall=1e3 * self.wall / runs)


def take_turns(functions: Sequence[Callable[[], list[Tensors]]], repeat: int) -> list[Took]:
    """Time functions that take turns; the first round warms up where there are several."""
    took: list[list[tuple[float, float]]] = [[] for _ in functions]
    results: list[list[Tensors]] = [[] for _ in functions]
    for _ in range(repeat):
        for i, function in enumerate(functions):
            wall, cpu = time.perf_counter(), time.process_time()
            results[i] = function()
            took[i].append((time.process_time() - cpu, time.perf_counter() - wall))
    cpus, walls = ([median(x[k] for x in times) for times in took] for k in (0, 1))
    return [Took(cpu=c, wall=w, result=r) for c, w, r in zip(cpus, walls, results, strict=True)]


if __name__ == "__main__":
    sys.exit(main())

"""Drawing batches of fixed shapes from (task seed, stage, epoch) alone.

Draws do not depend on the grid point, so every point sees the same rows in the same order, alone or
stacked. Incomplete batches are padded with rows of weight 0. Several short epochs are drawn per
call; their number follows from the sizes.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Generator, Tensor

from heads.contract.rows import Kind, LazyRows, Rows, Tensors, find_kind
from heads.contract.stages import Sampler, Sizes
from heads.ops.randomness import generator
from heads.training.batches import Draw, Source, StepTensors

ENTRIES, EPOCHS = 4096, 64
"""Entries, and at most epochs, that are drawn per call: up to 64 short ones, as call overhead
dominates."""


def full(*, augment: bool = True) -> Sampler:
    """Take every support row in every step, each in one of its views."""
    return Sampler(kind="full", augment=augment)


def shuffled(
    size: int,
    *,
    augment: bool = True,
    drop_last: bool = False,
    share: float = 1.0,
    beside: tuple[tuple[str, int], ...] = (),
) -> Sampler:
    """Shuffle the support anew each epoch; each row comes in one of its views.

    Args:
        size: Rows of a batch.
        augment: Draw among the views.
        drop_last: Leave out the incomplete last batch of an epoch.
        share: Largest share of the support in a batch: with 0.75 and `drop_last` every step takes
            three quarters of it, drawn anew, where `size` is not smaller.
        beside: (name of a fixed tensor, count) of its rows drawn beside each batch.
    """
    return Sampler(
        kind="shuffled",
        size=size,
        augment=augment,
        drop_last=drop_last,
        share=share,
        beside=beside,
    )


def balanced(classes: int = 0, each: int = 0, views: int = 1) -> Sampler:
    """Take `each` images of `classes` classes, every image in `views` different views.

    Args:
        classes: Classes of a batch; 0 is all.
        each: Images of a class; 0 is all that the largest class has.
        views: Views of an image. Where too few are cached the clean image is added; without any it
            is the only one.
    """
    return Sampler(kind="balanced", classes=classes, each=each, views=views)


def pool(size: int, *, take: tuple[tuple[Kind, int], ...] = ()) -> Sampler:
    """Shuffle the unlabelled pool anew each epoch.

    Args:
        size: Rows of a batch.
        take: (kind, count) drawn anew for each row.
    """
    return Sampler(kind="pool", size=size, augment=False, take=take)


def view_pool(size: int, *, drop_last: bool = False) -> Sampler:
    """Shuffle all views of all support rows together; views do not lengthen an epoch.

    Args:
        size: Rows of a batch.
        drop_last: Leave out the incomplete last batch of images; an epoch has one step at least.
    """
    return Sampler(kind="view_pool", size=size, drop_last=drop_last)


class Drawer:
    """One stage's batches over the rows of one task."""

    def __init__(
        self,
        sampler: Sampler,
        rows: Rows,
        seed: int,
        stage: int,
        fixed: Tensors | None = None,
    ) -> None:
        self.sampler = sampler
        self._beside = {name: len((fixed or {})[name]) for name, _ in sampler.beside}
        self._seed, self._stage = seed, stage
        self._n = len(rows)
        self.source = Source.of(sampler, rows)
        self._v = 0 if self.source.views is None else int(self.source.views.shape[1])
        if sampler.kind == "balanced":
            assert rows.labels is not None
            self._members, self._counts = _by_class(rows.labels.cpu())
        self.batch, self.per_epoch = self._shape()
        ordered = self._n * max(1, self._v if sampler.kind == "view_pool" else 1)
        self.epochs = max(1, min(EPOCHS, ENTRIES // max(ordered, self.batch * self.per_epoch)))
        """Epochs drawn per call."""
        self._last: tuple[int, Draw] | None = None

    def _shape(self) -> tuple[int, int]:
        """Return (rows of a batch, steps of an epoch)."""
        s = self.sampler
        if s.kind == "full":
            return self._n, 1
        if s.kind == "balanced":
            some, each = self._balance()
            sweeps = math.ceil(self._members.shape[1] / each)
            return some * each * self._copies(), math.ceil(len(self._members) / some) * sweeps
        size = s.size or self._n
        if s.share < 1:
            size = min(size, max(1, int(s.share * self._n)))
        steps = max(1, self._n // size) if s.drop_last else math.ceil(self._n / size)
        there = self._n * max(1, self._v) if s.kind == "view_pool" else self._n
        return min(size, there), steps

    def _balance(self) -> tuple[int, int]:
        """Return (classes of a batch, images of a class)."""
        classes, largest = self._members.shape
        return (
            min(self.sampler.classes or classes, classes),
            min(self.sampler.each or largest, largest),
        )

    def _copies(self) -> int:
        """Count the different views of an image in a balanced batch."""
        wanted = self.sampler.views
        return min(wanted, self._v + 1 if self._v < wanted else self._v)

    def sizes(self, *, support: int, pool: int, classes: int, shots: int) -> Sizes:
        """Return the sizes from which the method computes the number of steps."""
        return Sizes(
            support=support,
            pool=pool,
            classes=classes,
            shots=shots,
            batch=self.batch,
            per_epoch=self.per_epoch,
        )

    def draw(self, epoch: int) -> Draw:
        """Draw one epoch; the same call gives the same rows, whatever was drawn before."""
        number, within = divmod(epoch, self.epochs)
        if self._last is None or self._last[0] != number:
            self._last = number, self.draw_several(number)
        return self._last[1].steps(within * self.per_epoch, (within + 1) * self.per_epoch)

    def draw_several(self, number: int) -> Draw:
        """Draw the epochs from `number` times `epochs` on, one after the other."""
        rng = generator(self._seed, self._stage, number)
        kind = self.sampler.kind
        if kind == "balanced":
            index, view, weight = self._draw_balanced(rng)
        else:
            if kind == "view_pool" and self._v:
                entry, weight = self._order(rng, self._n * self._v)
                index, view = entry // self._v, entry % self._v
            else:
                index, weight = self._order(rng, self._n)
                view = self._one_view(rng, index.shape)
        source = self.source
        take = {
            name: self._take(rng, values, count, index)
            for name, count in self.sampler.take
            if (values := find_kind(source.kinds, name)) is not None  # an optional need, unmet
        }
        device = source.norms.device
        return Draw(
            index=index.to(device),
            view=view.to(device),
            weight=weight.to(device, source.norms.dtype),
            take={name: positions.to(device) for name, positions in take.items()},
            beside={
                name: self._rows_beside(rng, self._beside[name], count).to(device)
                for name, count in self.sampler.beside
            },
        )

    def _rows_beside(self, rng: Generator, n: int, count: int) -> Tensor:
        """Draw from n positions in shuffled rounds; [t, count], distinct within a step."""
        count = min(count, n)
        each = n // count  # steps of one shuffled round
        deals = math.ceil(self.per_epoch / each)
        orders = _orders(rng, self.epochs * deals, n)[:, : each * count]
        dealt = orders.reshape(self.epochs, deals * each, count)[:, : self.per_epoch]
        return dealt.reshape(-1, count)

    def _order(self, rng: Generator, n: int) -> tuple[Tensor, Tensor]:
        """Shuffle n entries, cut them to the steps of an epoch, pad with weight 0."""
        b, t = self.batch, self.per_epoch
        if self.sampler.kind == "full":
            order = torch.arange(n).expand(self.epochs, n)
        else:
            order = _orders(rng, self.epochs, n)[:, : b * t]
        padding = b * t - order.shape[1]
        weight = torch.ones(self.epochs, b * t)
        if padding:
            order = torch.cat([order, order[:, :padding]], dim=1)
            weight[:, -padding:] = 0
        return order.reshape(-1, b), weight.reshape(-1, b)

    def _one_view(self, rng: Generator, shape: torch.Size) -> Tensor:
        if not self._v:
            return torch.full(shape, -1, dtype=torch.int64)
        return torch.randint(self._v, shape, generator=rng)

    def _draw_balanced(self, rng: Generator) -> tuple[Tensor, Tensor, Tensor]:
        some, each = self._balance()
        classes, largest = self._members.shape
        steps = torch.arange(self.per_epoch)
        blocks = math.ceil(classes / some)
        sweep, block = steps // blocks, steps % blocks
        place = (block[:, None] * some + torch.arange(some)) % classes  # [t some]
        chosen = _orders(rng, self.epochs, classes)[:, place]  # [e t some]
        # shuffle the rows of every class; the padding behind them stays last
        keys = torch.rand(self.epochs, classes, largest, generator=rng, dtype=torch.float64)
        keys += torch.arange(largest) >= self._counts[:, None]
        members = self._members.expand_as(keys).gather(-1, keys.argsort(dim=-1))
        count = self._counts[chosen][..., None]  # [e t some 1]
        wanted = (sweep[:, None, None] * each + torch.arange(each)) % count
        epoch = torch.arange(self.epochs)[:, None, None, None]
        index = members[epoch, chosen[..., None], wanted]
        weight = (torch.arange(each) < count).float()
        views = self._copies()
        b = some * each
        view = self._distinct_views(rng, index.numel(), views).reshape(-1, b * views)
        index = index.reshape(-1, b).repeat_interleave(views, dim=1)
        return index, view, weight.reshape(-1, b).repeat_interleave(views, dim=1)

    def _distinct_views(self, rng: Generator, rows: int, count: int) -> Tensor:
        """Draw `count` different views a row; the clean image (-1) counts as one if needed."""
        choices = torch.arange(-1 if self._v < count else 0, self._v)
        return choices[_orders(rng, rows, len(choices))[:, :count]]

    def _take(self, rng: Generator, values: Tensor | LazyRows, count: int, index: Tensor) -> Tensor:
        available = int(values.shape[1])
        order = torch.rand(*index.shape, available, generator=rng).argsort(dim=-1)
        return order[..., torch.arange(count) % available]

    def gather(self, draw: Draw, step: int, weights: Tensor | None) -> StepTensors:
        """Collect the tensors of one step, as `as_batch` reads them."""
        return self.source.gather(draw, step, weights)


class Batches:
    """The batches of one stage, for all tasks of a group."""

    def __init__(
        self, drawers: Sequence[Drawer], weights: Sequence[Tensor | None], *, fixed_shape: bool
    ) -> None:
        """Join the tasks.

        Args:
            drawers: One a task, of equal shapes.
            weights: Class weights of each task's rows.
            fixed_shape: Keep padding. Otherwise it is left out, except from a balanced batch, whose
                shape a loss may read as classes by images.
        """
        self._drawers = drawers
        self._per_epoch, self._epochs = drawers[0].per_epoch, drawers[0].epochs
        self._source, self._weights = drawers[0].source, weights[0]
        if len(drawers) > 1:
            self._source = Source.concatenate([d.source for d in drawers])
            given = [w for w in weights if w is not None]
            self._weights = torch.cat(given) if given else None
        self._shrinks = not fixed_shape and drawers[0].sampler.kind != "balanced"
        self._real: list[int] = []
        """Number of rows of each step before its padding."""
        self._drawn: tuple[int, Draw] | None = None

    def rows(self, epoch: int, at: int) -> StepTensors:
        """Collect the rows of a step of an epoch."""
        number, within = divmod(epoch, self._epochs)
        if self._drawn is None or self._drawn[0] != number:
            draws = [drawer.draw_several(number) for drawer in self._drawers]
            draw = draws[0] if len(draws) == 1 else Draw.stack(draws)
            self._drawn = number, draw
            self._real = (draw.weight > 0).sum(dim=1).tolist() if self._shrinks else []
        step = within * self._per_epoch + at
        rows = self._real[step] if self._shrinks else None
        return self._source.gather(self._drawn[1], step, self._weights, rows)


def _by_class(labels: Int64[Tensor, " n"]) -> tuple[Int64[Tensor, "c m"], Int64[Tensor, " c"]]:
    """Return the rows of every class, padded, and their number.

    Classes come in the order of their first rows, so that draws do not depend on their numbers.
    """
    _, owner, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    by_owner = owner.argsort(stable=True)
    starts = counts.cumsum(0) - counts
    order = by_owner[starts].argsort()  # classes by first row
    counts, starts = counts[order], starts[order]
    within = torch.arange(int(counts.max()))
    return by_owner[starts[:, None] + within % counts[:, None]], counts


def _orders(rng: Generator, count: int, n: int) -> Int64[Tensor, "count n"]:
    """Draw permutations of n; keys are float64, so that ties do not occur."""
    return torch.rand(count, n, generator=rng, dtype=torch.float64).argsort(dim=1)

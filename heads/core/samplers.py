"""How batches are drawn: from (task seed, stage, epoch) alone, in fixed shapes.

Nothing here knows of a grid point, so every point of a grid sees the same rows in the same order,
and a run gives the same bits alone or stacked. Where rows run out, a batch is filled up with
rows of weight 0.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor

from heads.core.contract import Batch, RoleRows, Sampler, Sizes, Tensors, find_kind


def full(*, augment: bool = True) -> Sampler:
    """Take every support row in every step, each in one of its views."""
    return Sampler(kind="full", augment=augment)


def shuffled(size: int, *, augment: bool = True) -> Sampler:
    """Walk through the support in a new order each epoch, each row in one of its views."""
    return Sampler(kind="shuffled", size=size, augment=augment)


def balanced(classes: int = 0, each: int = 0, views: int = 1) -> Sampler:
    """Take `each` images of `classes` classes, every image in `views` different views.

    Args:
        classes: Classes of a batch; 0 is all.
        each: Images of a class; 0 is all that the largest class has.
        views: Views of an image; where too few are cached the clean image joins in, and an image
            without any comes once.
    """
    return Sampler(kind="balanced", classes=classes, each=each, views=views)


def pool(size: int, *, take: tuple[tuple[str, int], ...] = ()) -> Sampler:
    """Walk through the unlabelled pool in a new order each epoch.

    Args:
        size: Rows of a batch.
        take: (kind or kind.recipe, count) drawn anew for each row into `Batch.extra`.
    """
    return Sampler(kind="pool", size=size, augment=False, take=take)


def view_pool(size: int) -> Sampler:
    """Shuffle all views of all support rows together; an epoch is as long as without views."""
    return Sampler(kind="view_pool", size=size)


@dataclass(frozen=True, kw_only=True)
class Draw:
    """The rows of one epoch, step by step."""

    index: Int64[Tensor, "t b"]
    view: Int64[Tensor, "t b"]
    weight: Float[Tensor, "t b"]
    """1, or 0 for padding."""
    take: Tensors
    """kind -> [t b count], positions among the views or crops of the row."""


class Drawer:
    """One stage's batches over the rows of one task."""

    def __init__(self, sampler: Sampler, rows: RoleRows, seed: int, stage: int) -> None:
        self.sampler = sampler
        self.rows = rows
        self._seed, self._stage = seed, stage
        self._n = len(rows.x)
        kind = f"views.{sampler.recipe}" if sampler.recipe else "views"
        self.views = find_kind(rows.extra, kind) if sampler.augment else None
        self._v = 0 if self.views is None else int(self.views.shape[1])
        self._members: list[Tensor] = []
        if sampler.kind == "balanced":
            assert rows.labels is not None
            labels = rows.labels.cpu()
            # in the order of their first rows, so that numbering the classes anew draws the same
            order = dict.fromkeys(labels.tolist())
            self._members = [torch.nonzero(labels == c)[:, 0] for c in order]
        self.batch, self.per_epoch = self._shape()

    def _shape(self) -> tuple[int, int]:
        """Return (rows of a batch, steps of an epoch)."""
        s = self.sampler
        if s.kind == "full":
            return self._n, 1
        if s.kind == "balanced":
            some, each = self._balance()
            sweeps = math.ceil(max(len(m) for m in self._members) / each)
            return some * each * self._copies(), math.ceil(len(self._members) / some) * sweeps
        size = min(s.size or self._n, self._n)
        return size, math.ceil(self._n / size)

    def _balance(self) -> tuple[int, int]:
        largest = max(len(m) for m in self._members)
        some = min(self.sampler.classes or len(self._members), len(self._members))
        return some, min(self.sampler.each or largest, largest)

    def _copies(self) -> int:
        """Count the different views of an image in a balanced batch."""
        wanted = self.sampler.views
        return min(wanted, self._v + 1 if self._v < wanted else self._v)

    def sizes(self, *, support: int, pool: int, classes: int, shots: int) -> Sizes:
        """Describe this stage to the method's own rule for the number of steps."""
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
        rng = _generator(self._seed, self._stage, epoch)
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
        take = {
            name: self._take(rng, values, count, index)
            for name, count in self.sampler.take
            if (values := find_kind(self.rows.extra, name)) is not None  # an optional need, unmet
        }
        device = self.rows.x.device
        return Draw(
            index=index.to(device),
            view=view.to(device),
            weight=weight.to(device, self.rows.x.dtype),
            take={name: positions.to(device) for name, positions in take.items()},
        )

    def _order(self, rng: Generator, n: int) -> tuple[Tensor, Tensor]:
        """Shuffle n entries, keep as many as an epoch has steps for, fill up with weight 0."""
        b, t = self.batch, self.per_epoch
        order = torch.arange(n) if self.sampler.kind == "full" else torch.randperm(n, generator=rng)
        order = order[: b * t]
        lacking = b * t - len(order)
        weight = torch.ones(b * t)
        if lacking:
            order = torch.cat([order, order[:lacking]])
            weight[-lacking:] = 0
        return order.reshape(t, b), weight.reshape(t, b)

    def _one_view(self, rng: Generator, shape: torch.Size) -> Tensor:
        if not self._v:
            return torch.full(shape, -1, dtype=torch.int64)
        return torch.randint(self._v, shape, generator=rng)

    def _draw_balanced(self, rng: Generator) -> tuple[Tensor, Tensor, Tensor]:
        some, each = self._balance()
        count = len(self._members)
        blocks = math.ceil(count / some)
        order = torch.randperm(count, generator=rng).tolist()
        shuffled_members = [m[torch.randperm(len(m), generator=rng)] for m in self._members]
        index = torch.empty(self.per_epoch, some, each, dtype=torch.int64)
        weight = torch.ones(self.per_epoch, some, each)
        for step in range(self.per_epoch):
            sweep, block = divmod(step, blocks)
            for i in range(some):
                members = shuffled_members[order[(block * some + i) % count]]
                wanted = torch.arange(sweep * each, (sweep + 1) * each) % len(members)
                index[step, i] = members[wanted]
                weight[step, i, len(members) :] = 0
        views = self._copies()
        view = self._distinct_views(rng, index.numel(), views).reshape(self.per_epoch, -1)
        index = index.reshape(self.per_epoch, -1).repeat_interleave(views, dim=1)
        return index, view, weight.reshape(self.per_epoch, -1).repeat_interleave(views, dim=1)

    def _distinct_views(self, rng: Generator, rows: int, count: int) -> Tensor:
        """Draw `count` different views a row; the clean image (-1) counts as one if needed."""
        choices = torch.arange(-1 if self._v < count else 0, self._v)
        order = torch.rand(rows, len(choices), generator=rng).argsort(dim=1)
        return choices[order[:, :count]]

    def _take(self, rng: Generator, values: Any, count: int, index: Tensor) -> Tensor:
        available = int(values.shape[1])
        order = torch.rand(*index.shape, available, generator=rng).argsort(dim=-1)
        return order[..., torch.arange(count) % available]

    def gather(self, draw: Draw, step: int, weights: Tensor | None) -> Tensors:
        """Collect the tensors of one step, as `as_batch` reads them; extras are `extra.<kind>`."""
        index, view, weight = draw.index[step], draw.view[step], draw.weight[step]
        rows = self.rows
        if self.views is None:
            x = rows.x[index]
        else:
            x = self.views[index, view.clamp_min(0)]
            if self.sampler.kind == "balanced":
                x = torch.where((view >= 0)[:, None], x, rows.x[index])
        tensors = {
            "index": index,
            "view": view,
            "weight": weight if weights is None else weight * weights[index],
            "y": torch.full_like(index, -1) if rows.labels is None else rows.labels[index],
            "x": x,
        }
        for name, values in rows.extra.items():
            if values is self.views:
                continue
            if name in draw.take:
                tensors[f"extra.{name}"] = values[index[:, None], draw.take[name][step]]
            else:
                tensors[f"extra.{name}"] = values[index]
        return tensors


def as_batch(tensors: Tensors, step: Tensor, epoch: Tensor) -> Batch:
    """Wrap what `Drawer.gather` collected; done under vmap, which knows no dataclasses."""
    extra = {n.removeprefix("extra."): t for n, t in tensors.items() if n.startswith("extra.")}
    plain = {n: t for n, t in tensors.items() if not n.startswith("extra.")}
    return Batch(**plain, step=step, epoch=epoch, extra=extra)


def _generator(seed: int, stage: int, epoch: int) -> Generator:
    digest = hashlib.blake2b(f"{seed}/{stage}/{epoch}".encode(), digest_size=8).digest()
    return Generator().manual_seed(int.from_bytes(digest, "little") >> 1)

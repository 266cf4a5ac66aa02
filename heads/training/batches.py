"""Gathering the rows of a training step, for one task or for several at once.

The rows of tasks that are trained side by side are concatenated once a stage, so that one indexed
read gathers a step of all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from heads.contract.rows import Batch, Kind, LazyRows, Rows, Tensors, find_kind, gather
from heads.contract.stages import Sampler

JOIN_BYTES = 128 * 2**20
"""Largest features of one kind that are concatenated; larger ones are gathered task by task."""


StepTensors: TypeAlias = tuple[Tensors, dict[Kind, Tensor], Tensors]
"""A batch as vmap takes it, which knows no dataclasses: fields of `Batch`, `kinds`, `beside`."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """The rows of some epochs, step by step; [t s b] for s tasks."""

    index: Int64[Tensor, "t *s b"]
    view: Int64[Tensor, "t *s b"]
    weight: Float[Tensor, "t *s b"]
    """1, or 0 for padding."""
    take: Mapping[Kind, Tensor]
    """[t *s b count], positions among the views or crops of the row."""
    beside: Tensors
    """Name of a fixed tensor -> [t *s count], positions among its rows."""

    def steps(self, start: int, stop: int) -> "Draw":
        """Return the steps from `start` to before `stop`."""
        return Draw(
            index=self.index[start:stop],
            view=self.view[start:stop],
            weight=self.weight[start:stop],
            take={n: t[start:stop] for n, t in self.take.items()},
            beside={n: t[start:stop] for n, t in self.beside.items()},
        )

    @staticmethod
    def stack(draws: Sequence["Draw"]) -> "Draw":
        """Stack the draws of several tasks."""

        def joined(tensors: Sequence[Tensor]) -> Tensor:
            return torch.stack(tuple(tensors), dim=1)

        first = draws[0]
        return Draw(
            index=joined([d.index for d in draws]),
            view=joined([d.view for d in draws]),
            weight=joined([d.weight for d in draws]),
            take={n: joined([d.take[n] for d in draws]) for n in first.take},
            beside={n: joined([d.beside[n] for d in draws]) for n in first.beside},
        )


@dataclass(frozen=True, kw_only=True)
class Source:
    """The rows that batches are gathered from: those of one task, or of several concatenated."""

    x: Tensor | LazyRows
    """[n d], as the others of `Rows`."""
    norms: Tensor
    labels: Tensor | None
    kinds: Mapping[Kind, Tensor | LazyRows]
    views: Tensor | LazyRows | None
    """[n v d], None where none are drawn."""
    lengths: Tensor | None
    mixed: bool
    """Whether a batch may hold clean images beside views."""
    starts: Tensor | None = None
    """[s 1], first row of each task; None for one task."""

    @staticmethod
    def of(sampler: Sampler, rows: Rows) -> "Source":
        """Select the views that a sampler draws from the rows of one task."""
        kind = Kind("views", sampler.recipe)
        return Source(
            x=rows.x,
            norms=rows.norms,
            labels=rows.labels,
            kinds=rows.kinds,
            views=find_kind(rows.kinds, kind) if sampler.augment else None,
            lengths=find_kind(rows.lengths, kind),
            mixed=sampler.kind == "balanced",
        )

    @staticmethod
    def concatenate(sources: Sequence["Source"]) -> "Source":
        """Concatenate the sources of several tasks of equal shapes."""
        first = sources[0]
        s, n = len(sources), len(first.norms)
        kinds = {k: _concatenate([o.kinds[k] for o in sources]) for k in first.kinds}
        viewed = [k for k, values in first.kinds.items() if values is first.views]
        labels = [o.labels for o in sources if o.labels is not None]
        lengths = [o.lengths for o in sources if o.lengths is not None]
        return Source(
            x=_concatenate([o.x for o in sources]),
            norms=torch.cat([o.norms for o in sources]),
            labels=torch.cat(labels) if labels else None,
            kinds=kinds,
            views=kinds[viewed[0]] if viewed else None,
            lengths=torch.cat(lengths) if lengths else None,
            mixed=first.mixed,
            starts=n * torch.arange(s, device=first.norms.device)[:, None],
        )

    def gather(
        self, draw: Draw, step: int, weights: Tensor | None, rows: int | None = None
    ) -> StepTensors:
        """Collect the tensors of one step.

        Args:
            draw: The drawn epochs.
            step: Index of the step among them.
            weights: Class weights of the rows.
            rows: Number of rows to keep from the start of the batch; None is all.
        """
        position, view, weight = draw.index[step], draw.view[step], draw.weight[step]
        if rows is not None and rows < len(position):
            position, view, weight = position[:rows], view[:rows], weight[:rows]
        index = position if self.starts is None else position + self.starts
        if self.views is None:
            x, norms = gather(self.x, index), self.norms[index]
        else:
            at = view.clamp_min(0)
            x = gather(self.views, index, at)
            norms = self.norms[index] if self.lengths is None else self.lengths[index, at]
            if self.mixed:
                x = torch.where((view >= 0)[..., None], x, gather(self.x, index))
                norms = torch.where(view >= 0, norms, self.norms[index])
        fields = {
            "index": position,
            "view": view,
            "weights": weight if weights is None else weight * weights[index],
            "labels": torch.full_like(position, -1) if self.labels is None else self.labels[index],
            "x": x,
            "norms": norms,
        }
        kinds = {}
        for kind, values in self.kinds.items():
            if values is not self.views:
                taken = draw.take[kind][step][:rows] if kind in draw.take else None
                kinds[kind] = gather(values, index, taken)
        return fields, kinds, {name: t[step] for name, t in draw.beside.items()}


def as_batch(tensors: StepTensors, step: Tensor, epoch: Tensor) -> Batch:
    """Build a Batch from what `Source.gather` returned."""
    rows, kinds, beside = tensors
    named: dict[str, Any] = dict(rows)
    return Batch(**named, step=step, epoch=epoch, kinds=kinds, beside=beside)


def _concatenate(parts: Sequence[Tensor | LazyRows]) -> Tensor | LazyRows:
    """Concatenate features of several tasks; large or lazy ones stay where they are."""
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if len(tensors) == len(parts) and sum(t.nbytes for t in tensors) <= JOIN_BYTES:
        return torch.cat(tensors)
    return _LazyConcatenation(parts)


class _LazyConcatenation:
    """Features of several tasks addressed as if they were concatenated; gathered task by task."""

    def __init__(self, parts: Sequence[Tensor | LazyRows]) -> None:
        self._parts, self._n = parts, int(parts[0].shape[0])

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self._parts) * self._n, *self._parts[0].shape[1:]))

    def gather(self, index: Tensor, pick: Tensor | None = None) -> Tensor:
        """Gather by indices [s ...]; row s of the indices lies within task s."""
        gathered = [
            gather(part, index[s] - s * self._n, None if pick is None else pick[s])
            for s, part in enumerate(self._parts)
        ]
        return torch.stack(gathered)

"""How the rows of a drawn step are collected, for one task or for several in one go.

Tasks that are trained side by side are laid end to end once a stage, so that a step gathers the
rows of all of them by one address each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from heads.contract import Batch, RoleRows, Sampler, Tensors, find_kind

BESIDE = "extra.beside."
JOIN_BYTES = 128 * 2**20
"""Features of one kind that are copied to lie end to end; larger ones are gathered task by task."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """The rows of some epochs, step by step; [t s b] where s tasks were drawn for."""

    index: Int64[Tensor, "t *s b"]
    view: Int64[Tensor, "t *s b"]
    weight: Float[Tensor, "t *s b"]
    """1, or 0 for padding."""
    take: Tensors
    """kind -> [t *s b count], positions among the views or crops of the row."""
    beside: Tensors
    """Name of a fixed tensor -> [t *s count], positions among its rows."""

    def steps(self, start: int, stop: int) -> "Draw":
        """Return some of the steps."""
        return Draw(
            index=self.index[start:stop],
            view=self.view[start:stop],
            weight=self.weight[start:stop],
            take={n: t[start:stop] for n, t in self.take.items()},
            beside={n: t[start:stop] for n, t in self.beside.items()},
        )

    @staticmethod
    def side_by_side(draws: Sequence["Draw"]) -> "Draw":
        """Stack the draws of several tasks."""

        def stack(tensors: Sequence[Tensor]) -> Tensor:
            return torch.stack(tuple(tensors), dim=1)

        first = draws[0]
        return Draw(
            index=stack([d.index for d in draws]),
            view=stack([d.view for d in draws]),
            weight=stack([d.weight for d in draws]),
            take={n: stack([d.take[n] for d in draws]) for n in first.take},
            beside={n: stack([d.beside[n] for d in draws]) for n in first.beside},
        )


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a stage's batches are collected from: the rows of one task, or of tasks end to end."""

    x: Any
    """[n d], as of RoleRows the others."""
    norms: Tensor
    labels: Tensor | None
    extra: Mapping[str, Any]
    views: Any
    """[n v d], None where none are drawn."""
    lengths: Tensor | None
    mixed: bool
    """The clean image may stand among the views."""
    starts: Tensor | None = None
    """[s 1], where each task begins; None for one task."""

    @staticmethod
    def of(sampler: Sampler, rows: RoleRows) -> "Source":
        """Read off a sampler which views it draws from the rows of one task."""
        kind = f"views.{sampler.recipe}" if sampler.recipe else "views"
        return Source(
            x=rows.x,
            norms=rows.norms,
            labels=rows.labels,
            extra=rows.extra,
            views=find_kind(rows.extra, kind) if sampler.augment else None,
            lengths=find_kind(rows.lengths, kind),
            mixed=sampler.kind == "balanced",
        )

    @staticmethod
    def end_to_end(sources: Sequence["Source"]) -> "Source":
        """Join the sources of several tasks of equal shapes."""
        first = sources[0]
        s, n = len(sources), len(first.norms)
        extra = {k: _join([o.extra[k] for o in sources]) for k in first.extra}
        viewed = [k for k, values in first.extra.items() if values is first.views]
        labels = [o.labels for o in sources if o.labels is not None]
        lengths = [o.lengths for o in sources if o.lengths is not None]
        return Source(
            x=_join([o.x for o in sources]),
            norms=torch.cat([o.norms for o in sources]),
            labels=torch.cat(labels) if labels else None,
            extra=extra,
            views=extra[viewed[0]] if viewed else None,
            lengths=torch.cat(lengths) if lengths else None,
            mixed=first.mixed,
            starts=n * torch.arange(s, device=first.norms.device)[:, None],
        )

    def gather(
        self, draw: Draw, step: int, weights: Tensor | None, kept: int | None = None
    ) -> Tensors:
        """Collect the tensors of one step; extras are `extra.<kind>`.

        Args:
            draw: What was drawn.
            step: Its step.
            weights: Class weights of the rows.
            kept: How many rows of the batch, from the first on; None is all.
        """
        own, view, weight = draw.index[step], draw.view[step], draw.weight[step]
        if kept is not None and kept < len(own):
            own, view, weight = own[:kept], view[:kept], weight[:kept]
        index = own if self.starts is None else own + self.starts
        if self.views is None:
            x, norms = _pick(self.x, index), self.norms[index]
        else:
            at = view.clamp_min(0)
            x = self.views[index, at]
            norms = self.norms[index] if self.lengths is None else self.lengths[index, at]
            if self.mixed:
                x = torch.where((view >= 0)[..., None], x, _pick(self.x, index))
                norms = torch.where(view >= 0, norms, self.norms[index])
        tensors = {
            "index": own,
            "view": view,
            "weight": weight if weights is None else weight * weights[index],
            "y": torch.full_like(own, -1) if self.labels is None else self.labels[index],
            "x": x,
            "norms": norms,
        }
        tensors |= {f"{BESIDE}{name}": t[step] for name, t in draw.beside.items()}
        for name, values in self.extra.items():
            if values is self.views:
                continue
            if name in draw.take:
                tensors[f"extra.{name}"] = values[index[..., None], draw.take[name][step][:kept]]
            else:
                tensors[f"extra.{name}"] = values[index]
        return tensors


def as_batch(tensors: Tensors, step: Tensor, epoch: Tensor) -> Batch:
    """Wrap what `Source.gather` collected; done under vmap, which knows no dataclasses."""
    extra = {n.removeprefix("extra."): t for n, t in tensors.items() if n.startswith("extra.")}
    plain = {n: t for n, t in tensors.items() if not n.startswith("extra.")}
    return Batch(**plain, step=step, epoch=epoch, extra=extra)


def _pick(values: Any, index: Tensor) -> Tensor:
    """Return values[index]; of a tensor twice as fast."""
    if not isinstance(values, Tensor):
        rows: Tensor = values[index]
        return rows
    return values.index_select(0, index.flatten()).reshape(*index.shape, *values.shape[1:])


def _join(parts: Sequence[Any]) -> Any:
    """Lay features of several tasks end to end; what is large or gathered from a map stays."""
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if len(tensors) == len(parts) and sum(t.nbytes for t in tensors) <= JOIN_BYTES:
        return torch.cat(tensors)
    return _Apart(parts)


class _Apart:
    """Features of several tasks as if they lay end to end; indexed task by task."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self._parts, self._n = parts, int(parts[0].shape[0])
        self.shape = torch.Size((len(parts) * self._n, *parts[0].shape[1:]))

    def __getitem__(self, index: Any) -> Tensor:
        """Gather by addresses [s ...], each row of them within its own task."""
        first, *rest = index if isinstance(index, tuple) else (index,)
        found = []
        for s, part in enumerate(self._parts):
            own = first[s] - s * self._n
            found.append(part[(own, *(r[s] for r in rest))] if rest else part[own])
        return torch.stack(found)

"""A trained head, and scoring rows with it: terms once a chunk, then every post-grid point.

Chunks are cut by bytes, so the memory needed does not grow with the number of rows. A
transductive method gets all rows at once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from featcache.errors import TrainingError
from heads.contract import AnyMethod, Grid, Rows, Scout, Tensors, hyper_values, with_values
from heads.selection.curves import Curves

CHUNK_BYTES = {"cpu": 8 * 2**20, "cuda": 512 * 2**20}
"""Terms, logits and the crops or views read for one chunk; temporaries of `combine` come on top,
about twice as much.

On a CPU small chunks stay in its caches: 2.4 times faster than 64 MiB on 16,000 keys.
"""
SCOUTED = 1024
"""Rows that a scout answers at once, at many points."""
FAR = 2.0**20
"""Where a line is read beside 0: so far out that its slope keeps all its digits."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """A method with everything it learned; enough to predict."""

    method: AnyMethod
    config: Any
    hyper: Any
    """Floats."""
    params: Tensors
    fixed: Tensors

    def at(self, values: dict[str, float]) -> "Head":
        """Return the same head with other hyper-parameters of the post grid."""
        return Head(
            method=self.method,
            config=self.config,
            hyper=with_values(self.hyper, values),
            params=self.params,
            fixed=self.fixed,
        )


def logits(head: Head, rows: Rows) -> Float[Tensor, "n c"]:
    """Return the logits of every row; labels stay out of reach."""
    with torch.no_grad():
        return torch.cat([part for part, _, _ in _logits(head, rows)])


def predict(head: Head, rows: Rows) -> Int64[Tensor, " n"]:
    """Return the class with the largest logit for every row.

    Raises:
        TrainingError: If the logits of a row are not finite.
    """
    answered = _predict(head, rows)
    if lost := int((answered < 0).sum()):
        raise TrainingError(
            f"{head.method.name} gave {lost} of {len(answered)} queries answers that are not "
            f"finite. Set its hyper-parameters nearer to their defaults."
        )
    return answered


def _predict(head: Head, rows: Rows) -> Int64[Tensor, " n"]:
    # written into one tensor: keeping a small one of every chunk would pin the heap between them
    answered = torch.empty(len(rows), dtype=torch.int64, device=rows.x.device)
    with torch.no_grad():
        for part, start, stop in _logits(head, rows):
            answered[start:stop] = _answers(part)
    return answered


def accuracy(head: Head, rows: Rows) -> float:
    """Return top-1 accuracy on labelled rows, in [0, 1]."""
    assert rows.labels is not None
    return int((_predict(head, rows) == rows.labels).sum()) / len(rows.labels)


def hits_on_grid(head: Head, rows: Rows, grid: Grid) -> Int64[Tensor, " g"]:
    """Count right answers on labelled rows at every point of a post grid, in its order.

    The terms of a chunk are computed once. Where the method says how its logits depend on the
    grid, few of its points tell the others (`heads.selection.curves`). Else the last axis is walked
    by vmap, so that what `combine` computes without it is computed once as well.
    """
    assert rows.labels is not None
    curves = Curves.of(head.method.hyper, grid)
    hits = None if curves is None else _hits_by_curves(head, rows, curves)
    return _hits_by_walk(head, rows, grid) if hits is None else hits


def hits_of_scout(
    scout: Scout, points: Sequence[Any], rows: Rows, done: Callable[[], None]
) -> Int64[np.ndarray, " g"]:
    """Count right answers on labelled rows at every point of a train grid.

    Args:
        scout: Of a method.
        points: Hypers.
        rows: Labelled rows.
        done: Called once for every point.
    """
    assert rows.labels is not None
    hits = np.zeros(len(points), dtype=np.int64)
    with torch.no_grad():
        for start in range(0, len(rows), SCOUTED):
            part = slice(start, start + SCOUTED)
            for i, logits in enumerate(scout(points, rows.x[part])):
                hits[i] += int((_answers(logits) == rows.labels[part]).sum())
                if start == 0:
                    done()
    return hits


def _hits_by_curves(head: Head, rows: Rows, curves: Curves) -> Int64[Tensor, " g"] | None:
    """Count right answers by few points; None where the logits are not what the method says."""
    assert rows.labels is not None
    hyper = traced(head.hyper, rows.x)
    hits = torch.zeros(len(curves.grid), dtype=torch.int64, device=rows.x.device)
    ends = rows.x.new_tensor([0.0, FAR])
    with torch.no_grad():
        for terms, start, stop in _terms(head, rows, hyper, curves.computed):

            def logits(values: Mapping[str, Any], terms: Tensors = terms) -> Tensor:
                here = {n: torch.as_tensor(v).to(rows.x) for n, v in values.items()}
                return head.method.combine(terms, head.fixed, head.config, with_values(hyper, here))

            def line(values: Mapping[str, float], logits: Any = logits) -> tuple[Tensor, Tensor]:
                at = torch.func.vmap(lambda value: logits({**values, curves.affine: value}))
                z, far = at(ends)
                return z, (far - z) / FAR

            if start == 0 and not curves.agree(line, logits):
                return None
            hits += curves.hits(line, rows.labels[start:stop])
    return hits


def _hits_by_walk(head: Head, rows: Rows, grid: Grid) -> Int64[Tensor, " g"]:
    """Count right answers point by point."""
    assert rows.labels is not None
    hyper = traced(head.hyper, rows.x)
    names = list(grid.axes)
    outer = Grid({n: grid.axes[n] for n in names[:-1]}).points()
    last = {n: rows.x.new_tensor([float(v) for v in grid.axes[n]]) for n in names[-1:]}
    width = len(grid) // len(outer)
    hits = torch.zeros(len(outer), width, dtype=torch.int64, device=rows.x.device)
    method, fixed, config = head.method, head.fixed, head.config
    with torch.no_grad():
        for terms, start, stop in _terms(head, rows, hyper, width):
            labels = rows.labels[start:stop]
            for i, point in enumerate(outer):
                here = with_values(hyper, {n: rows.x.new_tensor(v) for n, v in point.items()})

                def answers(values: Tensors, here: Any = here, terms: Tensors = terms) -> Tensor:
                    out = method.combine(terms, fixed, config, with_values(here, values))
                    return _answers(out)

                if method.transductive:  # all queries at every point at once would fill the memory
                    points = ({n: t[k] for n, t in last.items()} for k in range(width))
                    answered = torch.stack([answers(values) for values in points])
                else:
                    answered = torch.func.vmap(answers)(last) if last else answers({})[None]
                hits[i] += (answered == labels).sum(-1)
    return hits.flatten()


def traced(hyper: Any, like: Tensor) -> Any:
    """Return a Hyper whose fields are 0-d tensors, as the contract promises the methods."""
    return with_values(hyper, {n: like.new_tensor(v) for n, v in hyper_values(hyper).items()})


def _logits(head: Head, rows: Rows) -> Iterator[tuple[Tensor, int, int]]:
    """Yield (logits, start, stop) chunk by chunk."""
    hyper = traced(head.hyper, rows.x)
    for terms, start, stop in _terms(head, rows, hyper, 1):
        yield head.method.combine(terms, head.fixed, head.config, hyper), start, stop


def _terms(
    head: Head, rows: Rows, hyper: Any, logits_each: int
) -> Iterator[tuple[Tensors, int, int]]:
    """Yield (terms, start, stop) chunk by chunk."""
    n = len(rows)
    method = head.method
    rows = replace(rows, labels=None, weights=None)  # out of reach of `terms`
    if method.transductive:
        rows = rows.take(slice(0, n))
        yield method.terms(head.params, head.fixed, rows, head.config, hyper), 0, n
        return

    def chunk(part: Rows) -> Tensors:
        return method.terms(head.params, head.fixed, part, head.config, hyper)

    probe = rows.take(slice(0, 2))
    size = _chunk_rows(head, chunk(probe), probe, hyper, logits_each)
    for start in range(0, n, size):
        stop = min(start + size, n)
        yield chunk(rows.take(slice(start, stop))), start, stop


def _chunk_rows(head: Head, terms: Tensors, probe: Rows, hyper: Any, logits_each: int) -> int:
    """Tell how many rows fill the budget, from the terms of one or two rows and what they read."""
    out = head.method.combine(terms, head.fixed, head.config, hyper)
    read = sum(values.nbytes for values in probe.kinds.values() if isinstance(values, Tensor))
    held = sum(t.nbytes for t in terms.values()) + out.nbytes * logits_each + read
    budget = CHUNK_BYTES["cuda" if out.device.type == "cuda" else "cpu"]
    return max(1, budget * len(out) // max(1, held))


def _answers(logits: Float[Tensor, "n c"]) -> Int64[Tensor, " n"]:
    """Return the largest logit's class; -1, which is never right, where it is not finite."""
    largest = logits.max(-1)  # three times faster than argmax on a CPU
    return torch.where(largest.values.isfinite(), largest.indices, -1)

"""Counting correct answers on labelled rows at every point of a grid.

The terms of a chunk of rows are computed once and combined at every point of the post grid.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from heads.contract.method import Scout
from heads.contract.rows import Rows, Tensors
from heads.contract.settings import Grid, with_values
from heads.fitted import Fitted, answers, terms_by_chunk, traced
from heads.selection.curves import Curves

SCOUTED = 1024
"""Rows that a scout answers at once, at many points."""
FAR = 2.0**20
"""Value of the affine axis beside 0: large enough to estimate the slope without cancellation."""


def correct_on_grid(fitted: Fitted, rows: Rows, grid: Grid) -> Int64[Tensor, " g"]:
    """Count correct answers on labelled rows at every point of a post grid, in its order.

    Where the method declares how its logits depend on the grid, they are computed at few points
    and interpolated (`heads.selection.curves`). Otherwise the last axis is evaluated by vmap, so
    that what `combine` computes independently of it is computed once.
    """
    assert rows.labels is not None
    curves = Curves.of(fitted.method.hyper, grid)
    correct = None if curves is None else _correct_by_curves(fitted, rows, curves)
    return _correct_by_points(fitted, rows, grid) if correct is None else correct


def correct_by_scout(
    scout: Scout, points: Sequence[Any], rows: Rows, done: Callable[[], None]
) -> Int64[np.ndarray, " g"]:
    """Count correct answers on labelled rows at every point of a train grid.

    Args:
        scout: Computes logits at many points; see `Scout`.
        points: Hypers of the points.
        rows: Labelled rows.
        done: Called once for every point.
    """
    assert rows.labels is not None
    correct = np.zeros(len(points), dtype=np.int64)
    with torch.no_grad():
        for start in range(0, len(rows), SCOUTED):
            part = slice(start, start + SCOUTED)
            for i, logits in enumerate(scout(points, rows.x[part])):
                correct[i] += int((answers(logits) == rows.labels[part]).sum())
                if start == 0:
                    done()
    return correct


def _correct_by_curves(fitted: Fitted, rows: Rows, curves: Curves) -> Int64[Tensor, " g"] | None:
    """Count by interpolation; None where the logits are not as the method declares them."""
    assert rows.labels is not None
    hyper = traced(fitted.hyper, rows.x)
    correct = torch.zeros(len(curves.grid), dtype=torch.int64, device=rows.x.device)
    ends = rows.x.new_tensor([0.0, FAR])
    with torch.no_grad():
        for terms, start, stop in terms_by_chunk(fitted, rows, hyper, curves.computed):

            def logits(values: Mapping[str, Any], terms: Tensors = terms) -> Tensor:
                here = {n: torch.as_tensor(v).to(rows.x) for n, v in values.items()}
                return fitted.method.combine(
                    terms, fitted.fixed, fitted.config, with_values(hyper, here)
                )

            def line(values: Mapping[str, float], logits: Any = logits) -> tuple[Tensor, Tensor]:
                at = torch.func.vmap(lambda value: logits({**values, curves.affine: value}))
                z, far = at(ends)
                return z, (far - z) / FAR

            if start == 0 and not curves.agree(line, logits):
                return None
            correct += curves.correct(line, rows.labels[start:stop])
    return correct


def _correct_by_points(fitted: Fitted, rows: Rows, grid: Grid) -> Int64[Tensor, " g"]:
    """Count by combining the terms at every point."""
    assert rows.labels is not None
    hyper = traced(fitted.hyper, rows.x)
    names = list(grid.axes)
    outer = Grid({n: grid.axes[n] for n in names[:-1]}).points()
    last = {n: rows.x.new_tensor([float(v) for v in grid.axes[n]]) for n in names[-1:]}
    width = len(grid) // len(outer)
    correct = torch.zeros(len(outer), width, dtype=torch.int64, device=rows.x.device)
    method, fixed, config = fitted.method, fitted.fixed, fitted.config
    with torch.no_grad():
        for terms, start, stop in terms_by_chunk(fitted, rows, hyper, width):
            labels = rows.labels[start:stop]
            for i, point in enumerate(outer):
                here = with_values(hyper, {n: rows.x.new_tensor(v) for n, v in point.items()})

                def at(values: Tensors, here: Any = here, terms: Tensors = terms) -> Tensor:
                    out = method.combine(terms, fixed, config, with_values(here, values))
                    return answers(out)

                if method.transductive:  # all queries at every point at once would fill the memory
                    points = ({n: t[k] for n, t in last.items()} for k in range(width))
                    answered = torch.stack([at(values) for values in points])
                else:
                    answered = torch.func.vmap(at)(last) if last else at({})[None]
                correct[i] += (answered == labels).sum(-1)
    return correct.flatten()

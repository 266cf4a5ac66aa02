"""A method with everything it learned on one task, and its answers to rows.

Rows are answered in chunks cut by bytes, so the memory needed does not grow with their number. A
transductive method gets all rows at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from featcache.errors import FeatcacheError, HeadError, TrainingError
from featcache.scarcity import lacking
from heads.contract.linear import Linear
from heads.contract.method import AnyMethod
from heads.contract.rows import Rows, Tensors
from heads.contract.settings import hyper_values, with_values

CHUNK_BYTES = {"cpu": 8 * 2**20, "cuda": 512 * 2**20}
"""Terms, logits and the crops or views read for one chunk; temporaries of `combine` come on top,
about twice as much.

On a CPU small chunks stay in its caches: 2.4 times faster than 64 MiB on 16,000 keys.
"""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A method with everything it learned; enough to predict."""

    method: AnyMethod
    config: Any
    hyper: Any
    """Floats."""
    params: Tensors
    fixed: Tensors
    claimed: int | None = None
    """Number of classes that the file names which it was read from; None where it was trained here.
    Tensors of a file need not fit that, nor each other."""

    def at(self, values: dict[str, float]) -> "Fitted":
        """Return a copy with other hyper-parameters of the post grid."""
        return replace(self, hyper=with_values(self.hyper, values))

    def logits(self, rows: Rows) -> Float[Tensor, "n c"]:
        """Return the logits of every row; the method does not get its labels."""
        return torch.cat([part for part, _, _ in self.chunks(rows)])

    def chunks(self, rows: Rows) -> Iterator[tuple[Tensor, int, int]]:
        """Yield (logits [k c], start, stop) chunk by chunk; `logits` joins them.

        Raises:
            HeadError: If it was read from a file whose tensors do not fit.
        """
        if self.claimed is None:
            yield from self._chunks(rows)
            return
        try:
            for logits, start, stop in self._chunks(rows):
                if logits.shape != (stop - start, self.claimed):
                    raise HeadError(
                        f"This head of {self.method.name} answers {list(logits.shape)} for "
                        f"{stop - start} rows, and names {self.claimed} classes. Train it again."
                    )
                yield logits, start, stop
        except FeatcacheError:
            raise
        except Exception as error:  # torch has no single error for wrong shapes
            if lacking(error):
                raise
            raise HeadError(
                f"This head of {self.method.name} holds tensors that do not fit together "
                f"({error!r:.120}). Train it again."
            ) from error

    @torch.no_grad()
    def _chunks(self, rows: Rows) -> Iterator[tuple[Tensor, int, int]]:
        hyper = traced(self.hyper, rows.x)
        for terms, start, stop in terms_by_chunk(self, rows, hyper, 1):
            yield self.method.combine(terms, self.fixed, self.config, hyper), start, stop

    def kept(self) -> "Fitted":
        """Return a copy without the tensors that only training reads, laid out as in a file."""
        # contiguous, as a file returns them: otherwise products differ in the last bit
        params = {n: t.contiguous() for n, t in self.params.items()}
        read = {n: t for n, t in self.fixed.items() if n not in self.method.training_only}
        fixed = {n: t.contiguous() for n, t in read.items()}
        return replace(self, params=params, fixed=fixed)

    def to(self, device: torch.device) -> "Fitted":
        """Return a copy with its tensors on a device."""
        params, fixed = (
            {name: tensor.to(device) for name, tensor in tensors.items()}
            for tensors in (self.params, self.fixed)
        )
        return replace(self, params=params, fixed=fixed)

    def linear(self) -> Linear | None:
        """Return one matrix and one vector with the same logits for unit rows, folded in float64.

        None where the logits are not affine in the row.
        """
        params, fixed = (
            {n: t.double() if t.is_floating_point() else t for n, t in tensors.items()}
            for tensors in (self.params, self.fixed)
        )
        with torch.no_grad():
            found = self.method.linear(params, fixed, self.config, self.hyper)
        if found is None:
            return None
        like = next(
            t for t in (*self.params.values(), *self.fixed.values()) if t.is_floating_point()
        )
        return Linear(*(t.to(like.dtype).contiguous() for t in found))

    def predict(self, rows: Rows) -> Int64[Tensor, " n"]:
        """Return the class with the largest logit for every row.

        Raises:
            TrainingError: If the logits of a row are not finite.
        """
        return self.checked(self._predict(rows))

    def checked(self, predicted: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        """Return labels as `answers` gives them; errors as `predict`."""
        if failed := int((predicted < 0).sum()):
            raise TrainingError(
                f"{self.method.name} gave {failed} of {len(predicted)} queries answers that are "
                f"not finite. Set its hyper-parameters nearer to their defaults."
            )
        return predicted

    def accuracy(self, rows: Rows) -> float:
        """Return top-1 accuracy on labelled rows, in [0, 1]."""
        return int((self._predict(rows) == rows.y).sum()) / len(rows)

    def _predict(self, rows: Rows) -> Int64[Tensor, " n"]:
        # one tensor for all: many small ones would fragment the heap
        predicted = torch.empty(len(rows), dtype=torch.int64, device=rows.x.device)
        for part, start, stop in self.chunks(rows):
            predicted[start:stop] = answers(part)
        return predicted


def traced(hyper: Any, like: Tensor) -> Any:
    """Return a Hyper whose fields are 0-d tensors, as the contract promises the methods."""
    return with_values(hyper, {n: like.new_tensor(v) for n, v in hyper_values(hyper).items()})


def terms_by_chunk(
    fitted: Fitted, rows: Rows, hyper: Any, logits_each: int
) -> Iterator[tuple[Tensors, int, int]]:
    """Yield (terms, start, stop) chunk by chunk."""
    n = len(rows)
    method = fitted.method
    rows = replace(rows, labels=None, weights=None)  # `terms` must not see them
    if method.transductive:
        rows = rows.take(slice(0, n))
        yield method.terms(fitted.params, fitted.fixed, rows, fitted.config, hyper), 0, n
        return

    def chunk(part: Rows) -> Tensors:
        return method.terms(fitted.params, fitted.fixed, part, fitted.config, hyper)

    probe = rows.take(slice(0, 2))
    size = _chunk_rows(fitted, chunk(probe), probe, hyper, logits_each)
    for start in range(0, n, size):
        stop = min(start + size, n)
        yield chunk(rows.take(slice(start, stop))), start, stop


def _chunk_rows(fitted: Fitted, terms: Tensors, probe: Rows, hyper: Any, logits_each: int) -> int:
    """Return how many rows fill the budget, from the terms of one or two rows."""
    out = fitted.method.combine(terms, fitted.fixed, fitted.config, hyper)
    read = sum(values.nbytes for values in probe.kinds.values() if isinstance(values, Tensor))
    size = sum(t.nbytes for t in terms.values()) + out.nbytes * logits_each + read
    budget = CHUNK_BYTES["cuda" if out.device.type == "cuda" else "cpu"]
    return max(1, budget * len(out) // max(1, size))


def answers(logits: Float[Tensor, "n c"]) -> Int64[Tensor, " n"]:
    """Return the class of the largest logit; -1, which never matches, where it is not finite."""
    largest = logits.max(-1)  # three times faster than argmax on a CPU
    return torch.where(largest.values.isfinite(), largest.indices, -1)

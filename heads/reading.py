"""Reading the rows of a role from a cache, as a method gets them on the compute device."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from featcache.errors import MissingComponentError
from featcache.types import FeatureSet, Releasable, parse_component
from heads.contract.method import Need, Role
from heads.contract.rows import Kind, LazyRows, Rows
from heads.episode import RowIndex

TOKENS = "tokens"
"""Kind of the tokens before the last block."""


@runtime_checkable
class Source(Protocol):
    """A source of rows by component: a cache, or embedded images."""

    @property
    def components(self) -> Mapping[str, Any]:
        """Component -> something with a shape."""
        ...

    def unit(self, component: str, rows: Int64[np.ndarray, " r"]) -> Tensor:
        """Gather rows as float32 with unit norm."""
        ...

    def rows(self, component: str, rows: Int64[np.ndarray, " r"]) -> Tensor:
        """Gather raw rows."""
        ...


class MappedRows:
    """Rows of one component that are read when they are gathered (`LazyRows`).

    They are unit, but for tokens: those are not in the joint space, and their length counts.
    """

    def __init__(
        self, features: Source, component: str, rows: RowIndex, device: torch.device
    ) -> None:
        self._features, self._component = features, component
        self._rows, self._device = rows, device

    @property
    def shape(self) -> torch.Size:
        """Shape of all rows."""
        shape = self._features.components[self._component].shape
        each = shape if isinstance(self._features, FeatureSet) else shape[1:]
        return torch.Size((len(self._rows), *each))

    def gather(self, index: Int64[Tensor, "*b"], pick: Int64[Tensor, "*p"] | None = None) -> Tensor:
        """Read rows, or with `pick` [*b] or [*b k] some views or crops of each."""
        if pick is not None and not pick.numel():
            return torch.empty(*pick.shape, *self.shape[2:], device=self._device)
        listed = self._rows[index.flatten().cpu().numpy()]
        if parse_component(self._component).kind == TOKENS:
            values = self._features.rows(self._component, listed).to(self._device).float()
        else:
            values = self._features.unit(self._component, listed).to(self._device)
        values = values.reshape(*index.shape, *values.shape[1:])
        if pick is None:
            return values
        several = pick if pick.dim() > index.dim() else pick[..., None]
        at = several.reshape(*several.shape, *(1,) * (values.dim() - several.dim()))
        picked = torch.take_along_dim(values, at, dim=index.dim())
        return picked if pick.dim() > index.dim() else picked.squeeze(index.dim())

    def release(self) -> None:
        """Unmap the files that were read; the next reading maps them again."""
        rows = self._features.components[self._component]
        if isinstance(rows, Releasable):
            rows.release()


def read_rows(
    features: FeatureSet,
    rows: RowIndex,
    role: Role,
    needs: Iterable[Need],
    device: torch.device,
    *,
    suggest: Callable[[str, Need, RowIndex], MissingComponentError] | None = None,
) -> Rows:
    """Read the rows of a role with everything that a method needs of them.

    Components of the support are read now unless the need is lazy, those of other roles when they
    are gathered. Tokens are always read when they are gathered: they are hundreds of times as large
    as global features.

    Args:
        features: The cache, opened.
        rows: Rows of the listing.
        role: Role of the rows.
        needs: What the method reads, of any role.
        device: Device of the tensors.
        suggest: Makes the error from (what is missing, the need, the rows).

    Raises:
        MissingComponentError: If the cache lacks what the method needs.
    """
    x, norms = (t.to(device) for t in features.unit_and_length("global", rows))
    kinds: dict[Kind, Tensor | LazyRows] = {}
    lengths: dict[Kind, Tensor] = {}
    for need in sorted(needs, key=lambda n: (n.kind, n.recipe or "")):
        if need.role != role or need.kind == "global":
            continue
        component, missing = _component(features, need, rows)
        if component is None and not need.optional:
            make = suggest or (lambda what, *_: MissingComponentError(f"This head needs {what}."))
            raise make(missing, need, rows)
        if component is None:
            continue
        if role == "support" and not need.lazy and need.kind != TOKENS:
            unit, length = features.unit_and_length(component, rows)
            kinds[need.key] = unit.to(device)
            if need.kind == "views":
                lengths[need.key] = length.to(device)
        else:
            kinds[need.key] = MappedRows(features, component, rows, device)
    labels = torch.from_numpy(features.labels[rows].astype(np.int64)).to(device)
    return Rows(
        x=x,
        norms=torch.ones_like(norms) if features.key.norms == "unit" else norms,
        labels=None if role == "pool" else labels,
        kinds=kinds,
        lengths=lengths,
    )


def _component(features: FeatureSet, need: Need, rows: RowIndex) -> tuple[str | None, str]:
    """Find the component that meets a need for these rows; else describe what is missing."""
    lacking = {}
    for name in need.fitting(features):
        lacking[name] = int((~features.components[name].present()[rows]).sum())
        if not lacking[name]:
            return name, ""
    if lacking:
        name = min(lacking, key=lacking.__getitem__)
        return None, f"'{name}' for {lacking[name]} of {len(rows)} {need.role} images"
    return None, in_words(need)


def in_words(need: Need) -> str:
    """Name what a need asks for, as `crops of recipe lazsl with 60 or more`."""
    count = f" with {need.at_least} or more" if need.at_least else ""
    recipe = f" of recipe {need.recipe}" if need.recipe else ""
    variant = f" as {need.variant}" if need.variant else ""
    kind = need.kind.replace("_", "-")  # as the flag has it
    return f"{kind}{recipe}{variant}{count}"

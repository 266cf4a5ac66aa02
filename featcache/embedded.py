"""Features of images without a cache, as `featcache.embedding` returns them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float16, Float32, Int32, Int64
from torch import Tensor

from featcache.errors import UnknownNameError, UsageError
from featcache.imaging.decode import UnreadableImageError
from featcache.keys import FeatureKey
from featcache.types import unit_and_norms


@dataclass(frozen=True, kw_only=True, eq=False)
class Embedded:
    """Features of some images, one row each, in the order of the images."""

    key: FeatureKey
    """Feature key, equal to that of a cache of the same backbone."""
    backbone: str
    ids: tuple[str, ...]
    """Given names of the images, else the path, or images[0]."""
    components: Mapping[str, Tensor]
    """Name of a component, as in a cache -> raw rows [n ...]: float16, int32 for boxes. Components
    in int8 are quantised and converted back, as a cache returns them."""
    reasons: Mapping[int, str]
    """Row -> why its image has no features, or not all of them."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def ok(self) -> Bool[np.ndarray, " n"]:
        """False for images without features for some component, whose rows are zeros."""
        ok = np.ones(len(self), dtype=bool)
        ok[list(self.reasons)] = False
        return ok

    def usable(self) -> Int64[np.ndarray, " r"]:
        """Return the rows whose image could be used."""
        return np.flatnonzero(self.ok)

    def rows(
        self, component: str, rows: Int64[np.ndarray, " r"] | None = None
    ) -> Float16[Tensor, "r ..."] | Int32[Tensor, "r ..."]:
        """Gather raw rows of one component; None takes all.

        Raises:
            UnknownNameError: If it was not computed.
        """
        if component not in self.components:
            raise UnknownNameError("component", component, self.components)
        values = self.components[component]
        return values if rows is None else values[torch.from_numpy(rows)]

    def unit(
        self, component: str, rows: Int64[np.ndarray, " r"] | None = None
    ) -> Float32[Tensor, "r ..."]:
        """Gather rows as float32 with unit norm; errors as `unit_and_length`."""
        return self.unit_and_length(component, rows)[0]

    def unit_and_length(
        self, component: str, rows: Int64[np.ndarray, " r"] | None = None
    ) -> tuple[Float32[Tensor, "r ..."], Float32[Tensor, "r ..."]]:
        """Gather rows as float32 with unit norm, and their norms; None for all rows.

        Raises:
            UnknownNameError: If the component was not computed.
            UsageError: If it holds boxes.
            UnreadableImageError: If a row's image could not be used, or its features have no
                direction.
        """
        values = self.rows(component, rows)
        if not values.is_floating_point():
            raise UsageError(
                f"Component '{component}' holds boxes in pixels, which have no direction; "
                f"read them with `rows`."
            )
        asked = range(len(self)) if rows is None else [int(row) for row in rows]
        for row in asked:
            if row in self.reasons:
                raise UnreadableImageError(
                    f"{self.reasons[row]}; take the rows that `usable` names",
                    self.ids[row],
                )
        units, norms = unit_and_norms(values)
        if bool((norms == 0).any()):
            zero = (norms == 0).reshape(len(norms), -1).any(1)
            at = int(zero.nonzero()[0])
            raise UnreadableImageError("has features of length zero", self.ids[asked[at]])
        return units, norms

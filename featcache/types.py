"""FeatureSet: a cache open for reading, with lazy rows, labels, splits and texts.

Keys and listing are defined in `featcache.keys`, texts in `featcache.bank`; this module re-exports
them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Float32, Int32, Int64
from torch import Tensor

from featcache.bank import TextBank, TextSet
from featcache.errors import CacheError, MissingComponentError, UsageError
from featcache.imported import import_advice
from featcache.keys import (
    NUMERICS,
    TEXT_KINDS,
    ComponentKey,
    FeatureKey,
    Listing,
    TextKind,
    parse_component,
)
from featcache.last_block import LastBlock
from featcache.wording import Argument, Call, Part

__all__ = [
    "NUMERICS",
    "TEXT_KINDS",
    "ComponentKey",
    "FeatureKey",
    "FeatureSet",
    "Listing",
    "RowReader",
    "TextBank",
    "TextKind",
    "TextSet",
    "parse_component",
    "unit_and_norms",
]


@runtime_checkable
class RowReader(Protocol):
    """Lazy rows of one component."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row: (d,), (v, d), (p, d)."""
        ...

    def present(self) -> Bool[np.ndarray, " n"]:
        """Tell for every row of the listing whether this component contains it."""
        ...

    def take(
        self, rows: Int64[np.ndarray, " r"]
    ) -> Float16[Tensor, "r ..."] | Float32[Tensor, "r ..."] | Int32[Tensor, "r ..."]:
        """Gather raw rows in the given order; int32 for boxes.

        Raises:
            MissingComponentError: If a row is missing.
        """
        ...


@runtime_checkable
class Releasable(Protocol):
    """Rows that keep files mapped between readings."""

    def release(self) -> None:
        """Unmap the files; the next reading maps them again."""
        ...


@dataclass(frozen=True, kw_only=True)
class FeatureSet:
    """A cache open for reading. Rows are loaded on access."""

    path: Path
    backbone: str
    """Name as the user typed it: ViT-B/16, tiny."""
    key: FeatureKey
    listing: Listing
    components: Mapping[str, RowReader]
    """Folder name of the component -> its rows."""
    ok: Bool[np.ndarray, " n"]
    """False for unreadable images; their rows are zeros and must not be used."""
    text: TextBank | None
    text_set: str = ""
    """Digest of the text set in `text`, as `featcache text` lists it; empty without one."""
    weights: str = ""
    """Weights that the extraction named, a tag or a file; empty for the default ones."""
    encoding: Mapping[str, str] = field(default_factory=dict)
    """Micro-batch and compute type of the encoder, which decide the last bits of every row; empty
    for imported features."""
    read_last_block: Callable[[], LastBlock] | None = None
    """Reads the weights that `last_block` returns; None for rows that are in no cache."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, shared by all splits."""
        return self.listing.classes

    @property
    def labels(self) -> Int64[np.ndarray, " n"]:
        """Label of every row; -1 for unlabelled images."""
        return self.listing.labels

    def usable(self, split: str) -> Int64[np.ndarray, " r"]:
        """Return the rows of a split whose image could be read."""
        rows = self.listing.rows(split)
        usable: Int64[np.ndarray, " r"] = rows[self.ok[rows]]
        return usable

    def last_block(self) -> LastBlock:
        """Return the weights of the last block, which makes global features of the tokens.

        Raises:
            MissingComponentError: If there are no tokens.
            CorruptCacheError: If the file of the weights is missing or damaged.
        """
        if self.read_last_block is None:
            raise MissingComponentError(f"{self.path} is no cache with tokens of a last block.")
        return self.read_last_block()

    def fitting(
        self, kind: str, recipe: str | None = None, at_least: int = 0, variant: str | None = None
    ) -> list[str]:
        """Return the components of a kind, and of a recipe or variant, whatever rows they have.

        float16 comes before int8, then fewer views before more, if they are at least `at_least`.
        """
        matches = []
        for name, reader in self.components.items():
            key = parse_component(name)
            if key.kind != kind or (recipe and recipe not in (key.variant, key.recipe)):
                continue
            if variant and variant != key.variant:
                continue
            count = reader.shape[0] if len(reader.shape) > 1 else 0
            if count >= at_least:
                matches.append((key.dtype == "int8", count, name))
        return [name for *_, name in sorted(matches)]

    def rows(
        self, component: str, rows: Int64[np.ndarray, " r"]
    ) -> Float16[Tensor, "r ..."] | Float32[Tensor, "r ..."] | Int32[Tensor, "r ..."]:
        """Gather raw rows of one component: float16, float32 if imported so, int32 for boxes.

        Raises:
            MissingComponentError: If the cache has no such component or not all of these rows.
        """
        if component not in self.components:
            have = ", ".join(sorted(self.components)) or "nothing"
            arguments = {"dataset": self.listing.dataset, "backbone": self.backbone}
            extract = ("Add it with: ", Call("featcache.extract", arguments), ", and its request.")
            raise MissingComponentError(
                f"{self.path} has no component '{component}'; it holds {have}. ",
                self._import_advice(component) or extract,
            )
        reader = self.components[component]
        try:
            return reader.take(rows)
        except MissingComponentError as error:
            missing = int((~reader.present()[rows]).sum())
            raise MissingComponentError(
                f"Component '{component}' of {self.path} lacks {missing} of {len(rows)} rows that "
                "are needed. ",
                self._import_advice(component)
                or ("The same extraction, without ", Argument("limit"), ", encodes those."),
            ) from error

    def _import_advice(self, component: str) -> Part:
        if self.key.is_imported and component != "global":
            return "These features were imported without images, so choose another method."
        return import_advice(self.key, self.path, self.listing.dataset, self.backbone)

    def unit(self, component: str, rows: Int64[np.ndarray, " r"]) -> Float32[Tensor, "r ..."]:
        """Gather rows as float32 with unit norm; errors as `unit_and_length`."""
        return self.unit_and_length(component, rows)[0]

    def unit_and_length(
        self, component: str, rows: Int64[np.ndarray, " r"]
    ) -> tuple[Float32[Tensor, "r ..."], Float32[Tensor, "r ..."]]:
        """Gather rows as float32 with unit norm, and their norms.

        Raises:
            UsageError: If the component holds boxes.
            CacheError: If a row is not finite or has no length.
        """
        values = self.rows(component, rows)
        if not values.is_floating_point():
            raise UsageError(
                f"Component '{component}' holds boxes in pixels, which have no direction; "
                f"read them with `rows`."
            )
        units, norms = unit_and_norms(values)
        if not bool(torch.isfinite(norms).all()) or bool((norms == 0).any()):
            bad = rows[
                (~torch.isfinite(norms) | (norms == 0)).reshape(len(rows), -1).any(1).numpy()
            ]
            raise CacheError(
                f"Component '{component}' of {self.path} has rows that are zero or not finite "
                f"(first: row {int(bad[0])}, {self.listing.ids[int(bad[0])]}). Run `featcache "
                f"verify`, then extract again what it names."
            )
        return units, norms


def unit_and_norms(
    rows: Float[Tensor, "*n d"],
) -> tuple[Float32[Tensor, "*n d"], Float32[Tensor, "*n"]]:
    """Divide raw rows by their norms in float32; rows of norm zero become NaN."""
    values = rows.to(torch.float32, copy=True)
    norms = values.norm(dim=-1, keepdim=True)
    return values.div_(norms), norms[..., 0]

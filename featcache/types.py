"""The nouns: what names a cache, what names a component in it, and what a reader gets to see.

FeatureSet     a cache opened for reading: lazy rows, labels, splits, texts
TextBank       embedded class names, templates and descriptions

Keys and listing stand in `featcache.keys` and can be had from here too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Float32, Int32, Int64
from torch import Tensor

from featcache.errors import CacheError, MissingComponentError, UnknownNameError, UsageError
from featcache.keys import NUMERICS, ComponentKey, FeatureKey, Listing, parse_component

__all__ = [
    "NUMERICS",
    "TEXT_KINDS",
    "ComponentKey",
    "FeatureKey",
    "FeatureSet",
    "Listing",
    "RowReader",
    "TextBank",
    "parse_component",
    "unit",
]

TEXT_KINDS = ("name", "template", "description")
"""What a class anchor can be made of."""


@runtime_checkable
class RowReader(Protocol):
    """Rows of one component, as stored."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row: (d,), (v, d), (p, d)."""
        ...

    def present(self) -> Bool[np.ndarray, " n"]:
        """Tell for every row of the listing whether this component holds it."""
        ...

    def take(
        self, rows: Int64[np.ndarray, " r"]
    ) -> Float16[Tensor, "r ..."] | Int32[Tensor, "r ..."]:
        """Gather rows, raw, in the order asked for; int32 for boxes.

        Raises:
            MissingComponentError: If one of them is not there.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class TextBank:
    """Embedded texts of all classes, raw as the text tower gave them; ragged by owner."""

    classes: tuple[str, ...]
    names: Float32[Tensor, "c d"] | None
    """The bare class names."""
    templates: tuple[str, ...]
    template_rows: Float32[Tensor, "c t d"] | None
    descriptions: tuple[str, ...] = ()
    description_rows: Float32[Tensor, "m d"] | None = None
    owner: Int64[Tensor, " m"] | None = None
    """Class of each description."""
    logit_scale: float = 100.0
    """Factor on cosines (already exponentiated)."""
    logit_bias: float = 0.0
    """Added to scaled cosines; 0 but for sigmoid-trained models."""
    norms: str = "raw"
    """raw, or unit for imported vectors whose length is lost."""
    default: str = "template"

    def available(self) -> tuple[str, ...]:
        """Name the kinds of text that this bank holds for every class."""
        have = [k for k in ("name", "template") if self._per_class(k) is not None]
        if self.owner is not None and set(self.owner.tolist()) == set(range(len(self.classes))):
            have.append("description")
        return tuple(have)

    def anchors(self, text: str | None = None) -> Float32[Tensor, "c d"]:
        """Return one unit vector a class: normalise(mean_j normalise(e_j)).

        Source: Tip-Adapter's released classifier; for descriptions DCLIP's mean, by embedding.

        Args:
            text: name, template or description; None is the data set's default.
        """
        rows, owner = self._ragged(text)
        unit = torch.nn.functional.normalize(rows, dim=-1)
        return torch.nn.functional.normalize(self._mean_by(unit, owner), dim=-1)

    def raw_anchors(self, text: str | None = None) -> Float32[Tensor, "c d"]:
        """Return the un-normalised mean a class, as TaskRes and CLAP start from."""
        return self._mean_by(*self._ragged(text))

    def texts(self, text: str | None = None) -> tuple[Float32[Tensor, "m d"], Int64[Tensor, " m"]]:
        """Return every single text as a unit vector, and the class that each belongs to."""
        rows, owner = self._ragged(text)
        return torch.nn.functional.normalize(rows, dim=-1), owner

    def _per_class(self, text: str) -> Float32[Tensor, "c t d"] | None:
        if text == "name":
            return None if self.names is None else self.names[:, None]
        return self.template_rows

    def _ragged(self, text: str | None) -> tuple[Float32[Tensor, "m d"], Int64[Tensor, " m"]]:
        text = text or self.default
        if text not in TEXT_KINDS:
            raise UnknownNameError("kind of text", text, TEXT_KINDS)
        if text not in self.available():
            have = ", ".join(self.available()) or "none"
            raise MissingComponentError(
                f"This cache holds no texts of kind '{text}' for every class; it has: {have}. "
                f"Choose one with --set text=..., or extract again with --descriptions FILE.json, "
                f"which holds {{class: [sentence, ...]}} for every class."
            )
        if text == "description" and self.description_rows is not None and self.owner is not None:
            return self.description_rows, self.owner
        rows = self._per_class(text)
        assert rows is not None
        c, t, d = rows.shape
        return rows.reshape(c * t, d), torch.arange(c).repeat_interleave(t)

    def _mean_by(
        self, rows: Float32[Tensor, "m d"], owner: Int64[Tensor, " m"]
    ) -> Float32[Tensor, "c d"]:
        total = rows.new_zeros(len(self.classes), rows.shape[1]).index_add_(0, owner, rows)
        count = torch.bincount(owner, minlength=len(self.classes))
        return total / count[:, None]


@dataclass(frozen=True, kw_only=True)
class FeatureSet:
    """A cache opened for reading. Nothing is loaded until rows are asked for."""

    path: Path
    backbone: str
    """As the user calls it: ViT-B/16, tiny."""
    key: FeatureKey
    listing: Listing
    components: Mapping[str, RowReader]
    """Folder name of the component -> its rows."""
    ok: Bool[np.ndarray, " n"]
    """False for images that could not be read; their rows are zeros and must not be used."""
    text: TextBank | None
    weights: str = ""
    """As `extract` was given them: a tag or a file; empty where they were the backbone's usual."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The one class list of all splits."""
        return self.listing.classes

    @property
    def labels(self) -> Int64[np.ndarray, " n"]:
        """Label of every row; -1 unlabelled."""
        return self.listing.labels

    def usable(self, split: str) -> Int64[np.ndarray, " r"]:
        """Return the rows of a split whose image could be read."""
        rows = self.listing.rows(split)
        usable: Int64[np.ndarray, " r"] = rows[self.ok[rows]]
        return usable

    def fitting(self, kind: str, recipe: str | None = None, at_least: int = 0) -> list[str]:
        """Name the components of a kind, and of a recipe or variant; which rows they have is open.

        Rows in float16 come before rows in int8, then fewer views before more, as long as they
        are enough.
        """
        hits = []
        for name, reader in self.components.items():
            key = parse_component(name)
            if key.kind != kind or (recipe and recipe not in (key.variant, key.recipe)):
                continue
            count = reader.shape[0] if len(reader.shape) > 1 else 0
            if count >= at_least:
                hits.append((key.dtype == "int8", count, name))
        return [name for *_, name in sorted(hits)]

    def rows(
        self, component: str, rows: Int64[np.ndarray, " r"]
    ) -> Float16[Tensor, "r ..."] | Int32[Tensor, "r ..."]:
        """Gather raw rows of one component: fp16, int32 for boxes.

        Raises:
            MissingComponentError: If the cache has no such component or not all of these rows.
        """
        if component not in self.components:
            have = ", ".join(sorted(self.components)) or "nothing"
            raise MissingComponentError(
                f"{self.path} has no component '{component}'; it holds {have}. "
                f"Run `featcache extract --dataset {self.listing.dataset} --backbone "
                f"{self.backbone}` with the flag that adds it."
            )
        reader = self.components[component]
        try:
            return reader.take(rows)
        except MissingComponentError as error:
            missing = int((~reader.present()[rows]).sum())
            raise MissingComponentError(
                f"Component '{component}' of {self.path} lacks {missing} of {len(rows)} rows that "
                f"are needed. The same `featcache extract` command, without --limit, encodes those."
            ) from error

    def unit(self, component: str, rows: Int64[np.ndarray, " r"]) -> Float32[Tensor, "r ..."]:
        """Gather rows as float32 with unit norm.

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
        values = values.float()
        norms = values.norm(dim=-1, keepdim=True)
        if not bool(torch.isfinite(norms).all()) or bool((norms == 0).any()):
            bad = rows[(~torch.isfinite(norms) | (norms == 0)).flatten(1).any(1).numpy()]
            raise CacheError(
                f"Component '{component}' of {self.path} has rows that are zero or not finite "
                f"(first: row {int(bad[0])}, {self.listing.ids[int(bad[0])]}). Run `featcache "
                f"verify`, then extract again what it names."
            )
        return values.div_(norms)


def unit(rows: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """Scale every row to length one; rows of length zero stay zero."""
    return torch.nn.functional.normalize(rows, dim=-1)

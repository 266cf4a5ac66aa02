"""The texts of a data set as vectors: one bank holds every kind of text, ragged by class."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from featcache.errors import MissingComponentError, UnknownNameError
from featcache.keys import IMPORTED_TEMPLATE, TEXT_KINDS
from featcache.wording import Argument, Placeholder, Setting

MEAN_OF_COSINES = ("dclip", "waffle")
"""Kinds whose authors average the cosines with the texts, not the texts."""

_SOURCES = {
    "template": Argument("templates", Placeholder("FILE")),
    "description": Argument("descriptions", Placeholder("FILE.json")),
    "cupl": Argument("cupl", Placeholder("FILE.json")),
    "dclip": Argument("dclip", Placeholder("FILE.json")),
    "waffle": Argument("waffle", Placeholder("SEED")),
}
"""Kind of texts -> what of `featcache extract` adds them."""


@dataclass(frozen=True, kw_only=True)
class TextSet:
    """Embedded texts of which each belongs to one class."""

    texts: tuple[str, ...]
    rows: Float32[Tensor, "m d"]
    owner: Int64[Tensor, " m"]
    """Class of each text."""


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
    sets: Mapping[str, TextSet] = field(default_factory=dict)
    """cupl, dclip and waffle, as far as they were asked for."""
    logit_scale: float = 100.0
    """Factor on cosines (already exponentiated)."""
    logit_bias: float = 0.0
    """Added to scaled cosines; 0 but for sigmoid-trained models."""
    norms: str = "raw"
    """raw, or unit for imported vectors whose length is lost."""
    default: str = "template"

    def available(self) -> tuple[str, ...]:
        """Name the kinds of text that this bank holds for every class."""
        return tuple(kind for kind in TEXT_KINDS if self._is_whole(kind))

    def owned(self) -> dict[str, TextSet]:
        """Return descriptions and further sets by kind, as far as there are any."""
        found = {}
        if self.description_rows is not None and self.owner is not None:
            found["description"] = TextSet(
                texts=self.descriptions, rows=self.description_rows, owner=self.owner
            )
        return found | {kind: self.sets[kind] for kind in TEXT_KINDS if kind in self.sets}

    def anchors(self, text: str | None = None) -> Float32[Tensor, "c d"]:
        """Return one unit vector a class: normalise(mean_j normalise(e_j)).

        Source: Tip-Adapter's released classifier.

        Args:
            text: One of `TEXT_KINDS`; None is the data set's default. Without texts of its own,
                dclip reads the descriptions.
        """
        return torch.nn.functional.normalize(self._mean_by(*self.texts(text)), dim=-1)

    def classifier(self, text: str | None = None) -> Float32[Tensor, "c d"]:
        """Return T of the zero-shot scores x T^T: the anchors, but for two kinds plain means.

        DCLIP and WaffleCLIP score by the mean of the cosines with a class's texts, which is the
        product with their mean before it is normalised.
        """
        if (text or self.default) in MEAN_OF_COSINES:
            return self._mean_by(*self.texts(text))
        return self.anchors(text)

    def raw_anchors(self, text: str | None = None) -> Float32[Tensor, "c d"]:
        """Return the un-normalised mean a class, as TaskRes and CLAP start from."""
        return self._mean_by(*self._ragged(text))

    def texts(self, text: str | None = None) -> tuple[Float32[Tensor, "m d"], Int64[Tensor, " m"]]:
        """Return every single text as a unit vector, and the class that each belongs to."""
        rows, owner = self._ragged(text)
        return torch.nn.functional.normalize(rows, dim=-1), owner

    def lacks(self, kind: str) -> Argument | None:
        """Name the argument of an extraction that adds texts of a kind; None if all have some."""
        return None if self._is_whole(kind) else _SOURCES.get(kind)

    def digest(self, kind: str) -> str:
        """Return 12 hex digits for the sentences of a kind and the classes they belong to."""
        held = self._of_kind(kind)
        said = self.templates if held is None else [held.texts, held.owner.tolist()]
        words = json.dumps([kind, self.classes, said if kind != "name" else None])
        return hashlib.sha256(words.encode()).hexdigest()[:12]

    def of_classes(self, classes: Int64[Tensor, " w"]) -> "TextBank":
        """Return the texts of some classes, which become 0, 1, ... in the order given."""
        some = {kind: _of_classes(held, classes) for kind, held in self.owned().items()}
        described = some.pop("description", None)
        return replace(
            self,
            classes=tuple(self.classes[c] for c in classes.tolist()),
            names=None if self.names is None else self.names[classes],
            template_rows=None if self.template_rows is None else self.template_rows[classes],
            descriptions=() if described is None else described.texts,
            description_rows=None if described is None else described.rows,
            owner=None if described is None else described.owner,
            sets=some,
        )

    def _per_class(self, kind: str) -> Float32[Tensor, "c t d"] | None:
        if kind == "name":
            return None if self.names is None else self.names[:, None]
        return self.template_rows if kind == "template" else None

    def _of_kind(self, kind: str) -> TextSet | None:
        owned = self.owned()
        # The descriptions are what DCLIP's score is taken over where nothing else was given.
        return owned.get("description" if kind == "dclip" and kind not in owned else kind)

    def _is_whole(self, kind: str) -> bool:
        if self._per_class(kind) is not None:
            return True
        held = self._of_kind(kind)
        return held is not None and set(held.owner.tolist()) == set(range(len(self.classes)))

    def _ragged(self, text: str | None) -> tuple[Float32[Tensor, "m d"], Int64[Tensor, " m"]]:
        text = text or self.default
        if text not in TEXT_KINDS:
            raise UnknownNameError("kind of text", text, TEXT_KINDS)
        if not self._is_whole(text):
            have = ", ".join(self.available()) or "none"
            if self.templates == (IMPORTED_TEMPLATE,):
                raise MissingComponentError(
                    f"Imported features bring one vector a class and no texts of kind '{text}'; "
                    f"this cache has: {have}. Train with ",
                    Setting("text", have),
                    ", or without text=...",
                )
            source = _SOURCES.get(text)
            is_json = source is not None and str(source.value).endswith("json")
            raise MissingComponentError(
                f"This cache holds no texts of kind '{text}' for every class; it has: {have}. "
                "Choose one with ",
                Setting("text", Placeholder("...")),
                ", or run the same `featcache extract` again",
                () if source is None else (" with ", source),
                ", which holds {class: [text, ...]} for every class" if is_json else "",
                ".",
            )
        if (rows := self._per_class(text)) is not None:
            c, t, d = rows.shape
            return rows.reshape(c * t, d), torch.arange(c).repeat_interleave(t)
        held = self._of_kind(text)
        assert held is not None
        return held.rows, held.owner

    def _mean_by(
        self, rows: Float32[Tensor, "m d"], owner: Int64[Tensor, " m"]
    ) -> Float32[Tensor, "c d"]:
        total = rows.new_zeros(len(self.classes), rows.shape[1]).index_add_(0, owner, rows)
        count = torch.bincount(owner, minlength=len(self.classes))
        return total / count[:, None]


def _of_classes(held: TextSet, classes: Int64[Tensor, " w"]) -> TextSet:
    last = int(torch.cat([held.owner, classes]).max())
    place = held.owner.new_full((last + 1,), -1)
    place[classes] = torch.arange(len(classes))
    owner = place[held.owner]
    kept = (owner >= 0).nonzero()[:, 0]
    return TextSet(
        texts=tuple(held.texts[i] for i in kept.tolist()), rows=held.rows[kept], owner=owner[kept]
    )

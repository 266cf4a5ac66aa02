"""Embedded texts of a data set: all kinds of texts, any number per class."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from featcache.errors import MissingComponentError, UnknownNameError
from featcache.keys import ANY_TEXT_KINDS, FURTHER_SETS, IMPORTED_TEMPLATE, PROMPT, TEXT_KINDS
from featcache.wording import Argument, Placeholder, Setting

MEAN_OF_COSINES = ("dclip", "waffle")
"""Kinds of texts that are scored by the mean of cosines, not by the cosine with the mean."""

_SOURCES = {
    "template": Argument("templates", Placeholder("FILE")),
    "description": Argument("descriptions", Placeholder("FILE.json")),
    "cupl": Argument("cupl", Placeholder("FILE.json")),
    "dclip": Argument("dclip", Placeholder("FILE.json")),
    "waffle": Argument("waffle", Placeholder("SEED")),
    PROMPT: Argument("prompts", Placeholder("FILE")),
}
"""Kind of texts -> argument of an extraction that adds them."""


@dataclass(frozen=True, kw_only=True)
class TextSet:
    """Embedded texts, each of one class; or prompts, which are of none."""

    texts: tuple[str, ...]
    rows: Float32[Tensor, "m d"]
    owner: Int64[Tensor, " m"]
    """Class of each text; -1 for prompts."""


@dataclass(frozen=True, kw_only=True)
class TextBank:
    """Embedded texts of all classes, as the text tower computed them, not normalised."""

    classes: tuple[str, ...]
    names: Float32[Tensor, "c d"] | None
    """Features of the class names alone."""
    templates: tuple[str, ...]
    template_rows: Float32[Tensor, "c t d"] | None
    descriptions: tuple[str, ...] = ()
    description_rows: Float32[Tensor, "m d"] | None = None
    owner: Int64[Tensor, " m"] | None = None
    """Class of each description."""
    sets: Mapping[str, TextSet] = field(default_factory=dict)
    """Requested kinds among cupl, dclip, waffle and prompt."""
    logit_scale: float = 100.0
    """Factor on cosines (already exponentiated)."""
    logit_bias: float = 0.0
    """Added to scaled cosines; 0 except for models trained with a sigmoid loss."""
    norms: str = "raw"
    """raw, or unit for imported vectors that were normalised before."""
    default: str = "template"
    tokenizer: str = ""
    """sha256 of the tokenizer's files, if the user gave some; empty for the model's own."""

    def available(self) -> tuple[str, ...]:
        """Return the kinds of texts that exist for every class."""
        return tuple(kind for kind in TEXT_KINDS if self._is_whole(kind))

    def readable(self) -> tuple[str, ...]:
        """Return the kinds that methods can read: those of `available`, and prompts."""
        return tuple(kind for kind in ANY_TEXT_KINDS if self._is_whole(kind))

    def usual_kind(self) -> str:
        """Return the kind that zero-shot answers by: the default, or else the first that exists."""
        have = self.available()
        return self.default if self.default in have else have[0]

    def owned(self) -> dict[str, TextSet]:
        """Return the existing texts that have an owner, by kind: descriptions and further sets."""
        owned = {}
        if self.description_rows is not None and self.owner is not None:
            owned["description"] = TextSet(
                texts=self.descriptions, rows=self.description_rows, owner=self.owner
            )
        return owned | {kind: self.sets[kind] for kind in FURTHER_SETS if kind in self.sets}

    def anchors(self, text: str | None = None) -> Float32[Tensor, "c d"]:
        """Return one unit vector per class: normalise(mean_j normalise(e_j)).

        Source: Tip-Adapter's released classifier.

        Args:
            text: One of `TEXT_KINDS`; None for the default of the data set. If there are no dclip
                texts, dclip uses the descriptions.
        """
        return torch.nn.functional.normalize(self._mean_of_units(text), dim=-1)

    def classifier(self, text: str | None = None) -> Float32[Tensor, "c d"]:
        """Return T of the zero-shot scores x T^T: anchors, or plain means for two kinds.

        DCLIP and WaffleCLIP score by the mean of the cosines with the texts of a class, which is
        the product with their mean, not normalised.
        """
        if (text or self.default) in MEAN_OF_COSINES:
            return self._mean_of_units(text)
        return self.anchors(text)

    def raw_anchors(self, text: str | None = None) -> Float32[Tensor, "c d"]:
        """Return the mean per class, not normalised, from which TaskRes and CLAP start."""
        return self._mean_by(*self._ragged(text))

    def texts(self, text: str | None = None) -> tuple[Float32[Tensor, "m d"], Int64[Tensor, " m"]]:
        """Return every text as a unit vector, and the class of each.

        Args:
            text: One of `ANY_TEXT_KINDS`; prompts have class -1. None for the default.
        """
        rows, owner = self._ragged(text, ANY_TEXT_KINDS)
        return torch.nn.functional.normalize(rows, dim=-1), owner

    def lacks(self, kind: str) -> Argument | None:
        """Return the argument of an extraction that adds missing texts of a kind; else None."""
        return None if self._is_whole(kind) else _SOURCES.get(kind)

    def digest(self, kind: str) -> str:
        """Return 12 hex digits for the texts of a kind, the classes, and who owns which."""
        owned = self._of_kind(kind)
        texts = self.templates if owned is None else [owned.texts, owned.owner.tolist()]
        content = json.dumps([kind, self.classes, texts if kind != "name" else None])
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def of_classes(self, classes: Int64[Tensor, " w"]) -> "TextBank":
        """Return the texts of some classes, renumbered 0, 1, ... in the given order."""
        some = {
            kind: texts if kind == PROMPT else _of_classes(texts, classes)
            for kind, texts in self.owned().items()
        }
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
        # Without dclip texts, DCLIP uses the descriptions.
        return owned.get("description" if kind == "dclip" and kind not in owned else kind)

    def _is_whole(self, kind: str) -> bool:
        if self._per_class(kind) is not None:
            return True
        owned = self._of_kind(kind)
        if kind == PROMPT:
            return owned is not None
        return owned is not None and set(owned.owner.tolist()) == set(range(len(self.classes)))

    def _ragged(
        self, text: str | None, kinds: Sequence[str] = TEXT_KINDS
    ) -> tuple[Float32[Tensor, "m d"], Int64[Tensor, " m"]]:
        text = text or self.default
        if text not in kinds:
            raise UnknownNameError("kind of text", text, kinds)
        if not self._is_whole(text):
            stored = [kind for kind in self.available() if kind != "dclip" or kind in self.sets]
            have = ", ".join(stored) or "none"
            what = "prompts" if text == PROMPT else f"texts of kind '{text}' for every class"
            if self.templates == (IMPORTED_TEMPLATE,):
                raise MissingComponentError(
                    f"Imported features have one vector per class and no texts of kind '{text}'; "
                    f"this cache has: {have}. Train with ",
                    Setting("text", have),
                    ", or without text=...",
                )
            source = _SOURCES.get(text)
            is_json = source is not None and str(source.value).endswith("json")
            raise MissingComponentError(
                f"This cache holds no {what}; it has: {have}. Choose one with ",
                Setting("text", Placeholder("...")),
                ", or extract again",
                () if source is None else (" with ", source),
                ", which holds {class: [text, ...]} for every class" if is_json else "",
                ", a text file with one sentence a line" if text == PROMPT else "",
                ".",
            )
        if (rows := self._per_class(text)) is not None:
            c, t, d = rows.shape
            return rows.reshape(c * t, d), torch.arange(c).repeat_interleave(t)
        owned = self._of_kind(text)
        assert owned is not None
        return owned.rows, owned.owner

    def _mean_of_units(self, text: str | None) -> Float32[Tensor, "c d"]:
        rows, owner = self._ragged(text)
        return self._mean_by(torch.nn.functional.normalize(rows, dim=-1), owner)

    def _mean_by(
        self, rows: Float32[Tensor, "m d"], owner: Int64[Tensor, " m"]
    ) -> Float32[Tensor, "c d"]:
        total = rows.new_zeros(len(self.classes), rows.shape[1]).index_add_(0, owner, rows)
        count = torch.bincount(owner, minlength=len(self.classes))
        return total / count[:, None]


def _of_classes(texts: TextSet, classes: Int64[Tensor, " w"]) -> TextSet:
    last = int(torch.cat([texts.owner, classes]).max())
    new_label = texts.owner.new_full((last + 1,), -1)
    new_label[classes] = torch.arange(len(classes))
    owner = new_label[texts.owner]
    chosen = (owner >= 0).nonzero()[:, 0]
    return TextSet(
        texts=tuple(texts.texts[i] for i in chosen.tolist()),
        rows=texts.rows[chosen],
        owner=owner[chosen],
    )

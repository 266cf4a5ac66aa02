"""What the rows of a corpus are near to: the anchor of a class, its descriptions, or its shots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from featcache.bank import TextBank
from featcache.draws import few_shot
from featcache.errors import MissingComponentError, TaskError, UnknownNameError, UsageError
from featcache.keys import TEXT_KINDS
from featcache.retrieval.corpora.digests import labels_digest
from featcache.types import FeatureSet
from featcache.wording import Argument, Part, Placeholder

BY = ("class", "anchor", "image")
"""Nearest to the text anchor of a class, to one of its descriptions, or to one of its images."""


@dataclass(frozen=True, kw_only=True)
class Anchors:
    """Unit vectors with their classes.

    Of texts, those that belong to several classes are left out, unless a class has no other ones.
    """

    vectors: Float32[Tensor, "q d"]
    owner: Int64[Tensor, " q"]
    """Class of each vector, for every class at least one."""
    shots: Int64[np.ndarray, " r"]
    """Rows of the data set that were drawn as shots; empty if none were."""
    facts: Mapping[str, Any] = field(default_factory=dict)


def anchors_of(
    features: FeatureSet,
    by: str,
    *,
    text: str | None = None,
    shots: int | None = None,
    seeds: Sequence[int] = (1,),
) -> Anchors:
    """Return the vectors that rows are compared with.

    Args:
        features: Cache of the data set.
        by: One of `BY`.
        text: Kind of text for class and anchor; None for the default of the data set, or for
            descriptions.
        shots: Images per class that are drawn from `train`; None for all where images are compared,
            else for none.
        seeds: Seeds of the draws, which are joined.

    Raises:
        UnknownNameError: If `by` or the kind of text is unknown.
        MissingComponentError: If a class has no text of that kind.
        TaskError: If a class has no image to compare with.
        UsageError: If an argument does not fit.

    Example:
        >>> import featcache
        >>> cache = featcache.extract("fieldguide", "tiny", limit=48)
        >>> len(anchors_of(cache, "class").vectors) == len(cache.classes)
        True
    """
    if by not in BY:
        raise UnknownNameError("way to build a corpus by", by, BY)
    if not seeds:
        raise UsageError(Argument("seeds"), " must name at least one seed, got none.")
    drawn = np.empty(0, dtype=np.int64)
    if shots is not None or by == "image":
        drawn = _draws(features, shots, seeds)
    facts: dict[str, Any] = {}
    if shots is not None or by == "image":
        facts |= {"shots": shots or "all", "seeds": list(seeds)}
    if by == "image":
        if text is not None:
            raise UsageError(Argument("text", text), " has no effect on a corpus by image.")
        owner = torch.from_numpy(features.labels[drawn])
        _refuse_empty(features, owner)
        facts |= {"labels_digest": labels_digest(features)}
        vectors = features.unit("global", drawn)
        return Anchors(vectors=vectors, owner=owner, shots=drawn, facts=facts)
    bank = _bank(features)
    kind = text or ("description" if by == "anchor" else bank.default)
    _refuse_lacking(features, bank, kind)
    if by == "class":
        vectors, owner = bank.anchors(kind), torch.arange(len(bank.classes))
    else:
        vectors, owner = bank.texts(kind)
        own = _of_one_class(vectors, owner)
        facts |= {"shared_texts": int((~own).sum())}
        vectors, owner = vectors[own], owner[own]
    facts |= {"text": kind, "text_digest": bank.digest(kind)}
    return Anchors(vectors=vectors, owner=owner, shots=drawn, facts=facts)


def _of_one_class(
    vectors: Float32[Tensor, "m d"], owner: Int64[Tensor, " m"]
) -> Bool[Tensor, " m"]:
    """Tell which texts belong to one class only; all texts of a class that has no other ones.

    A text of two classes has the same cosine for both, so that what is near to it goes to none.
    """
    _, same = torch.unique(vectors, dim=0, return_inverse=True)
    pairs = torch.unique(torch.stack([same, owner]), dim=1)
    is_own = torch.bincount(pairs[0], minlength=len(vectors))[same] == 1
    with_own = torch.zeros(int(owner.max()) + 1, dtype=torch.bool)
    with_own[owner[is_own]] = True
    return is_own | ~with_own[owner]


def _draws(
    features: FeatureSet, shots: int | None, seeds: Sequence[int]
) -> Int64[np.ndarray, " r"]:
    """Return the rows of all draws, ascending."""
    draws = [few_shot(features.listing, shots, seed, usable=features.ok) for seed in seeds]
    rows: Int64[np.ndarray, " r"] = np.unique(np.concatenate([d.train_rows for d in draws]))
    return rows


def _bank(features: FeatureSet) -> TextBank:
    if features.text is None:
        raise MissingComponentError(
            f"{features.path} has no texts to find rows by. Extract the data set again, or use ",
            Argument("by", "image"),
            ".",
        )
    return features.text


def _refuse_lacking(features: FeatureSet, bank: TextBank, kind: str) -> None:
    if kind not in TEXT_KINDS:
        raise UnknownNameError("kind of text", kind, TEXT_KINDS)
    if kind in bank.available():
        return
    have = ", ".join(bank.available()) or "none"
    lacking: Part = ""
    if (owned := bank.owned().get(kind)) is not None:
        empty = sorted(set(range(len(bank.classes))) - set(owned.owner.tolist()))
        lacking = f" ({_some(bank.classes, empty)} without any)"
    source = bank.lacks(kind)
    raise MissingComponentError(
        f"{features.path} holds no texts of kind '{kind}' for every class",
        lacking,
        f"; it has: {have}. Choose one with ",
        Argument("text", Placeholder("KIND")),
        () if source is None else (", or extract again with ", source),
        ".",
    )


def _refuse_empty(features: FeatureSet, owner: Int64[Tensor, " q"]) -> None:
    counts = torch.bincount(owner, minlength=len(features.classes))
    empty = (counts == 0).nonzero()[:, 0].tolist()
    if empty:
        raise TaskError(
            f"{len(empty)} of {len(features.classes)} classes of {features.listing.dataset} have "
            f"no readable image in train to find rows by ({_some(features.classes, empty)}). Use ",
            Argument("by", "class"),
            ", which needs texts alone.",
        )


def _some(classes: Sequence[str], chosen: Sequence[int]) -> str:
    first = ", ".join(classes[i] for i in chosen[:4])
    return first if len(chosen) <= 4 else f"{first}, ... {len(chosen)} in all"

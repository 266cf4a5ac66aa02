"""Refusals of corpora that cannot be built, or must not be."""

from collections.abc import Sequence

from featcache.errors import CacheError, MissingComponentError, UsageError
from featcache.retrieval.corpora.anchors import Anchors
from featcache.retrieval.corpora.images import guarded_rows, guarded_splits
from featcache.retrieval.corpora.origins import Origin
from featcache.retrieval.vectors import Vectors
from featcache.store.corpora import check_name
from featcache.types import FeatureSet
from featcache.wording import Argument, Call


def check_arguments(name: str, k: int, min_cosine: float | None, margin: float | None) -> None:
    """Check the range of the arguments.

    Raises:
        UsageError: If one is out of range, or the name is not valid.
    """
    check_name(name)
    if k < 1:
        raise UsageError(Argument("k"), f" must be at least 1, got {k}.")
    if min_cosine is not None and not -1 <= min_cosine <= 1:
        raise UsageError(Argument("min_cosine"), f" must be within -1..1, got {min_cosine}.")
    if margin is not None and not 0 <= margin <= 2:
        raise UsageError(Argument("margin"), f" must be within 0..2, got {margin}.")


def refuse_queries(target: FeatureSet, origins: Sequence[Origin]) -> None:
    """Refuse splits of the data set that heads for it are selected or evaluated on.

    Raises:
        UsageError: If a source has one.
    """
    name = target.listing.dataset
    for origin in origins:
        if splits := origin.guarded(target):
            raise UsageError(
                f"Heads for {name} are selected and evaluated on its rows of {', '.join(splits)}, "
                f"which a corpus for {name} must not contain. Name its training rows, {name}:train,"
                " or say ",
                Argument("allow_leak", True),
                ", which marks the corpus.",
            )


def refuse_missing(target: FeatureSet) -> None:
    """Refuse to compare with query and validation images that were not encoded yet.

    Raises:
        MissingComponentError: If there are such images.
    """
    guarded = guarded_rows(target)
    encoded = len(Vectors([target], splits=guarded_splits(target)).sources[0].rows)
    if encoded < len(guarded):
        raise MissingComponentError(
            f"{len(guarded) - encoded} of {len(guarded)} query and validation images of "
            f"{target.listing.dataset} have no global features yet, so that near-duplicates of "
            "them cannot be found. Encode them with: ",
            Call(
                "featcache.extract",
                {"dataset": target.listing.dataset, "backbone": target.backbone},
            ),
        )


def refuse_other(target: FeatureSet, vectors: Vectors, anchors: Anchors) -> None:
    """Refuse sources whose vectors cannot be compared with the classes of the data set.

    Raises:
        CacheError: If their feature key differs.
        MissingComponentError: If their width differs.
    """
    first = vectors.sources[0].features
    if first.key != target.key:
        raise CacheError(
            f"{first.listing.dataset} has features of {first.backbone}, key {first.key.digest()}, "
            f"and {target.listing.dataset} of {target.backbone}, key {target.key.digest()}. Only "
            "features of one key can be compared; extract both with the same backbone and weights."
        )
    if vectors.dim != anchors.vectors.shape[1]:
        raise MissingComponentError(
            f"{vectors.sources[0].component} of {first.listing.dataset} has vectors of width "
            f"{vectors.dim}, and the classes of {target.listing.dataset} have "
            f"{anchors.vectors.shape[1]}."
        )

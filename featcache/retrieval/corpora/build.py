"""Build an augmentation corpus: for every class the rows of other caches that are nearest to it.

    own images left out -> nearest vectors of each text or shot -> near-duplicates left out, and the
    search repeated without them until it finds no more -> each vector goes to one class -> stored

The result equals that of comparing every row with every query and validation image first, and costs
as many comparisons as rows are near a class.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from featcache.errors import TaskError, UsageError
from featcache.retrieval.corpora.anchors import Anchors, anchors_of
from featcache.retrieval.corpora.checks import (
    check_arguments,
    refuse_missing,
    refuse_other,
    refuse_queries,
)
from featcache.retrieval.corpora.claims import LISTED, Claims, Lists, assign, lists_of
from featcache.retrieval.corpora.digests import classes_digest, queries_digest
from featcache.retrieval.corpora.duplicates import Kept, NearDuplicates, keep_first
from featcache.retrieval.corpora.images import guarded_rows, image_keys
from featcache.retrieval.corpora.origins import Origin, state_of
from featcache.retrieval.corpora.own import own_medians
from featcache.retrieval.corpora.report import CorpusReport, report_of
from featcache.retrieval.corpora.threshold import Threshold, calibrate
from featcache.retrieval.exact import search_exactly
from featcache.retrieval.vectors import Places, Vectors
from featcache.store.cache import Cache
from featcache.store.corpora import put_corpus
from featcache.store.format.corpus_file import CorpusArrays, CorpusRecord, SourceRecord
from featcache.store.provenance import versions_of
from featcache.types import FeatureSet
from featcache.wording import Argument

ODDS = 0.1
"""Default margin as a difference of logits: a vector belongs to no class where the odds of the two
nearest are below exp(0.1) = 1.1 to 1."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What a search came to."""

    vectors: Vectors
    claims: Claims
    near_duplicates: int


def build_corpus(
    name: str,
    target: FeatureSet,
    sources: Sequence[FeatureSet | Origin],
    *,
    by: str = "class",
    of: str = "global",
    recipe: str | None = None,
    k: int = 64,
    min_cosine: float | None = None,
    margin: float | None = None,
    dedupe: bool = True,
    text: str | None = None,
    shots: int | None = None,
    seeds: Sequence[int] = (1,),
    allow_leak: bool = False,
    again: bool = False,
    progress: Progress | None = None,
) -> CorpusReport:
    """Build a corpus for the classes of a data set and store it in its cache.

    The labels of the sources are never read.

    Args:
        name: Name of the corpus.
        target: Cache of the data set that the corpus is for.
        sources: Caches of the same feature key, whole or some splits of them.
        by: class: nearest to the text anchor of a class; anchor: to one of its texts; image: to one
            of its shots.
        of: Kind of vectors: global, patches, views or crops.
        recipe: Recipe of views and crops, or variant of patches; None for any.
        k: Most vectors of a class.
        min_cosine: Vectors with a smaller cosine are left out; None for no bound.
        margin: A vector whose cosines with two classes differ by less goes to none; None for `ODDS`
            divided by the logit scale of the texts.
        dedupe: Whether near-duplicates of query and validation images are left out.
        text: Kind of text; None for the default of the data set (class) or descriptions (anchor).
        shots: Images per class of the draws; their images are left out of the corpus. None for all
            of `train` where `by` is image, else for no draw.
        seeds: Seeds of the draws.
        allow_leak: Whether query and validation images of the data set may enter. The corpus is
            then marked, and no duplicates are left out.
        again: Whether a corpus of the same name and other content is replaced.
        progress: Called with what is done, how much, and of how much.

    Raises:
        UsageError: If an argument does not fit, or query images would enter unasked.
        CacheError: If caches have different feature keys or are damaged.
        MissingComponentError: If a cache lacks what is compared.
        TaskError: If a class has nothing to compare with, or no class found a vector.

    Example:
        >>> import featcache
        >>> from featcache.retrieval.corpora.origins import Origin
        >>> cache = featcache.open("fieldguide", "tiny")
        >>> unlabelled = Origin(features=cache, splits=("train",))
        >>> report = build_corpus("more", cache, [unlabelled], k=2, again=True)
        >>> report.name, report.leaks
        ('more', False)
    """
    check_arguments(name, k, min_cosine, margin)
    tell: Progress = progress or (lambda what, done, total: None)
    origins = [s if isinstance(s, Origin) else Origin(features=s) for s in sources]
    if not allow_leak:
        refuse_queries(target, origins)
    anchors = anchors_of(target, by, text=text, shots=shots, seeds=seeds)
    vectors = Vectors([origin.features for origin in origins], of, recipe=recipe)
    refuse_other(target, vectors, anchors)
    vectors = vectors.within([origin.rows() for origin in origins])
    searched = vectors.sources
    with_guarded = allow_leak or not dedupe
    guarded = image_keys(target, guarded_rows(target))
    kept = keep_first(
        searched, guarded, image_keys(target, anchors.shots), with_guarded=with_guarded
    )
    leaks = bool(kept.guarded) and with_guarded
    if leaks and not allow_leak:
        raise UsageError(
            f"{kept.guarded} images of the sources are query or validation images of "
            f"{target.listing.dataset}. Leave ",
            Argument("dedupe"),
            " on, or say ",
            Argument("allow_leak", True),
            ", which marks the corpus.",
        )
    vectors = vectors.within(kept.rows)
    if k > len(vectors):
        raise UsageError(
            f"k={k} vectors for a class are more than the {len(vectors)} that the sources have "
            f"without images of {target.listing.dataset} itself. Lower ",
            Argument("k"),
            ", or name more sources.",
        )
    threshold = None
    if not with_guarded and len(guarded):
        refuse_missing(target)
        tell("calibrating", 0, 0)
        threshold = calibrate(target)
    scale = target.text.logit_scale if target.text is not None else 100.0
    margin = ODDS / scale if margin is None else margin
    found = _search(target, vectors, anchors, k, min_cosine, margin, threshold, tell)
    if not len(found.claims.label):
        raise TaskError(
            "No class found a vector: all were below ",
            Argument("min_cosine"),
            " or equally near to two classes. Lower ",
            Argument("min_cosine"),
            " or ",
            Argument("margin"),
            ".",
        )
    facts = {
        **anchors.facts,
        "k": k,
        "min_cosine": min_cosine,
        "margin": margin,
        "vectors": sum(len(s.rows) * s.parts for s in searched),
        **_left_out(kept, found, with_guarded=with_guarded),
        "dedupe": not with_guarded,
        "threshold": None if threshold is None else _rounded(asdict(threshold)),
    }
    places = found.vectors.places(found.claims.position)
    values = _values(found.vectors, places)
    record = CorpusRecord(
        name=name,
        dataset=target.listing.dataset,
        key=target.key.digest(),
        by=by,
        of=of,
        rows=len(values),
        dim=values.shape[1],
        dtype=values.dtype.name,
        classes=len(target.classes),
        classes_digest=classes_digest(target),
        queries_digest=queries_digest(target),
        leaks=leaks,
        sources=tuple(
            SourceRecord(
                dataset=origin.features.listing.dataset,
                key=origin.features.key.digest(),
                component=source.component,
                splits=origin.splits,
                state=state_of(Cache.open(source.features.path), source.component, source.rows),
                vectors=len(source.rows) * source.parts,
            )
            for origin, source in zip(origins, searched, strict=True)
        ),
        facts=facts,
        provenance=versions_of("featcache", "torch", "numpy"),
    )
    arrays = CorpusArrays(
        values=values,
        labels=found.claims.label,
        cosines=found.claims.cosine,
        source=places.source.astype(np.int32),
        row=places.row,
        part=places.part.astype(np.int32),
    )
    stored, is_new = put_corpus(Cache.open(target.path), record, arrays, replace=again)
    own = own_medians(target, stored)
    return report_of(target.path, target.classes, stored, arrays, own=own, is_new=is_new)


def _search(
    target: FeatureSet,
    vectors: Vectors,
    anchors: Anchors,
    k: int,
    min_cosine: float | None,
    margin: float,
    threshold: Threshold | None,
    tell: Progress,
) -> _Found:
    """Search until no near-duplicate is on the list of a class."""
    near = None if threshold is None else NearDuplicates(target, threshold.cosine)
    while True:
        lists = _lists(vectors, anchors, k, min_cosine, tell)
        places = vectors.places(lists.position)
        found = [] if near is None else near.among(vectors.sources, places.source, places.row)
        if not any(map(len, found)):
            claims = assign(lists, k, margin)
            count = 0 if near is None else near.count
            return _Found(vectors=vectors, claims=claims, near_duplicates=count)
        vectors = vectors.within(
            [np.setdiff1d(s.rows, rows) for s, rows in zip(vectors.sources, found, strict=True)]
        )


def _lists(
    vectors: Vectors, anchors: Anchors, k: int, min_cosine: float | None, tell: Progress
) -> Lists:
    length = min(LISTED * k, len(vectors))
    if not length:
        raise TaskError(
            "Every image near a class is a near-duplicate of a query or validation image. Name "
            "other sources, or build without ",
            Argument("dedupe"),
            ".",
        )
    cosines, positions = search_exactly(
        vectors,
        anchors.vectors,
        length,
        progress=lambda done, total: tell("searching", done, total),
    )
    owner = anchors.owner.numpy()
    return lists_of(cosines.numpy(), positions.numpy(), owner, length, min_cosine)


def _values(vectors: Vectors, places: Places) -> Float[np.ndarray, "n d"]:
    """Gather vectors as their caches have them."""
    found = []
    for number, own in enumerate(vectors.sources):
        where = np.flatnonzero(places.source == number)
        rows, back = np.unique(places.row[where], return_inverse=True)
        values = own.features.rows(own.component, rows).reshape(len(rows), own.parts, own.dim)
        found.append((where, values[torch.from_numpy(back), torch.from_numpy(places.part[where])]))
    is_wide = any(values.dtype == torch.float32 for _, values in found)
    out = np.empty((len(places.row), vectors.dim), dtype=np.float32 if is_wide else np.float16)
    for where, values in found:
        out[where] = values.numpy()
    return out


def _left_out(kept: Kept, found: _Found, *, with_guarded: bool) -> dict[str, Any]:
    return {
        "equal_images": 0 if with_guarded else kept.guarded,
        "near_duplicates": found.near_duplicates,
        "own_shots": kept.shots,
        "repeated": kept.repeated,
        "contested": found.claims.contested,
        "ambiguous": found.claims.ambiguous,
    }


def _rounded(facts: dict[str, Any]) -> dict[str, Any]:
    """Round to six digits, so that another number of threads gives the same facts."""
    return {n: round(v, 6) if isinstance(v, float) else v for n, v in facts.items()}

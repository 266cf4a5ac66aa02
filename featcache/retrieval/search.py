"""Search for a text, an image, a class or a row in caches: the rows, or patches, nearest to it.

    query -> unit vector -> k largest cosines -> rows with id, split, label, and boxes of patches

The newest index that covers exactly these vectors is used. Without one they are searched exactly,
block by block, so that memory does not grow with their number.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64
from torch import Tensor

from featcache.embedding import ImageLike
from featcache.errors import UsageError
from featcache.keys import Listing
from featcache.retrieval.encode import QueryEncoder, class_vector, row_vector
from featcache.retrieval.exact import search_exactly
from featcache.retrieval.found import Found, Hit
from featcache.retrieval.index import open_index
from featcache.retrieval.patch_places import PatchPlaces
from featcache.retrieval.query import Query, check_count, label_of, one_query, open_caches, row_of
from featcache.retrieval.vectors import Vectors
from featcache.store.library import cache_root
from featcache.types import FeatureSet
from featcache.wording import Argument, Part

CacheLike = FeatureSet | str


def search(
    query: ImageLike | None = None,
    *,
    text: str | None = None,
    image: ImageLike | None = None,
    class_name: str | int | None = None,
    row: str | None = None,
    caches: CacheLike | Sequence[CacheLike] = (),
    k: int = 20,
    patches: bool = False,
    split: str | None = None,
    exact: bool = False,
    key: str | None = None,
    weights: str | None = None,
    tokenizer: Path | str | None = None,
    device: str = "auto",
    root: Path | str | None = None,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[Part], None] = lambda _: None,
) -> Found:
    """Find the rows of caches that are nearest to a query.

    Args:
        query: Text, or the path of an existing file, which is an image; or an image in memory.
        text: Text, whatever files there are.
        image: Path, bytes of a file, Pillow image or uint8 [h w 3].
        class_name: Class of a cache by its name or its label; its text anchor is the query.
        row: Id of an image of a cache; its stored features are the query, and it is left out.
        caches: Open caches or their names, a data set or data set/backbone, of one feature key;
            none is the newest cache.
        k: Vectors to find, in [1, 10000]; all if there are fewer.
        patches: Whether to search the patches and not the whole images.
        split: Split whose rows are searched; None for all.
        exact: Whether every vector is read, even where there is an index.
        key: First digits of the digest of the caches' key, where names are not enough.
        weights: Weights of the backbone, if `extract` was given a file that has moved.
        tokenizer: Tokenizer, if `extract` was given one.
        device: Where a text or an image is encoded: auto, cpu, cuda, ...
        root: Folder of all caches; the usual one if not given.
        progress: Called after each block with the vectors read, and their number.
        say: Called with sentences that the user should read.

    Raises:
        UsageError: If there is not exactly one query, `k` is out of range, a class, id, split or
            cache is unknown, or a name fits several.
        CacheError: If the caches have different keys, or the backbone here has another.
        MissingComponentError: If a cache lacks the patches, the texts or the row.
        BackboneError: If the encoder, or its weights, are not on this machine.
        UnreadableImageError: If the image cannot be used.
        FeatcacheError: If a text or an image would have to be encoded for imported features.

    Example:
        >>> import featcache
        >>> cache = featcache.extract("fieldguide", "tiny")
        >>> found = featcache.search(class_name=0, caches=cache, k=5)
        >>> len(found), found.hits[0].cosine >= found.hits[4].cosine
        (5, True)
        >>> found.hits[0].id in cache.listing.ids
        True
    """
    wanted = one_query(query, text=text, image=image, class_name=class_name, row=row)
    check_count(k)
    opened = _opened(caches, None if root is None else Path(root), key)
    encoder = QueryEncoder(
        opened[0],
        weights=weights,
        tokenizer=None if tokenizer is None else Path(tokenizer),
        device=device,
        say=say,
    )
    vectors = _vectors(opened, "patches" if patches else "global", split)
    vector, place, shown = _resolve(wanted, opened, encoder)
    without = place if wanted.kind == "row" else None
    cosines, positions, how = _nearest(vectors, vector, k, without, exact, progress, say)
    if len(positions) < k:
        many = f"{len(positions)} {'patches' if patches else 'rows'}"
        say(("Fewer than ", Argument("k", k), f" vectors can be found here: {many} in all."))
    return Found(
        query=shown,
        place=place,
        caches=tuple(opened),
        hits=_hits(vectors, cosines, positions, split),
        searched=len(vectors),
        kind=vectors.kind,
        how=how,
    )


def _opened(
    caches: CacheLike | Sequence[CacheLike], root: Path | None, key: str | None
) -> list[FeatureSet]:
    several = [caches] if isinstance(caches, FeatureSet | str) else list(caches)
    open_already = [cache for cache in several if isinstance(cache, FeatureSet)]
    names = [cache for cache in several if isinstance(cache, str)]
    if open_already and names:
        raise UsageError(Argument("caches"), " are either all open or all names; got both.")
    if open_already:
        return open_already
    return [cache.feature_set() for cache in open_caches(names, cache_root(root), key)]


def _vectors(caches: Sequence[FeatureSet], kind: str, split: str | None) -> Vectors:
    splits = None if split is None else [split]
    vectors = Vectors(caches, kind, splits=splits)
    if not len(vectors):
        where = f" in the split '{split}'" if split else ""
        raise UsageError(
            f"There is nothing to search{where}: no image of it has features. Choose another ",
            Argument("split"),
            ", or extract it.",
        )
    return vectors


def _resolve(
    query: Query, caches: Sequence[FeatureSet], encoder: QueryEncoder
) -> tuple[Float32[Tensor, " d"], tuple[int, int] | None, Query]:
    """Return the vector of a query, its place in the caches, and the query by its full name."""
    listings = [cache.listing for cache in caches]
    if query.kind == "class":
        at, label = label_of(query.value, listings)
        name = listings[at].classes[label]
        return class_vector(caches[at], label), (at, label), Query(kind="class", value=name)
    if query.kind == "row":
        at, row = row_of(query.value, listings)
        return row_vector(caches[at], row), (at, row), query
    if query.kind == "text":
        return encoder.text(query.value), None, query
    return encoder.image(query.value), None, query


def _nearest(
    vectors: Vectors,
    query: Float32[Tensor, " d"],
    k: int,
    without: tuple[int, int] | None,
    exact: bool,
    progress: Callable[[int, int], None] | None,
    say: Callable[[Part], None],
) -> tuple[Float32[np.ndarray, " k"], Int64[np.ndarray, " k"], str]:
    """Return cosines and positions, nearest first, without the vectors of one row, and how."""
    spare = 0 if without is None else vectors.sources[without[0]].parts
    wanted = min(k + spare, len(vectors))
    how = "exact"
    opened = None if exact else open_index(vectors)
    if opened is not None and (opened.index is None or not opened.is_exact):
        for note in opened.notes:
            say(note)
    if opened is None or opened.is_exact:
        found = search_exactly(vectors, query[None], wanted, progress=progress)
    else:
        assert opened.index is not None
        how = opened.index.kind
        found = opened.search(query[None], wanted)
    cosines, positions = (each[0].cpu().numpy() for each in found)
    if without is not None:
        places = vectors.places(positions)
        other = (places.source != without[0]) | (places.row != without[1])
        cosines, positions = cosines[other], positions[other]
    return cosines[:k], positions[:k], how


def _hits(
    vectors: Vectors,
    cosines: Float32[np.ndarray, " k"],
    positions: Int64[np.ndarray, " k"],
    split: str | None,
) -> tuple[Hit, ...]:
    places = vectors.places(positions)
    caches = [source.features for source in vectors.sources]
    boxes = PatchPlaces(caches)
    hits = []
    for cosine, at, row, part in zip(
        cosines.tolist(),
        places.source.tolist(),
        places.row.tolist(),
        places.part.tolist(),
        strict=True,
    ):
        cache, listing = caches[at], caches[at].listing
        label = int(listing.labels[row])
        patch = None
        if vectors.kind == "patches":
            patch = boxes.of(at, row, part, vectors.sources[at].parts)
        hits.append(
            Hit(
                cosine=min(max(cosine, -1.0), 1.0),
                source=at,
                dataset=listing.dataset,
                backbone=cache.backbone,
                row=row,
                id=listing.ids[row],
                split=split or _split_of(listing, row),
                label=label,
                class_name=listing.classes[label] if label >= 0 else "",
                patch=patch,
            )
        )
    return tuple(hits)


def _split_of(listing: Listing, row: int) -> str:
    """Return the split of a row; stored few-shot sets, `train@4`, are part of another split."""
    names = sorted(listing.splits, key=lambda name: "@" in name)
    return next((name for name in names if (listing.splits[name] == row).any()), "")

"""What is searched for, and in which caches: checked before anything is encoded, without torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from featcache.errors import FeatcacheError, UnknownNameError, UsageError
from featcache.keys import Listing
from featcache.paths import expand
from featcache.sources.trees.names import is_image
from featcache.store.cache import Cache
from featcache.store.library import find_cache
from featcache.text.templates import check_length
from featcache.wording import Argument, Part

MOST = 10_000
"""Most vectors that one search returns."""
COMPARED = 1_000
"""Most ids that are compared to suggest similar ones."""

QueryKind = Literal["text", "image", "class", "row"]


@dataclass(frozen=True, kw_only=True)
class Query:
    """One thing that is searched for."""

    kind: QueryKind
    value: Any
    """The text, the image, the name or label of a class, or the id of a row."""


def one_query(
    query: Any = None,
    *,
    text: str | None = None,
    image: Any = None,
    class_name: str | int | None = None,
    row: str | None = None,
) -> Query:
    """Return the only query among the arguments.

    Args:
        query: Text, or the path of an existing file, which is an image; anything but a string is
            an image.
        text: Text, whatever files there are.
        image: Path, bytes of a file, Pillow image or uint8 [h w 3].
        class_name: Name of a class, or its label.
        row: Id of an image of the cache.

    Raises:
        UsageError: If there is not exactly one, a text is empty or too long, or an image is no
            file: `image`, a path, or a `query` that has the name of an image.

    Example:
        >>> one_query("a photo of an owl").kind
        'text'
    """
    given = {"text": text, "image": image, "class": class_name, "row": row}
    if query is not None:
        given["query"] = query
    there = [(kind, value) for kind, value in given.items() if value is not None]
    if len(there) != 1:
        raise UsageError(
            "A search takes one query: a text or the path of an image, ",
            Argument("text"),
            ", ",
            Argument("image"),
            ", ",
            Argument("class_name"),
            " or ",
            Argument("row"),
            f"; got {len(there)}.",
        )
    kind, value = there[0]
    if kind == "query":
        kind = "text" if isinstance(value, str) and not _is_file(value) else "image"
        if kind == "text" and is_image(value):
            raise _no_file(f"'{value[:200]}' has the name of an image, and there is no such file.")
    if kind == "image" and isinstance(value, str | Path) and not _is_file(value):
        raise _no_file(f"There is no image file '{str(value)[:200]}'.")
    if kind == "text" and not check_length(str(value)).strip():
        raise UsageError("The text to search for is empty. Write what the images should show.")
    return Query(kind=kind, value=value)  # type: ignore[arg-type]


def check_count(k: int) -> int:
    """Return a number of vectors to find.

    Raises:
        UsageError: If it is out of range.
    """
    if not 1 <= k <= MOST:
        raise UsageError(Argument("k"), f" must be 1 to {MOST} vectors to find, got {k}.")
    return k


def open_caches(names: Sequence[str], root: Path, key: str | None = None) -> list[Cache]:
    """Open the caches to search.

    Args:
        names: Data sets, or data set/backbone; none is the newest cache.
        root: Folder of all caches.
        key: First digits of the digest of their key.

    Returns:
        Caches in the order of their names. Where a name leaves the backbone open, a cache with
        the key of the first one goes before newer ones.

    Raises:
        CacheNotFoundError: If there is none, or none is finished.
        UnknownNameError: If no cache has that data set, backbone or key.
        UsageError: If a cache is named twice, or several fit that hold other features.
    """
    opened: list[Cache] = []
    several: Sequence[str | None] = names or [None]
    for name in several:
        dataset, _, backbone = (name or "").partition("/")
        if name is not None and not dataset:
            raise UsageError(
                Argument("caches"), f" names a cache '{name}' without its data set; write e.g. ",
                Argument("caches", "fieldguide/tiny"), ".",
            )  # fmt: skip
        cache = _find(root, dataset or None, backbone or None, key, opened[0] if opened else None)
        if any(cache.path == other.path for other in opened):
            raise UsageError(
                f"{cache.dataset} with {cache.backbone} is named twice; leave one of them out."
            )
        opened.append(cache)
    return opened


def _find(
    root: Path, dataset: str | None, backbone: str | None, key: str | None, first: Cache | None
) -> Cache:
    if first is not None and key is None:
        try:
            return find_cache(root, dataset, backbone, first.key.digest())
        except UnknownNameError as error:  # of this or of another name, which is found out below
            if error.kind != "key of a cache":
                raise
    return find_cache(root, dataset, backbone, key)


def label_of(wanted: str | int, listings: Sequence[Listing]) -> tuple[int, int]:
    """Find a class by its name or, if no class is called so, by its label.

    Args:
        wanted: Name or label.
        listings: Listings of the caches; the first that has the class is taken.

    Returns:
        Position of the listing, and the label.

    Raises:
        UsageError: If several classes of a listing have this name.
        UnknownNameError: If there is no such class.
    """
    number = _as_number(wanted)
    for at, listing in enumerate(listings):
        labels = [label for label, name in enumerate(listing.classes) if name == wanted]
        if len(labels) > 1:
            raise UsageError(
                f"{len(labels)} classes of {listing.dataset} are called '{wanted}'. Name one by "
                "its label: ",
                _either([Argument("class_name", label) for label in labels[:8]]),
                ".",
            )
        if labels:
            return at, labels[0]
    for at, listing in enumerate(listings):
        if number is not None and 0 <= number < len(listing.classes):
            return at, number
    known = [name for listing in listings for name in listing.classes]
    if number is not None:
        most = max(len(listing.classes) for listing in listings)
        raise UsageError(f"No class has the label {number}; labels go from 0 to {most - 1}.")
    raise UnknownNameError("class", str(wanted), known)


def row_of(wanted: str, listings: Sequence[Listing]) -> tuple[int, int]:
    """Find an image by its id.

    Returns:
        Position of the listing, and the row.

    Raises:
        UsageError: If images of several caches have this id.
        UnknownNameError: If there is no such image.
    """
    found = []
    for at, listing in enumerate(listings):
        try:
            found.append((at, listing.ids.index(wanted)))
        except ValueError:
            continue
    if len(found) > 1:
        which = ", ".join(listings[at].dataset for at, _ in found)
        raise UsageError(
            f"Images of several caches have the id '{wanted}': {which}. Name one of them with ",
            Argument("caches"),
            ".",
        )
    if found:
        return found[0]
    # Ids that contain the same file name come before the others: comparing all takes too long.
    stem = wanted.rpartition("/")[2].lower()
    near: list[str] = []
    rest: list[str] = []
    for listing in listings:
        for name in listing.ids:
            is_near = bool(stem) and stem in name.lower() and len(near) < COMPARED
            (near if is_near else rest).append(name)
    raise UnknownNameError("id of an image", wanted, near or rest)


def check_in_caches(query: Query, caches: Sequence[Cache], split: str | None = None) -> None:
    """Refuse a query that the caches cannot answer, as far as their listings tell.

    Raises:
        FeatcacheError: If there is no such class, row or split, or a text or an image cannot be
            encoded.
    """
    listings = [listing for cache in caches if (listing := cache.listing()) is not None]
    for listing in listings:
        if split is not None and split not in listing.splits:
            raise UnknownNameError("split", split, listing.splits)
    if query.kind == "class":
        label_of(query.value, listings)
    if query.kind == "row":
        row_of(str(query.value), listings)
    if query.kind in ("text", "image"):
        check_encodable(query.kind, caches[0].key.is_imported, caches[0].dataset)


def check_encodable(kind: str, is_imported: bool, dataset: str) -> None:
    """Refuse to encode a query for imported features, whose encoder is unknown.

    Raises:
        FeatcacheError: If they are imported.
    """
    if is_imported:
        raise FeatcacheError(
            f"{dataset} has imported features, and nothing says which encoder made them, so "
            f"no {kind} can be encoded like them. Search for a class or for a row: ",
            Argument("class_name"),
            " or ",
            Argument("row"),
            ".",
        )


def _no_file(problem: str) -> UsageError:
    hint = " Check the path, or search for the words with "
    return UsageError(problem + hint, Argument("text"), ".")


def _is_file(path: str | Path) -> bool:
    try:
        return expand(path).is_file()
    except (OSError, ValueError, UsageError):  # too long or odd for a path
        return False


def _as_number(wanted: str | int) -> int | None:
    if isinstance(wanted, int):
        return wanted
    is_number = wanted.isascii() and wanted.isdecimal() and len(wanted) <= 9
    return int(wanted) if is_number else None


def _either(parts: Sequence[Part]) -> list[Part]:
    joined: list[Part] = []
    for number, part in enumerate(parts):
        joined += [" or "] if number and number == len(parts) - 1 else [", "] if number else []
        joined.append(part)
    return joined

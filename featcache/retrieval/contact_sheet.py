"""The contact sheet of what a search found: its images, with boxes for patches."""

from featcache.errors import UsageError
from featcache.imaging.decode import (
    Pixels,
    UnreadableImageError,
    pixel_limit,
    plain_room,
    quiet_pillow,
)
from featcache.imaging.inputs import source_of
from featcache.pages.sheet import MOST, Mark, Section, Sheet, Tile
from featcache.pages.thumbnails import Thumbnail, thumbnail
from featcache.retrieval.found import Found, Hit
from featcache.retrieval.originals import Originals
from featcache.wording import Argument

TITLE = 300
"""Most characters of a text that a sheet shows as its title."""


def sheet_of(found: Found) -> Sheet:
    """Read the images of a search; patches of one image share a tile.

    Raises:
        UsageError: If there are more images than a sheet holds.
    """
    groups: dict[tuple[int, int], list[tuple[int, Hit]]] = {}
    for rank, hit in enumerate(found.hits, start=1):
        groups.setdefault((hit.source, hit.row), []).append((rank, hit))
    if len(groups) > MOST:
        raise UsageError(
            f"A sheet shows at most {MOST} images, and {len(groups)} were found. Lower ",
            Argument("k"),
            ".",
        )
    originals = Originals(found.caches)
    return Sheet(
        kind=found.query.kind.capitalize(),
        title=_title(found),
        facts=_facts(found),
        thumbnail=_query_thumbnail(found, originals),
        sections=(Section(tiles=tuple(_tile(found, hits, originals) for hits in groups.values())),),
    )


def _tile(found: Found, hits: list[tuple[int, Hit]], originals: Originals) -> Tile:
    _, first = hits[0]
    small, problem = None, ""
    try:
        small = thumbnail(originals.pixels(first.source, first.row))
    except UnreadableImageError as error:
        problem = error.reason
    tags = [first.split] if first.split else []
    if len(found.caches) > 1:
        tags.append(first.dataset)
    return Tile(
        ranks=tuple(rank for rank, _ in hits),
        title=first.class_name,
        id=first.id,
        tags=tuple(tags),
        cosine=first.cosine,
        thumbnail=small,
        problem=problem,
        marks=tuple(
            Mark(box=hit.patch.box, rank=rank, cosine=hit.cosine)
            for rank, hit in hits
            if hit.patch is not None and hit.patch.box is not None
        ),
    )


def _title(found: Found) -> str:
    value = found.query.value
    if found.query.kind == "image" and not isinstance(value, str):
        value = getattr(value, "name", None) or "an image"
    text = str(value)
    return text if len(text) <= TITLE else text[: TITLE - 3] + "..."


def _facts(found: Found) -> tuple[str, ...]:
    what = "patches" if found.kind == "patches" else "images"
    names = ", ".join(dict.fromkeys(cache.listing.dataset for cache in found.caches))
    return (
        f"{len(found)} nearest of {found.searched:,} {what}",
        names,
        found.caches[0].backbone,
        f"key {found.caches[0].key.digest()}",
        f"{found.how} search",
    )


def _query_thumbnail(found: Found, originals: Originals) -> Thumbnail | None:
    try:
        if found.query.kind == "row" and found.place is not None:
            return thumbnail(originals.pixels(*found.place))
        if found.query.kind == "image":
            return thumbnail(_pixels(found.query.value))
    except UnreadableImageError:  # the file has gone since it was encoded
        return None
    return None


def _pixels(image: object) -> Pixels:
    limit = pixel_limit()
    with quiet_pillow():
        source = source_of(image, 0, None, limit)
        pixels, _ = source.load(max_pixels=limit, room=plain_room, claim=lambda _: None)
    return pixels

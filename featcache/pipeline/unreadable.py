"""Images that could not be read: tried again, reported, and refused where the user wants that."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing

import numpy as np

from featcache.errors import SourceError
from featcache.imaging.decode import UnreadableImageError, quiet_pillow, read_image
from featcache.imaging.decode_work import BYTES, Memory
from featcache.imaging.loader import FileSource
from featcache.imaging.views import central_view
from featcache.imaging.windows import Preprocess
from featcache.store.cache import Cache
from featcache.threads import in_order
from featcache.wording import Argument


def readable_now(
    rows: Sequence[int],
    sources: Mapping[int, FileSource],
    preprocess: Preprocess,
    *,
    threads: int,
    max_pixels: int,
    report: Callable[[str, int, int], None],
) -> frozenset[int]:
    """Return the rows whose image can be read by now: restored, or allowed to be larger.

    Args:
        rows: Rows whose image could not be read before; each has a source.
        sources: Row -> its image.
        preprocess: Preprocessing of the backbone.
        threads: Threads that decode.
        max_pixels: Largest image to decode.
        report: Called as (activity, images tried so far, of how many).
    """
    memory = Memory(BYTES * max_pixels)  # of all threads together, as in a pass

    def is_readable(row: int) -> bool:
        source = sources[row]
        with memory.share() as claim:
            try:
                image = read_image(source.place, source.sha256, max_pixels=max_pixels, claim=claim)
                central_view(image, preprocess)
            except UnreadableImageError:
                return False
        return True

    readable = set()
    tried = in_order(rows, is_readable, threads=threads, ahead=threads)
    with quiet_pillow(), closing(tried):
        for done, (row, good) in enumerate(zip(rows, tried, strict=True), start=1):
            if good:
                readable.add(row)
            report("trying unreadable images again", done, len(rows))
    return frozenset(readable)


def unreadable_images(
    cache: Cache, sources: Mapping[int, FileSource]
) -> tuple[tuple[str, str], ...]:
    """Return (image, reason) for the images of the data set that could not be read."""
    return tuple((sources[r].id, why) for r, why in cache.bad_rows().items() if r in sources)


def refuse_any(
    cache: Cache, sources: Mapping[int, FileSource], *, readable: frozenset[int] = frozenset()
) -> None:
    """Raise if an image of the data set could not be read, as a strict request demands.

    Args:
        cache: Names the rows whose image could not be read.
        sources: Row -> its image.
        readable: Rows whose image can be read by now.

    Raises:
        SourceError: If there is one.
    """
    bad = cache.bad_rows()
    left = [row for row in bad if row in sources and row not in readable]
    if left:
        raise SourceError(
            f"{sources[left[0]].id} {bad[left[0]]}; {len(left)} images of this cache could not "
            "be read. Without ",
            Argument("strict"),
            " they are skipped.",
        )


def refuse_all(cache: Cache, sources: Mapping[int, FileSource]) -> None:
    """Raise if images were read and every one of them is unreadable.

    Raises:
        SourceError: If that is so.
    """
    bad = {row: why for row, why in cache.bad_rows().items() if row in sources}
    rows = np.array(sorted(sources), dtype=np.int64)
    if bad and not cache.covered("global", retry_bad=True)[rows].any():
        first, why = next(iter(bad.items()))
        raise SourceError(
            f"None of the {len(bad)} images could be read (first: {sources[first].id} {why}). "
            f"Repair them and run the same command again."
        )

"""Images that an earlier pass could not read, tried again.

They may be readable now: mended, allowed to be larger, given permissions.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing

from featcache.imaging.decode import UnreadableImageError, quiet_pillow, read_image
from featcache.imaging.decode_work import BYTES, Memory
from featcache.imaging.loader import FileSource
from featcache.imaging.views import central_view
from featcache.imaging.windows import Preprocess
from featcache.threads import in_order


def readable_now(
    rows: Sequence[int],
    sources: Mapping[int, FileSource],
    preprocess: Preprocess,
    *,
    threads: int,
    max_pixels: int,
    report: Callable[[str, int, int], None],
) -> frozenset[int]:
    """Return those of the rows whose image can be read by now.

    Args:
        rows: Whose image could not be read before; each has a source.
        sources: Row -> its image.
        preprocess: What the image has to go through.
        threads: That decode.
        max_pixels: Largest image to decode.
        report: Told how many were tried.
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

    found = set()
    tried = in_order(rows, is_readable, threads=threads, ahead=threads)
    with quiet_pillow(), closing(tried):
        for done, (row, good) in enumerate(zip(rows, tried, strict=True), start=1):
            if good:
                found.add(row)
            report("trying unreadable images again", done, len(rows))
    return frozenset(found)

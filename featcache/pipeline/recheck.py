"""Images that an earlier pass has dealt with, looked at again.

Those it could not read may be readable now (mended, allowed to be larger, given permissions); those
it stored tell whether this environment gives the same numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing

import numpy as np
from jaxtyping import Float16

from featcache.imaging.decode import UnreadableImageError, in_order, quiet_pillow, read_image
from featcache.imaging.decode_work import BYTES, Memory
from featcache.imaging.draw import Source
from featcache.imaging.views import central_view
from featcache.imaging.windows import Preprocess
from featcache.pipeline.encode import Encoder, Lane


def readable_now(
    rows: Sequence[int],
    sources: Mapping[int, Source],
    preprocess: Preprocess,
    *,
    threads: int,
    max_pixels: int,
    report: Callable[[str, int, int], None],
) -> frozenset[int]:
    """Return those of the rows whose image can be read by now.

    Args:
        rows: Whose image could not be read before; each has a source.
        sources: Row -> its file.
        preprocess: What the picture has to go through.
        threads: That decode.
        max_pixels: Largest picture to decode.
        report: Told how many were tried.
    """
    memory = Memory(BYTES * max_pixels)  # of all threads together, as in a pass

    def is_readable(row: int) -> bool:
        source = sources[row]
        with memory.share() as claim:
            try:
                image = read_image(source.path, source.sha256, max_pixels=max_pixels, claim=claim)
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


def encode_again(
    rows: Sequence[int],
    sources: Mapping[int, Source],
    encoder: Encoder,
    variant: str = "",
    *,
    max_pixels: int,
) -> tuple[list[int], Float16[np.ndarray, "r ..."]]:
    """Encode stored images a second time.

    Args:
        rows: Each has a source.
        sources: Row -> its file.
        encoder: What encodes them.
        variant: Of patch features; empty for global ones.
        max_pixels: Largest picture to decode.

    Returns:
        The rows whose image could be read, and their features.
    """
    preprocess = Preprocess.of(encoder.backbone)
    pictures = {}
    for row in rows:
        source = sources[row]
        try:
            image = read_image(source.path, source.sha256, max_pixels=max_pixels)
            pictures[row] = central_view(image, preprocess)
        except UnreadableImageError:
            continue  # what is gone since cannot be compared
    found = np.array(list(pictures), dtype=np.int64)
    lane = Lane(encoder, found, (variant,) if variant else ())
    for row, picture in pictures.items():
        lane.add(row, [picture])
    return list(pictures), lane.end()[variant or "global"]

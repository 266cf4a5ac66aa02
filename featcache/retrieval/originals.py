"""The images behind rows of caches, decoded, or the reason why one cannot be shown.

Only bytes with the hash that the listing records are decoded: a cache from a stranger may name any
file of this machine as its image, and a page that shows it could be passed on.
"""

import hashlib
from collections.abc import Sequence

from featcache.errors import FeatcacheError
from featcache.imaging.decode import (
    Pixels,
    UnreadableImageError,
    decode,
    pixel_limit,
    quiet_pillow,
    read_bytes,
)
from featcache.store.images import ListedImages
from featcache.types import FeatureSet


class Originals:
    """Images of rows of some caches; where they are is looked up when the first is read."""

    def __init__(self, caches: Sequence[FeatureSet]) -> None:
        """Take the caches; nothing is read.

        Args:
            caches: Caches below their folder of caches.
        """
        self.caches = caches
        self._opened: dict[int, ListedImages | UnreadableImageError] = {}

    def pixels(self, source: int, row: int) -> Pixels:
        """Read and decode the image of a row.

        Args:
            source: Position of the cache.
            row: Row of its listing.

        Raises:
            UnreadableImageError: With the reason, if it is not the listed image any more, or
                there is none.
        """
        images = self._images(source)
        listing = self.caches[source].listing
        places = images.places(row)
        if not places:
            raise UnreadableImageError(f"is no longer in {images.root}")
        limit = pixel_limit()
        with quiet_pillow():
            for place in places:
                data = read_bytes(place, max_pixels=limit)
                if hashlib.sha256(data).hexdigest() == listing.hashes[row]:
                    return decode(data, max_pixels=limit)
        raise UnreadableImageError("has changed since its features were stored")

    def _images(self, source: int) -> ListedImages:
        if source not in self._opened:
            self._opened[source] = self._open(self.caches[source])
        opened = self._opened[source]
        if isinstance(opened, UnreadableImageError):
            raise UnreadableImageError(opened.reason)
        return opened

    def _open(self, cache: FeatureSet) -> ListedImages | UnreadableImageError:
        if cache.key.is_imported:
            return UnreadableImageError("was not imported, only its features were")
        try:
            return ListedImages(
                cache.listing, cache.path.parent.parent, cache.backbone, download=False
            )
        except FeatcacheError as error:
            return UnreadableImageError(f"cannot be found: {error}")

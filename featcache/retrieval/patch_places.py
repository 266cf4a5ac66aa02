"""Where patches lie in their images: the preprocessing of the backbone, inverted."""

from collections.abc import Sequence

from featcache.imaging.decode import UnreadableImageError
from featcache.imaging.patch_boxes import grid_of, patch_box
from featcache.imaging.windows import MODES, Preprocess
from featcache.retrieval.found import Patch
from featcache.retrieval.originals import Originals
from featcache.types import FeatureSet


class PatchPlaces:
    """Boxes of patches in the images of some caches; an image is decoded once, for its size."""

    def __init__(self, caches: Sequence[FeatureSet]) -> None:
        """Take the caches; nothing is read."""
        self._caches = caches
        self._originals = Originals(caches)
        self._sizes: dict[tuple[int, int], tuple[int, int] | str] = {}

    def of(self, source: int, row: int, number: int, count: int) -> Patch:
        """Find a patch in its image.

        Args:
            source: Position of the cache.
            row: Row of its listing.
            number: Which patch, row by row from the top left.
            count: Patches of an image.
        """
        key = self._caches[source].key
        grid = grid_of(count)
        mode = key.preprocessing.partition(" ")[0]
        if grid is None or mode not in MODES:
            return Patch(number=number, grid=grid, problem="its place in the image is not known")
        size = self._size(source, row)
        if isinstance(size, str):
            return Patch(number=number, grid=grid, problem=size)
        try:
            box = patch_box(number, grid, *size, Preprocess(key.image_size, mode))
        except UnreadableImageError as error:
            return Patch(number=number, grid=grid, problem=error.reason)
        problem = "" if box else "is in a black margin"
        return Patch(number=number, grid=grid, box=box, problem=problem)

    def _size(self, source: int, row: int) -> tuple[int, int] | str:
        """Return width and height of an image, or why they are unknown."""
        if (source, row) not in self._sizes:
            try:
                height, width, _ = self._originals.pixels(source, row).shape
                self._sizes[source, row] = (width, height)
            except UnreadableImageError as error:
                self._sizes[source, row] = error.reason
        return self._sizes[source, row]

"""How many of the images that wait are encoded together.

A micro-batch costs the same however few images are in it, since it is filled up. So the server
takes as many as wait, in micro-batches of a power of two: a single image is answered in its own
time, and many share the products of large ones. Nothing waits for others to come: those that come
while a batch is encoded go into the next.

The last bits of features depend on the size of the micro-batch. Whoever needs those of a cache
names its size; then the first image of a batch waits a little for others, since one costs as much
as all.
"""

from dataclasses import dataclass

BATCHES = 4
"""Micro-batches of a named size that are taken at once where so many images wait."""
WAIT = 0.005
"""Seconds that the first image waits for others where the size is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSizes:
    """Sizes of micro-batches by the number of images that wait.

    Example:
        >>> sizes = BatchSizes(largest=64)
        >>> [sizes.size(waiting) for waiting in (1, 5, 1000)]
        [1, 4, 64]
    """

    largest: int
    views: int = 1
    """Views of an image that are encoded."""
    streams: int = 1
    """Micro-batches that are computed at once."""
    named: int | None = None
    """The size of every micro-batch; None chooses by what waits."""

    @property
    def all(self) -> tuple[int, ...]:
        """Return all sizes, smallest first: powers of two and the largest, or the named one."""
        if self.named is not None:
            return (self.named,)
        return (*(1 << power for power in range((self.largest - 1).bit_length())), self.largest)

    @property
    def enough(self) -> int:
        """Return the number of images for which the first of them waits no longer."""
        return self.named or 1

    @property
    def wait(self) -> float:
        """Return the seconds that the first image waits for others at most."""
        return WAIT if self.named is not None else 0.0

    def size(self, images: int) -> int:
        """Return the micro-batch for some images: the largest that they fill on every stream."""
        each = images * self.views // self.streams
        return max((size for size in self.all if size <= each), default=self.all[0])

    def take(self, waiting: int) -> int:
        """Return how many of the images that wait go into the next batch."""
        batches = BATCHES if self.named is not None else self.streams
        return min(waiting, max(1, batches * self.size(waiting) // self.views))

"""The corpus of the patches of all views of some images, and the patches closest to class texts.

Patches are read some images at a time and compared with all texts; only the closest so far stay in
memory, so that the corpus may be larger than it. The search is exact: every cosine is computed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from featcache.errors import MissingComponentError
from featcache.types import Releasable
from heads.contract.rows import Kind, LazyRows, Rows, find_kind, gather

READ_BYTES = 32 * 2**20
"""Patches read at a time, in float32."""
COMPARED = 2048
"""Patches compared at a time: the cosines with 1000 texts take 8 MB, which stay in a cache."""

Parts = Sequence[Tensor | LazyRows]
"""Patches of the same images: [n p d] of the clean image, [n v p d] of its views."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the patches of an image are counted."""

    views: int
    """Views of an image, the clean one included."""
    patches: int
    """Patches of a view."""

    @staticmethod
    def of(sets: Sequence[Parts]) -> "Layout":
        """Return the largest numbers among some sets of images."""
        return Layout(
            views=max((sum(_views(part) for part in parts) for parts in sets), default=0),
            patches=max((int(part.shape[-2]) for parts in sets for part in parts), default=0),
        )

    @property
    def each(self) -> int:
        """Places of an image."""
        return self.views * self.patches


@dataclass(frozen=True, kw_only=True)
class Closest:
    """The patches closest to each text, closest first."""

    rows: Float[Tensor, "c k d"]
    """Unit patches."""
    cosines: Float[Tensor, "c k"]
    place: Int64[Tensor, "c k"]
    """(image * views + view) * patches + patch, images counted over all sets."""
    layout: Layout

    @property
    def image(self) -> Int64[Tensor, "c k"]:
        """Position of the image."""
        return self.place // self.layout.each

    @property
    def view(self) -> Int64[Tensor, "c k"]:
        """View of the image: 0 is the clean one."""
        return self.place // self.layout.patches % self.layout.views

    def once(self) -> Bool[Tensor, "c k"]:
        """Mark each patch once: with the text that it is closest to, where several found it."""
        order = self.cosines.flatten().argsort(descending=True, stable=True)
        place, by_place = self.place.flatten()[order].sort(stable=True)
        first = torch.ones_like(place, dtype=torch.bool)
        first[1:] = place[1:] != place[:-1]
        marks = torch.zeros_like(first).index_put((order[by_place],), first)
        return marks.reshape(self.place.shape)


def parts_of(rows: Rows, recipe: str, *, views: bool) -> list[Tensor | LazyRows]:
    """Return the patches of images and, where they are there, those of their views.

    Args:
        rows: Images with `patches` and perhaps `view_patches`.
        recipe: Recipe of the views.
        views: Use the views.
    """
    found = [find_kind(rows.kinds, Kind("patches"))]
    if views:
        found.append(find_kind(rows.kinds, Kind("view_patches", recipe)))
    return [part for part in found if part is not None]


def closest_patches(
    sets: Sequence[Parts],
    texts: Float[Tensor, "c d"],
    k: int,
    moved: Callable[[Tensor], Tensor] | None = None,
) -> Closest:
    """Find the patches of all images and views with the largest cosine to each text, exactly.

    Args:
        sets: Patches of one set of images after the other.
        texts: Unit texts; patches are unit as well.
        k: Patches of each text, as many as there are where the corpus has fewer.
        moved: Patches [m d] -> unit patches [m d] that are compared, and kept, in their place.

    Raises:
        MissingComponentError: If there is no patch.

    Example:
        >>> patches = torch.eye(3)[None]  # one image with three patches
        >>> closest_patches([[patches]], torch.eye(3)[:2], k=1).place.tolist()
        [[0], [1]]
    """
    layout = Layout.of(sets)
    running = _Running(texts, k)
    first = 0
    for parts in sets:
        for rows, place in blocks_of(parts, texts, layout):
            running.add(rows if moved is None else moved(rows), place + first * layout.each)
        first += int(parts[0].shape[0]) if parts else 0
    if not running.place.shape[1]:
        raise MissingComponentError("The corpus of patches is empty: there is no image to read.")
    return Closest(rows=running.rows, cosines=running.cosines, place=running.place, layout=layout)


def _views(part: Tensor | LazyRows) -> int:
    return int(part.shape[1]) if len(part.shape) == 4 else 1


def blocks_of(
    parts: Parts, like: Tensor, layout: Layout
) -> Iterator[tuple[Float[Tensor, "m d"], Int64[Tensor, " m"]]]:
    """Read patches some at a time.

    Args:
        parts: Patches of some images.
        like: Any tensor of the wanted device and type.
        layout: How they are counted.

    Yields:
        Patches and their places, (image * views + view) * patches + patch.
    """
    view = 0
    for part in parts:
        n, own, p, d = int(part.shape[0]), _views(part), int(part.shape[-2]), int(part.shape[-1])
        within = torch.arange(p, device=like.device)
        shown = view + torch.arange(own, device=like.device)
        each = max(1, READ_BYTES // (4 * own * p * d))
        for start in range(0, n, each):
            index = torch.arange(start, min(start + each, n), device=like.device)
            rows = gather(part, index).reshape(-1, d).to(like)
            place = (index[:, None, None] * layout.views + shown[:, None]) * layout.patches + within
            if isinstance(part, Releasable):  # pages of mapped files count as memory
                part.release()
            places = torch.split(place.flatten(), COMPARED)
            yield from zip(torch.split(rows, COMPARED), places, strict=True)
        view += own


class _Running:
    """The k closest patches of each text so far."""

    def __init__(self, texts: Float[Tensor, "c d"], k: int) -> None:
        self.texts, self.k = texts, k
        self.cosines = texts.new_empty(len(texts), 0)
        self.rows = texts.new_empty(len(texts), 0, texts.shape[1])
        self.place = torch.empty(len(texts), 0, dtype=torch.int64, device=texts.device)

    def add(self, rows: Float[Tensor, "m d"], place: Int64[Tensor, " m"]) -> None:
        """Compare some more patches with all texts."""
        cosines = self.texts @ rows.mT  # [c m]
        if self.cosines.shape[1] < self.k:
            self.cosines, self.rows, self.place = self._joined(slice(None), cosines, rows, place)
            return
        # After the first blocks few texts find a closer patch; only theirs are sorted.
        changed = torch.nonzero(cosines.amax(1) > self.cosines[:, -1])[:, 0]
        if len(changed):
            found = self._joined(changed, cosines[changed], rows, place)
            self.cosines[changed], self.rows[changed], self.place[changed] = found

    def _joined(
        self,
        which: Int64[Tensor, " b"] | slice,
        cosines: Float[Tensor, "b m"],
        rows: Float[Tensor, "m d"],
        place: Int64[Tensor, " m"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Merge the closest of a block into the closest so far of some texts."""
        more, at = cosines.topk(min(self.k, cosines.shape[1]), dim=1)
        best = torch.cat([self.cosines[which], more], dim=1)
        best, kept = best.topk(min(self.k, best.shape[1]), dim=1)
        places = torch.cat([self.place[which], place[at]], dim=1).gather(1, kept)
        both = torch.cat([self.rows[which], rows[at]], dim=1)  # [b k+m d]
        return best, both.gather(1, kept[..., None].expand(-1, -1, rows.shape[1])), places

"""Rows that are encoded together: those of a shard, or of a chunk of `featcache.embedding`.

This is the one way from decoded images to rows. No batch spans two groups, and each is padded to
its full size; so a row's bytes depend on its image and the size of a batch, not on its group.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64, Shaped

from featcache.encoding.components import ComponentSpec
from featcache.encoding.device_crops import Cutter, Given
from featcache.encoding.encoder import Encoder, Lane
from featcache.imaging.loader import LoadedImage
from featcache.imaging.views import ViewSpec
from featcache.imaging.windows import Box


@dataclass(frozen=True, slots=True)
class Shown:
    """Views that go through the encoder together, and the rows they are of."""

    views: ViewSpec
    rows: Int64[np.ndarray, " r"]
    """Ascending."""
    variants: tuple[str, ...] = ()
    """Patch features wanted beside the global ones."""


class RowGroup:
    """Takes images row by row; gives their rows of every component."""

    def __init__(self, encoder: Encoder, shown: Iterable[Shown]) -> None:
        """Open room for the rows, zero where an image turns out unreadable.

        Args:
            encoder: What all views go through.
            shown: Each kind of views once.
        """
        self._lanes = {
            s.views: Lane(encoder, s.rows, s.variants, views=s.views.count) for s in shown
        }
        self._cutter = Cutter(encoder, encoder.preprocess)
        self._boxes: dict[ViewSpec, dict[int, Sequence[Box]]] = {}
        self.reasons: dict[ViewSpec, dict[int, str]] = {}
        """Views -> row -> why there are none of its image."""

    def add(self, row: int, image: LoadedImage) -> None:
        """Take what was loaded of a row's image; full batches are encoded."""
        for views, reason in image.reasons.items():
            self.reasons.setdefault(views, {})[row] = reason
        for views, boxes in image.boxes.items():
            self._boxes.setdefault(views, {})[row] = boxes
        self._give(self._cutter.add(row, image))

    def close(self) -> None:
        """Take no more: what is left is encoded, padded to full batches."""
        self._give(self._cutter.flush())
        for lane in self._lanes.values():
            lane.close()

    def flying(self) -> int:
        """Count the batches that are not computed yet."""
        return sum(lane.flying() for lane in self._lanes.values())

    def wait(self) -> None:
        """Wait for the last batch."""
        for lane in self._lanes.values():
            lane.end()

    def values(
        self, component: ComponentSpec, rows: Int64[np.ndarray, " r"]
    ) -> Shaped[np.ndarray, "r ..."]:
        """Return rows of one component as encoded: float16, int32 for boxes; waits for them.

        Args:
            component: One of the views that were shown, or boxes.
            rows: Ascending, among those shown; for boxes any.
        """
        if not component.encodes:
            return _stack(self._boxes.get(component.views, {}), rows, component)
        lane = self._lanes[component.views]
        values = lane.end()[component.output]
        values = values.reshape(len(lane.rows), *component.encoded_shape)
        return values[np.isin(lane.rows, rows)] if len(rows) < len(lane.rows) else values

    def _give(self, ready: Iterable[Given]) -> None:
        for row, views, squares in ready:
            self._lanes[views].add(row, squares)


def _stack(
    boxes: Mapping[int, Sequence[Box]], rows: Int64[np.ndarray, " r"], component: ComponentSpec
) -> Int32[np.ndarray, "r k 4"]:
    """Put the boxes of some rows below each other; zeros for images that could not be read."""
    out = np.zeros((len(rows), *component.row_shape), dtype=np.int32)
    for i, row in enumerate(rows.tolist()):
        if row in boxes:
            out[i] = boxes[row]
    return out

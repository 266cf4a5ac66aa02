"""Encode the rows of a shard, or of a chunk of `featcache.embedding`.

All rows are computed here. A batch never spans two groups, and every batch is padded to its full
size. So the bytes of a row depend on its image and the batch size, not on its group.
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
    """Views that are encoded together, and their rows."""

    views: ViewSpec
    rows: Int64[np.ndarray, " r"]
    """Ascending."""
    variants: tuple[str, ...] = ()
    """Patch variants to compute besides global features."""


class RowGroup:
    """Takes images row by row and returns their features for every component."""

    def __init__(self, encoder: Encoder, shown: Iterable[Shown]) -> None:
        """Allocate the rows; they stay zero for unreadable images.

        Args:
            encoder: Encoder of all views.
            shown: Views to encode, each kind once.
        """
        self._lanes = {
            s.views: Lane(encoder, s.rows, s.variants, views=s.views.count) for s in shown
        }
        self._cutter = Cutter(encoder, encoder.preprocess)
        self._boxes: dict[ViewSpec, dict[int, Sequence[Box]]] = {}
        self.reasons: dict[ViewSpec, dict[int, str]] = {}
        """Views -> row -> why they could not be made from its image."""

    def add(self, row: int, image: LoadedImage) -> None:
        """Add the loaded image of a row; full batches are encoded."""
        for views, reason in image.reasons.items():
            self.reasons.setdefault(views, {})[row] = reason
        for views, boxes in image.boxes.items():
            self._boxes.setdefault(views, {})[row] = boxes
        self._encode(self._cutter.add(row, image))

    def close(self) -> None:
        """Encode the remaining views, padded to full batches."""
        self._encode(self._cutter.flush())
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
        """Wait for rows of one component and return them: float16, int32 for boxes.

        Args:
            component: Component of the encoded views, or boxes.
            rows: Ascending rows among the encoded ones; any rows for boxes.
        """
        if not component.encodes:
            return _stack(self._boxes.get(component.views, {}), rows, component)
        lane = self._lanes[component.views]
        values = lane.end()[component.output]
        values = values.reshape(len(lane.rows), *component.encoded_shape)
        return values[np.isin(lane.rows, rows)] if len(rows) < len(lane.rows) else values

    def _encode(self, ready: Iterable[Given]) -> None:
        for row, views, squares in ready:
            self._lanes[views].add(row, squares)


def _stack(
    boxes: Mapping[int, Sequence[Box]], rows: Int64[np.ndarray, " r"], component: ComponentSpec
) -> Int32[np.ndarray, "r k 4"]:
    """Stack the boxes of some rows; zeros for unreadable images."""
    out = np.zeros((len(rows), *component.row_shape), dtype=np.int32)
    for i, row in enumerate(rows.tolist()):
        if row in boxes:
            out[i] = boxes[row]
    return out

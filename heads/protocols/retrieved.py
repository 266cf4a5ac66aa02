"""Rows of a corpus in an episode: without the images of other roles, joined to the support."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from featcache.errors import TaskError
from heads.contract.rows import Rows
from heads.episode import RowIndex
from heads.ops.duplicates import in_both


@dataclass(frozen=True, kw_only=True)
class Retrieved:
    """Rows of a corpus that episodes learn from."""

    rows: Rows
    name: str
    """Name of the corpus."""
    own_role: bool
    """Whether the method reads them in a role of their own; else they join the support."""

    images: Int64[Tensor, " n"] | None = None
    """Row of the listing of the run that each row is of, or of a part of; -1 for other images."""

    def without(self, *others: Rows | None, index: Sequence[RowIndex] = ()) -> Rows:
        """Return the rows whose image is none of others, on their device.

        Args:
            others: Rows with the features of these images.
            index: Rows of the listing that these images are: parts of an image have other features.

        Raises:
            TaskError: If none is left.
        """
        known = [rows.x for rows in others if rows is not None]
        x = self.rows.x.to(known[0].device)
        same = in_both(x, torch.cat(known)).cpu()
        if self.images is not None and index:
            same |= torch.isin(self.images, torch.from_numpy(np.concatenate(index)))
        kept = torch.nonzero(~same)[:, 0]
        if not len(kept):
            raise TaskError(
                f"All {len(x)} rows of corpus '{self.name}' are shots or validation images. Build "
                f"it from other images."
            )
        left = self.rows if len(kept) == len(x) else self.rows.take(kept)
        return on_device(left, x.device)

    def holds(self, rows: Rows, index: RowIndex) -> Bool[Tensor, " n"]:
        """Tell which images are in the corpus.

        Args:
            rows: Rows of the images.
            index: Rows of the listing that they are.
        """
        there = in_both(rows.x, self.rows.x.to(rows.x.device)).cpu()
        if self.images is not None:
            there |= torch.isin(torch.from_numpy(index), self.images)
        return there


def joined(support: Rows, corpus: Rows) -> Rows:
    """Return the support followed by the rows of a corpus; only global features are left."""
    weighted = support.weights is not None or corpus.weights is not None
    return Rows(
        x=torch.cat([support.x, corpus.x]),
        norms=torch.cat([support.norms, corpus.norms]),
        labels=torch.cat([support.y, corpus.y]),
        weights=torch.cat([support.row_weights, corpus.row_weights]) if weighted else None,
    )


def on_device(rows: Rows, device: torch.device) -> Rows:
    """Return rows without further kinds on a device."""
    return Rows(
        x=rows.x.to(device),
        norms=rows.norms.to(device),
        labels=rows.y.to(device),
        weights=None if rows.weights is None else rows.weights.to(device),
    )

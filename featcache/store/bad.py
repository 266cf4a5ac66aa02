"""Unreadable images of a component; the memory does not depend on the number of images."""

from collections.abc import Sequence

import numpy as np

from featcache.store.format.records import ShardLine


def bad_rows(lines: Sequence[ShardLine]) -> dict[int, str]:
    """Return the unreadable rows of one component with the reason; later shards take precedence.

    Args:
        lines: Records of its shards, oldest first.
    """
    entries = [
        (row, number, reason)
        for number, line in enumerate(lines)
        if line.bad
        for row, reason in line.bad_rows().items()
    ]
    if not entries:
        return {}
    rows = np.unique(np.array([row for row, _, _ in entries], dtype=np.int64))
    newest = np.zeros(len(rows), dtype=np.int64)
    counts = [len(line.rows) for line in lines]
    ranges = np.array([pair for line in lines for pair in line.rows], dtype=np.int64)
    numbers = np.repeat(np.arange(len(lines)), counts)
    first, last = np.searchsorted(rows, ranges[:, 0]), np.searchsorted(rows, ranges[:, 1])
    for i in np.flatnonzero(first < last):
        newest[first[i] : last[i]] = numbers[i]
    owner = dict(zip(rows.tolist(), newest.tolist(), strict=True))
    return {row: reason for row, number, reason in entries if owner[row] == number}

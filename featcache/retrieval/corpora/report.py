"""What a corpus contains and what was left out, for people and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featcache.store.format.corpus_file import CorpusArrays, CorpusRecord


@dataclass(frozen=True, kw_only=True)
class ClassReport:
    """The rows of one class."""

    label: int
    name: str
    rows: int
    low: float | None
    """Smallest cosine; None without rows."""
    median: float | None
    high: float | None
    own: float | None = None
    """Median cosine of labelled training images of the class; None where `own_medians` has none."""


@dataclass(frozen=True, kw_only=True)
class CorpusReport:
    """The content of a corpus."""

    path: Path
    """Folder of the cache."""
    digest: str
    record: CorpusRecord
    classes: tuple[ClassReport, ...]
    is_new: bool
    """Whether it was stored just now; False if the same content was there already."""
    changes: tuple[str, ...] = ()
    """What has happened to its sources since it was built."""

    @property
    def name(self) -> str:
        """Name of the corpus."""
        return self.record.name

    @property
    def leaks(self) -> bool:
        """Tell whether it was built from query or validation images."""
        return self.record.leaks

    @property
    def facts(self) -> Mapping[str, Any]:
        """How it was built, and what was left out."""
        return self.record.facts

    @property
    def short(self) -> tuple[str, ...]:
        """Names of the classes with fewer than k rows."""
        k = self.facts.get("k")
        return tuple(c.name for c in self.classes if isinstance(k, int) and c.rows < k)

    @property
    def own(self) -> tuple[str, ...]:
        """Names of the classes with rows whose own images were compared, too."""
        return tuple(c.name for c in self.classes if c.median is not None and c.own is not None)

    @property
    def below(self) -> tuple[str, ...]:
        """Names of those whose rows have a smaller median cosine than their own images."""
        return tuple(
            c.name
            for c in self.classes
            if c.median is not None and c.own is not None and c.median < c.own
        )

    @property
    def empty(self) -> tuple[str, ...]:
        """Names of the classes without rows."""
        return tuple(c.name for c in self.classes if not c.rows)

    def to_json(self) -> dict[str, Any]:
        """Return one plain object."""
        return {
            "corpus": self.name,
            "digest": self.digest,
            "path": str(self.path),
            **{
                name: value
                for name, value in asdict(self.record).items()
                if name not in ("name", "crc32", "sha256")
            },
            "per_class": [asdict(c) for c in self.classes],
            "short": list(self.short),
            "empty": list(self.empty),
            "is_new": self.is_new,
            "changes": list(self.changes),
        }


def report_of(
    path: Path,
    classes: Sequence[str],
    record: CorpusRecord,
    arrays: CorpusArrays,
    *,
    own: Sequence[float | None] = (),
    is_new: bool = False,
    changes: Sequence[str] = (),
) -> CorpusReport:
    """Count the rows of every class.

    Args:
        path: Folder of the cache.
        classes: Class names in label order.
        record: Description of the corpus.
        arrays: Its rows.
        own: Median cosine of each class's own images, from `own_medians`; empty if not measured.
        is_new: Whether it was stored just now.
        changes: What has happened to its sources.
    """
    order = np.argsort(arrays.labels, kind="stable")
    ends = np.searchsorted(arrays.labels[order], np.arange(1, len(classes)))
    rows = []
    for label, chosen in enumerate(np.split(order, ends)):
        name, cosines = classes[label], arrays.cosines[chosen]
        low = median = high = None
        if len(cosines):
            low, median, high = (round(float(f(cosines)), 6) for f in (np.min, np.median, np.max))
        rows.append(
            ClassReport(
                label=label,
                name=name,
                rows=len(cosines),
                low=low,
                median=median,
                high=high,
                own=own[label] if own else None,
            )
        )
    return CorpusReport(
        path=path,
        digest=record.digest,
        record=record,
        classes=tuple(rows),
        is_new=is_new,
        changes=tuple(changes),
    )

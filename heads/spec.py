"""What determines a head, and what determines a run, written down before anything is trained.

    FitSpec   method, settings, features, what is learned from, how it is chosen
    RunSpec   a FitSpec and the queries of the evaluation

Equal specs have equal digests, in any process and on any machine. A stored run is therefore found
instead of trained again, and kept heads are found for further queries. Fields at their default are
left out of the digest, so that it does not change when later versions add fields.
"""

import hashlib
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeAlias

from featcache.store.format.files import canonical

Pairs: TypeAlias = tuple[tuple[str, str], ...]
"""Names and values, sorted by name: a mapping that can be hashed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSpec:
    """Everything that determines the heads of a run."""

    method: str
    key: str
    """Digest of the FeatureKey."""
    dataset: str
    protocol: str
    selection: str
    learns_from: str = ""
    """Digest of the images, with their labels, used for training and validation."""
    classes: str
    """Digest of the class list."""
    version: int = 1
    """Version of the method."""
    settings: Pairs = ()
    """The user's settings, as written."""
    texts: str = ""
    """Digest of the class texts."""
    reads: tuple[str, ...] = ()
    """Components that are read beside `global`."""
    shots: int | None = 0
    """Images a class; None is all, 0 is none."""
    seeds: tuple[int, ...] = ()
    extra: Pairs = ()
    """Settings of the protocol that differ from its defaults."""
    augment: str = ""
    """The corpus that is learned from, too, with its weight and digest."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults, as plain JSON values."""
        return _plain(self)

    def digest(self) -> str:
        """Return 16 hex digits that name the heads.

        Example:
            >>> spec = FitSpec(method="cmm", key="k", dataset="pets", protocol="few_shot",
            ...                selection="none", classes="c")
            >>> spec.digest() == FitSpec(**spec.as_dict()).digest()
            True
        """
        return _digest(self.as_dict())


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """Heads, and the queries that they are evaluated on."""

    fit: FitSpec
    split: str
    queries: str
    """Digest of the query ids, in order, and of their labels."""
    task_version: int = 1
    """Raised when the evaluation of a task changes."""
    metric: str = "top1"

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults, as plain JSON values."""
        return {**_plain(self), "fit": self.fit.as_dict()}

    def digest(self) -> str:
        """Return 16 hex digits that name the run."""
        return _digest(self.as_dict())


def pairs(values: dict[str, str]) -> Pairs:
    """Return a mapping as sorted pairs."""
    return tuple(sorted(values.items()))


def _plain(spec: FitSpec | RunSpec) -> dict[str, Any]:
    named = {f.name: getattr(spec, f.name) for f in fields(spec)}
    stated = {f.name for f in fields(spec) if f.default is MISSING or named[f.name] != f.default}
    return {name: value for name, value in named.items() if name in stated}


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(canonical(value)).hexdigest()[:16]

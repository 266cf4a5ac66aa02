"""What a cache keeps of its first pass, and the check before another environment adds to it.

Micro-batch and compute type decide the last bits of every row; they are fixed by the first pass.
Versions, device and threads cannot be fixed, so eight stored rows are encoded again and compared.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from typing import Any

import numpy as np
import torch
from jaxtyping import Float16

from featcache.errors import CacheError, CorruptCacheError

PACKAGES = ("featcache", "torch", "open_clip_torch", "pillow", "numpy")
"""Whose versions can change a number."""

FLOORS = {"float32": 0.99999, "bfloat16": 0.999}
"""Least cosine between a stored row and the same image encoded now."""

LARGEST_BATCH = 65536
"""Images that a micro-batch may have."""

SAMPLE = 8
"""Rows that are compared."""


@dataclass(frozen=True, kw_only=True)
class PassSettings:
    """Kept by every later pass over a cache."""

    micro_batch: int
    compute: str
    """float32 or bfloat16."""
    environments: tuple[Mapping[str, str], ...]
    """Versions and devices that have written here and gave the same numbers."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "environments": [dict(e) for e in self.environments]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "PassSettings":
        """Read them back.

        Raises:
            CorruptCacheError: If a field is missing or of the wrong type.
        """
        try:
            settings = cls(
                micro_batch=int(value["micro_batch"]),
                compute=str(value["compute"]),
                environments=tuple(dict(e) for e in value["environments"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptCacheError(
                f"The pass settings of this cache cannot be read ({error!r}). Restore the file, or "
                f"remove the cache with `featcache rm` and extract again."
            ) from error
        if settings.compute not in FLOORS or not 1 <= settings.micro_batch <= LARGEST_BATCH:
            raise CorruptCacheError(
                f"The pass settings of this cache name micro-batch {settings.micro_batch} and "
                f"compute '{settings.compute}', which no pass writes. Restore the file, or remove "
                f"the cache with `featcache rm` and extract again."
            )
        return settings

    def with_environment(self, environment: Mapping[str, str]) -> "PassSettings":
        """Accept one more environment."""
        return replace(self, environments=(*self.environments, environment))


def environment(device: torch.device) -> dict[str, str]:
    """Describe what can change the last bits here: versions, device, threads."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = torch.backends.cpu.get_cpu_capability()
        found["threads"] = str(torch.get_num_threads())
    return {**found, "device": f"{device.type} {name}"}


def sample_rows(rows: Sequence[int]) -> list[int]:
    """Choose up to eight rows, evenly spread."""
    if len(rows) <= SAMPLE:
        return list(rows)
    return [rows[i] for i in np.linspace(0, len(rows) - 1, SAMPLE).round().astype(int)]


def check_same_numbers(
    stored: Float16[np.ndarray, "r d"], now: Float16[np.ndarray, "r d"], compute: str
) -> None:
    """Compare rows of the cache with the same images encoded in this environment.

    Raises:
        CacheError: If the least cosine is below the floor of the compute type.
    """
    a, b = stored.astype(np.float64), now.astype(np.float64)
    cosine = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    floor = FLOORS[compute]
    if not cosine.min() >= floor:
        raise CacheError(
            f"{len(stored)} images of this cache, encoded again with the versions and device at "
            f"hand, agree with their stored rows to a cosine of {cosine.min():.6f} only; "
            f"{floor} is needed to add to it. Use the environment that wrote it, or extract into "
            f"another folder with --cache DIR."
        )

"""What a cache keeps of its first pass, and the check before another environment adds to it.

Micro-batch and compute type decide the last bits of every row; they are fixed by the first pass,
and every shard says what it was made with. Versions, device and threads cannot be fixed, so eight
stored rows are encoded again and compared.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

import numpy as np
import torch
from jaxtyping import Float16

from featcache.errors import CacheError, CorruptCacheError
from featcache.store.cache import Cache
from featcache.store.provenance import WEIGHTS, distinct

PACKAGES = ("featcache", "torch", "open_clip_torch", "pillow", "simplejpeg", "numpy")
"""Whose versions can change a number."""

FLOORS = {"float32": 0.99999, "bfloat16": 0.999}
"""Least cosine between a stored row and the same image encoded now."""

MICRO_BATCH, COMPUTE = "micro_batch", "compute"
"""Entries of a shard's provenance beside versions, device and weights."""

COMPILED = "compiled"
"""Entry of a provenance whose image tower went through torch.compile; the others have none."""

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

    @property
    def compiled(self) -> bool:
        """Tell whether the newest shards came from a compiled tower."""
        return COMPILED in self.environments[-1]

    @property
    def micro_batch_and_compute(self) -> dict[str, str]:
        """Return what every shard says of it."""
        return {MICRO_BATCH: str(self.micro_batch), COMPUTE: self.compute}

    @classmethod
    def of(cls, cache: Cache) -> "PassSettings | None":
        """Gather them from what the shards say of themselves; None before the first shard.

        Raises:
            CorruptCacheError: If a shard names no settings that a pass could have had.
        """
        said = distinct(cache.shards)
        if not said:
            return None
        fixed = {(p.get(MICRO_BATCH, ""), p.get(COMPUTE, "")) for p in said}
        micro_batch, compute = next(iter(fixed))
        known = micro_batch.isascii() and micro_batch.isdigit() and compute in FLOORS
        if len(fixed) > 1 or not known or not 1 <= int(micro_batch) <= LARGEST_BATCH:
            raise CorruptCacheError(
                f"The shards of {cache.path} were made with micro-batch and compute type "
                f"{', '.join(sorted(map(' '.join, fixed)))}, which no pass of ours mixes or knows. "
                f"Remove the cache with `featcache rm` and extract again."
            )
        environments = tuple(
            {k: v for k, v in p.items() if k not in (MICRO_BATCH, COMPUTE, WEIGHTS)} for p in said
        )
        return cls(micro_batch=int(micro_batch), compute=compute, environments=environments)


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
    stored: Float16[np.ndarray, "r ..."], now: Float16[np.ndarray, "r ..."], compute: str
) -> None:
    """Compare rows of the cache with the same images encoded in this environment.

    Patch features are compared as one long vector an image.

    Raises:
        CacheError: If the least cosine is below the floor of the compute type.
    """
    count = len(stored)
    a, b = (rows.reshape(count, -1).astype(np.float64) for rows in (stored, now))
    cosine = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    floor = FLOORS[compute]
    if not cosine.min() >= floor:
        raise CacheError(
            f"{len(stored)} images of this cache, encoded again with the versions and device at "
            f"hand, agree with their stored rows to a cosine of {cosine.min():.6f} only; "
            f"{floor} is needed to add to it. Use the environment that wrote it, or extract into "
            f"another folder with --cache DIR."
        )

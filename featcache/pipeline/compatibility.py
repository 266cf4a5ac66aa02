"""Settings that later passes over a cache keep, so that all its rows are comparable.

Micro-batch and compute type change the last bits of a row. The first pass fixes them, and every
shard records them. Versions, device and threads cannot be fixed: where they differ, eight stored
rows are encoded again and compared.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

import numpy as np
import torch
from jaxtyping import Float16

from featcache.backbones.base import Backbone
from featcache.backbones.names import COMPUTE_FLAGS
from featcache.embedding import Embedder
from featcache.encoding.encoder import (
    LARGEST_BATCH,
    Encoder,
    check_micro_batch,
    micro_batch_for,
)
from featcache.errors import CacheError, CorruptCacheError, UsageError
from featcache.imaging.loader import FileSource
from featcache.keys import parse_component
from featcache.pipeline.write import Recorder
from featcache.store.cache import Cache
from featcache.store.format.records import PROVENANCE_TEXT
from featcache.store.provenance import COMPUTE, MICRO_BATCH, WEIGHTS, distinct
from featcache.wording import Argument, Part, Placeholder

PACKAGES = ("featcache", "torch", "open_clip_torch", "pillow", "simplejpeg", "numpy")
"""Packages whose versions can change features."""

FLOORS = {"float32": 0.99999, "bfloat16": 0.999}
"""Minimum cosine between a stored row and the same image encoded again, by compute type."""

COMPILED = "compiled"
"""Provenance entry of rows from an image tower compiled by torch.compile."""

SAMPLE = 8
"""Number of rows that are compared."""


@dataclass(frozen=True, kw_only=True)
class PassSettings:
    """Settings of the first pass over a cache, which every later pass keeps."""

    micro_batch: int
    compute: str
    """float32 or bfloat16."""
    environments: tuple[Mapping[str, str], ...]
    """Versions and devices that wrote shards of this cache."""

    @property
    def compiled(self) -> bool:
        """Whether the newest shards came from a compiled image tower."""
        return COMPILED in self.environments[-1]

    @property
    def micro_batch_and_compute(self) -> dict[str, str]:
        """Provenance entries of micro-batch and compute type."""
        return {MICRO_BATCH: str(self.micro_batch), COMPUTE: self.compute}

    @classmethod
    def of(cls, cache: Cache) -> "PassSettings | None":
        """Read the settings from the provenance of the shards; None before the first shard.

        Raises:
            CorruptCacheError: If shards have different settings, or settings that no pass can have.
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
                f"{', '.join(sorted(map(' '.join, fixed)))}, which are mixed or unknown. "
                f"Remove the cache with `featcache rm` and extract again."
            )
        environments = tuple(
            {k: v for k, v in p.items() if k not in (MICRO_BATCH, COMPUTE, WEIGHTS)} for p in said
        )
        return cls(micro_batch=int(micro_batch), compute=compute, environments=environments)


def environment(device: torch.device) -> dict[str, str]:
    """Return versions, device and threads, which can change the last bits of features."""
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
    """Return at most eight of the rows, evenly spaced."""
    if len(rows) <= SAMPLE:
        return list(rows)
    return [rows[i] for i in np.linspace(0, len(rows) - 1, SAMPLE).round().astype(int)]


def check_same_numbers(
    stored: Float16[np.ndarray, "r ..."], now: Float16[np.ndarray, "r ..."], compute: str
) -> None:
    """Compare rows of the cache with the same images encoded in this environment.

    Args:
        stored: Rows of the cache; the patch features of an image count as one vector.
        now: Features of the same images.
        compute: Compute type of the cache: float32 or bfloat16.

    Raises:
        CacheError: If the minimum cosine is below `FLOORS[compute]`.
    """
    count = len(stored)
    a, b = (rows.reshape(count, -1).astype(np.float64) for rows in (stored, now))
    cosine = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    floor = FLOORS[compute]
    if not cosine.min() >= floor:
        raise CacheError(
            f"{len(stored)} images of this cache, encoded again with the present versions and "
            f"device, agree with their stored rows to a cosine of {cosine.min():.6f} only; "
            f"{floor} is needed to add to it. Use the environment that wrote it, or extract into "
            "another folder with ",
            Argument("root", Placeholder("DIR")),
            ".",
        )


def as_before(
    backbone: Backbone,
    settings: PassSettings | None,
    asked: str,
    load: Callable[[str], Backbone],
) -> Backbone:
    """Return the backbone in the compute type of the cache.

    Args:
        backbone: Backbone in the requested compute type.
        settings: Settings of the cache; None before its first shard.
        asked: Requested compute type: auto, fp32 or bf16.
        load: Loads the backbone in another compute type.

    Raises:
        UsageError: If another compute type was requested.
    """
    if settings is None or _compute(backbone) == settings.compute:
        return backbone
    before = COMPUTE_FLAGS[settings.compute]
    if asked not in ("auto", before):
        raise UsageError(
            f"This cache was begun in {before}, and rows in {asked} would differ from it. Leave ",
            Argument("compute"),
            " out, or choose another ",
            Argument("root"),
            ".",
        )
    return load(before)


def micro_batch_of(backbone: Backbone, settings: PassSettings | None, asked: int | None) -> int:
    """Return the micro-batch of the cache, else the requested one, else the usual one.

    Raises:
        UsageError: If the requested one is out of range or is not that of the cache.
    """
    check_micro_batch(asked)
    if settings is None:
        return asked or micro_batch_for(backbone.gflops, backbone.device.type)
    if asked is not None and asked != settings.micro_batch:
        raise UsageError(
            f"This cache was begun with micro-batch {settings.micro_batch}, and {asked} would "
            "change the last bits. Leave ",
            Argument("micro_batch"),
            " out, or choose another ",
            Argument("root"),
            ".",
        )
    return settings.micro_batch


def admit_environment(
    cache: Cache,
    settings: PassSettings | None,
    encoder: Encoder,
    sources: Mapping[int, FileSource],
    *,
    max_pixels: int,
    weights: str = "",
    say: Callable[[Part], None] = lambda _: None,
) -> Recorder:
    """Check that this environment gives the features that are stored; return what adds shards.

    Args:
        cache: Cache that shards are added to.
        settings: Settings of the cache; None before its first shard.
        encoder: Encoder of the new shards.
        sources: Row -> its image.
        max_pixels: Largest image to decode.
        weights: The weights that the user named, recorded for calls that continue this cache.
        say: Called with a message if nothing could be compared.

    Raises:
        CacheError: If stored rows, encoded again, differ.
    """
    backbone = encoder.backbone
    here = environment(backbone.device)
    if "threads" in here:
        here["threads"] = "1"  # `Encoder` gives every batch to one
    if backbone.compiled:
        here[COMPILED] = "inductor"
        say(
            "The image tower is compiled at its first batch, which takes seconds to minutes; an "
            "interruption waits for it."
        )
    if settings is not None and here not in settings.environments:
        for name in _comparable(cache):
            reader = cache.rows(name)
            good = np.flatnonzero(reader.present() & ~reader.bad()).tolist()
            rows = sample_rows([row for row in good if row in sources])
            rows, now = encode_again(rows, sources, encoder, name, max_pixels=max_pixels)
            if rows:
                stored = reader.take(np.array(rows, dtype=np.int64)).numpy()
                check_same_numbers(stored, now, settings.compute)
                break
        else:
            say(
                f"Versions or device are not those that wrote {cache.path}, and none of its rows "
                f"could be encoded again to compare: what is added may differ in its last digits."
            )
    made = PassSettings(
        micro_batch=encoder.micro_batch, compute=_compute(backbone), environments=()
    )
    named = {WEIGHTS: weights} if 0 < len(weights) < PROVENANCE_TEXT else {}
    return Recorder(cache, {**here, **made.micro_batch_and_compute, **named})


def encode_again(
    rows: Sequence[int],
    sources: Mapping[int, FileSource],
    encoder: Encoder,
    component: str,
    *,
    max_pixels: int,
) -> tuple[list[int], Float16[np.ndarray, "r ..."]]:
    """Encode stored images a second time.

    Args:
        rows: Rows to encode; each has a source.
        sources: Row -> its image.
        encoder: Encoder with the micro-batch of the cache.
        component: Component of whole images in float16.
        max_pixels: Largest image to decode.

    Returns:
        The rows whose image could be read, and their features.
    """
    embedder = Embedder(
        encoder.backbone,
        components=[component],
        micro_batch=encoder.micro_batch,
        max_pixels=max_pixels,
    )
    again = embedder.embed([sources[row] for row in rows])
    readable = again.usable()  # what is gone since cannot be compared
    return [rows[i] for i in readable.tolist()], again.rows(component, readable).numpy()


def _comparable(cache: Cache) -> list[str]:
    """Return the components of whole images in float16, global features first."""
    keys = [parse_component(name) for name in cache.shards]
    whole = [k for k in keys if k.kind in ("global", "patches") and k.dtype == "float16"]
    return [k.folder for k in sorted(whole, key=lambda k: (k.kind, k.variant))]


def _compute(backbone: Backbone) -> str:
    return str(backbone.compute_dtype).removeprefix("torch.")

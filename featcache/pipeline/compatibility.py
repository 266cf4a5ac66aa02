"""What a later pass has to keep of a cache's first, so that all its rows are of one kind.

Micro-batch and compute type decide the last bits of every row; they are fixed by the first pass,
and every shard says what it was made with. Versions, device and threads cannot be fixed, so eight
stored rows are encoded again and compared.
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
from featcache.encoding.encoder import LARGEST_BATCH, Encoder, micro_batch_for
from featcache.errors import CacheError, CorruptCacheError, UsageError
from featcache.imaging.loader import FileSource
from featcache.keys import parse_component
from featcache.pipeline.write import Recorder
from featcache.store.cache import Cache
from featcache.store.format.records import PROVENANCE_TEXT
from featcache.store.provenance import COMPUTE, MICRO_BATCH, WEIGHTS, distinct
from featcache.wording import Argument, Part, Placeholder

PACKAGES = ("featcache", "torch", "open_clip_torch", "pillow", "simplejpeg", "numpy")
"""Whose versions can change a number."""

FLOORS = {"float32": 0.99999, "bfloat16": 0.999}
"""Least cosine between a stored row and the same image encoded now."""

COMPILED = "compiled"
"""Entry of a provenance whose image tower went through torch.compile; the others have none."""

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
    """Return the backbone in the compute type that the cache was begun with.

    Args:
        backbone: As loaded for the type asked for.
        settings: Of the cache; None before its first shard.
        asked: auto, fp32 or bf16.
        load: Loads it for another type.

    Raises:
        UsageError: If another type was asked for.
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
    """Settle the micro-batch: the cache's, else what was asked for, else the rule's.

    Raises:
        UsageError: If it is out of range, or not the one that the cache was begun with.
    """
    if asked is not None and not 1 <= asked <= LARGEST_BATCH:
        raise UsageError(
            Argument("micro_batch"), f" must be 1 to {LARGEST_BATCH} images, got {asked}."
        )
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
    """Make sure that this environment gives the numbers that are stored; return the way to add.

    Args:
        cache: What is added to.
        settings: Of its first pass; None before its first shard.
        encoder: What adds.
        sources: Row -> its image.
        max_pixels: Largest image to decode.
        weights: The weights that the user named, recorded for calls that continue this cache.
        say: Told if there was nothing to compare.

    Raises:
        CacheError: If eight stored rows, encoded again, are others.
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
        rows: Each has a source.
        sources: Row -> its file.
        encoder: What encodes them.
        component: Of whole images, in float16.
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
    """Name the components of whole images in float16, the global features first."""
    keys = [parse_component(name) for name in cache.shards]
    whole = [k for k in keys if k.kind in ("global", "patches") and k.dtype == "float16"]
    return [k.folder for k in sorted(whole, key=lambda k: (k.kind, k.variant))]


def _compute(backbone: Backbone) -> str:
    return str(backbone.compute_dtype).removeprefix("torch.")

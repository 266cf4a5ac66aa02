"""What a later pass has to keep of the first, so that all rows of a cache are of one kind."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, Shaped

from featcache.backbones.base import Backbone
from featcache.errors import UsageError
from featcache.imaging.draw import Source
from featcache.keys import ComponentKey, parse_component
from featcache.pipeline.encode import Encoder, micro_batch_for
from featcache.pipeline.recheck import encode_again
from featcache.pipeline.settings import (
    COMPILED,
    LARGEST_BATCH,
    PassSettings,
    check_same_numbers,
    environment,
    sample_rows,
)
from featcache.store.cache import Cache
from featcache.store.format.records import PROVENANCE_TEXT
from featcache.store.provenance import WEIGHTS

FLAGS = {"float32": "fp32", "bfloat16": "bf16"}
"""torch's name of a compute type -> the user's."""


@dataclass(frozen=True)
class Recorder:
    """A cache that notes of every shard what it was made with."""

    cache: Cache
    provenance: Mapping[str, str]

    def append(
        self,
        component: ComponentKey,
        rows: Int64[np.ndarray, " r"],
        values: Shaped[np.ndarray, "r ..."],
        bad: Mapping[int, str],
    ) -> None:
        """Write one shard and enter it in the manifest."""
        self.cache.append(component, rows, values, bad, self.provenance)


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
    before = FLAGS[settings.compute]
    if asked not in ("auto", before):
        raise UsageError(
            f"This cache was begun in {before}, and rows in {asked} would differ from it. Leave "
            f"the compute type out, or choose another --cache."
        )
    return load(before)


def micro_batch_of(backbone: Backbone, settings: PassSettings | None, asked: int | None) -> int:
    """Settle the micro-batch: the cache's, else what was asked for, else the rule's.

    Raises:
        UsageError: If it is out of range, or not the one that the cache was begun with.
    """
    if asked is not None and not 1 <= asked <= LARGEST_BATCH:
        raise UsageError(f"micro-batch must be 1 to {LARGEST_BATCH} images, got {asked}.")
    if settings is None:
        return asked or micro_batch_for(backbone.gflops, backbone.device.type)
    if asked is not None and asked != settings.micro_batch:
        raise UsageError(
            f"This cache was begun with micro-batch {settings.micro_batch}, and {asked} would "
            f"change the last bits. Leave --micro-batch out, or choose another --cache."
        )
    return settings.micro_batch


def admit_environment(
    cache: Cache,
    settings: PassSettings | None,
    encoder: Encoder,
    sources: Mapping[int, Source],
    *,
    max_pixels: int,
    weights: str = "",
    say: Callable[[str], None] = lambda _: None,
) -> Recorder:
    """Make sure that this environment gives the numbers that are stored; return the way to add.

    Args:
        cache: What is added to.
        settings: Of its first pass; None before its first shard.
        encoder: What adds.
        sources: Row -> its image.
        max_pixels: Largest picture to decode.
        weights: As --weights had them, for commands that go on with this cache.
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
            variant = parse_component(name).variant
            rows, now = encode_again(rows, sources, encoder, variant, max_pixels=max_pixels)
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


def _comparable(cache: Cache) -> list[str]:
    """Name the components of whole images in float16, the global features first."""
    keys = [parse_component(name) for name in cache.shards]
    whole = [k for k in keys if k.kind in ("global", "patches") and k.dtype == "float16"]
    return [k.folder for k in sorted(whole, key=lambda k: (k.kind, k.variant))]


def _compute(backbone: Backbone) -> str:
    return str(backbone.compute_dtype).removeprefix("torch.")

"""Images -> features without a cache: the rows that `extract` would store, byte for byte.

Decoding, recipes, the size of a batch and the numerics are those of a pass; both go through
`featcache.encoding.row_group`. A row depends on

- the backbone, its weights, device and compute type,
- `micro_batch`: the size of every batch, padded. Its default is that of a pass,
- the decoded pixels,
- for views and crops besides: the recipe, `seed`, the number of the view, and the sha256 of the
  image's content. For a path or bytes that is the hash of the file's bytes, as in a listing. Pillow
  images and arrays have no file, so theirs is a hash of the upright pixels: equal pixels get equal
  views, but others than the file from which they were read.

It does not depend on an image's name, its place among the others, or the size of a chunk. Nothing
is written to disk and no cache is looked for.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence, Sized
from contextlib import closing
from copy import copy
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from featcache.backbones.base import Backbone
from featcache.backbones.registry import load_backbone
from featcache.embedded import Embedded
from featcache.encoding.components import check_of_every_image, component_specs, spec_named
from featcache.encoding.encoder import Encoder, check_micro_batch, micro_batch_for
from featcache.encoding.row_group import RowGroup, Shown
from featcache.errors import UsageError
from featcache.imaging.decode import UnreadableImageError, pixel_limit, quiet_pillow
from featcache.imaging.inputs import ImageLike, is_one, source_of
from featcache.imaging.loader import ImageLoader, Job, LoadedImage
from featcache.keys import FeatureKey
from featcache.quantise import pack, unpack
from featcache.threads import cpu_cores, in_order

__all__ = ["Embedded", "Embedder", "ImageLike", "embed"]

CHUNK_BYTES, CHUNK_ROWS = 64 * 2**20, 4096
"""Bytes and rows of the features in a chunk, at most; a chunk has one micro-batch at least."""

Progress = Callable[[int, int | None], None]
"""Called as (decoded images, their number or None if unknown)."""


def embed(
    images: ImageLike | Iterable[ImageLike],
    backbone: str | Backbone = "tiny",
    *,
    weights: str | None = None,
    device: str = "auto",
    compute: str = "auto",
    views: Sequence[str] = (),
    crops: Sequence[str] = (),
    patches: Sequence[str] = (),
    view_patches: Sequence[str] = (),
    tokens: Sequence[str] = (),
    seed: int = 0,
    ids: Iterable[str] | None = None,
    micro_batch: int | None = None,
    max_pixels: int | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> Embedded:
    """Encode images as `extract` does, without a cache.

    `Embedder` explains the arguments and keeps the backbone for further calls; its `stream` is for
    more images than fit into memory.

    Raises:
        UsageError: If an argument is invalid, or something is no image.
        BackboneError: If the backbone cannot be loaded or does not fit into memory.
        UnreadableImageError: If an image is unreadable under `strict`.

    Example:
        >>> import numpy as np
        >>> grey = np.full((64, 64, 3), 128, dtype=np.uint8)
        >>> features = embed([grey, b"no image"], views=["2:weak"])
        >>> {name: tuple(rows.shape) for name, rows in features.components.items()}
        {'global': (2, 128), 'views.weak-2': (2, 2, 128)}
        >>> features.ok.tolist()
        [True, False]
    """
    embedder = Embedder(
        backbone,
        weights=weights,
        device=device,
        compute=compute,
        views=views,
        crops=crops,
        patches=patches,
        view_patches=view_patches,
        tokens=tokens,
        seed=seed,
        micro_batch=micro_batch,
        max_pixels=max_pixels,
        strict=strict,
    )
    return embedder.embed(images, ids=ids, progress=progress)


class Embedder:
    """A loaded backbone and the components to compute; may be called from several threads."""

    def __init__(
        self,
        backbone: str | Backbone = "tiny",
        *,
        weights: str | None = None,
        device: str = "auto",
        compute: str = "auto",
        views: Sequence[str] = (),
        crops: Sequence[str] = (),
        patches: Sequence[str] = (),
        view_patches: Sequence[str] = (),
        tokens: Sequence[str] = (),
        seed: int = 0,
        components: Iterable[str] = (),
        image_size: int | None = None,
        micro_batch: int | None = None,
        max_pixels: int | None = None,
        strict: bool = False,
    ) -> None:
        """Load the backbone and choose the components; global features are always among them.

        Args:
            backbone: Name of a backbone, or a loaded one; then the next three are ignored.
            weights: Weights as `load_backbone` takes them; None for the default.
            device: auto, cpu, cuda, cuda:N.
            compute: auto, bf16 or fp32, of the image tower.
            views: Requested views as in `extract`, without rows: 10, 8:strong.
            crops: Requested crops with their boxes: 60, 16:fair.
            patches: Requested patch variants: clearclip, vanilla:int8.
            view_patches: Requested patch features of views: 4:cdfsl.
            tokens: Requested tokens: last-block, last-block:int8.
            seed: Seed of views and crops.
            components: Further components by their name in a cache: views.rrc50-10@3.
            image_size: Pixels of the encoder's square input; None is the model's own. Ignored with
                a loaded backbone.
            micro_batch: Views in a batch; None takes what a pass would. The last bits of the
                features depend on it, and a single image costs as much as a whole batch.
            max_pixels: Largest image to decode; None is the environment's or Pillow's limit.
            strict: Whether an unreadable image is an error.

        Raises:
            UsageError: If an argument is invalid.
            UnknownNameError: If a backbone, recipe, variant or component is not known.
            BackboneError: If the backbone cannot be loaded.
        """
        named = {"views": views, "crops": crops, "patches": patches}
        named |= {"view_patches": view_patches, "tokens": tokens}
        requests = {k: [v] if isinstance(v, str) else v for k, v in named.items()}
        check_of_every_image(requests)
        check_micro_batch(micro_batch)
        if max_pixels is not None and max_pixels < 1:
            raise UsageError(f"max_pixels must be a positive number of pixels, got {max_pixels}.")
        if isinstance(backbone, str):
            backbone = load_backbone(
                backbone, weights=weights, device=device, compute=compute, image_size=image_size
            )
        self.backbone = backbone
        self.strict = strict
        self.max_pixels = pixel_limit(max_pixels)
        self.micro_batch = micro_batch or micro_batch_for(backbone.gflops, backbone.device.type)
        specs, _ = component_specs(backbone, seed=seed, **requests)
        further = [spec_named(name, backbone) for name in components]
        self._specs = {spec.name: spec for spec in (*specs, *further)}
        encoded = [spec for spec in self._specs.values() if spec.encodes]
        self._shown = tuple(dict.fromkeys(spec.views for spec in encoded))
        self._boxed = tuple(spec.views for spec in self._specs.values() if not spec.encodes)
        self._encoder = Encoder(backbone, self.micro_batch)
        row_bytes = sum(2 * int(np.prod(spec.encoded_shape)) for spec in encoded)
        self._chunk_rows = min(CHUNK_ROWS, CHUNK_BYTES // row_bytes)

    @property
    def key(self) -> FeatureKey:
        """Everything that determines the features."""
        return self.backbone.key

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the components computed for each image."""
        return tuple(self._specs)

    @property
    def views(self) -> int:
        """Number of views of an image that are encoded: the central one, and those of recipes."""
        return sum(shown.count for shown in self._shown)

    @property
    def streams(self) -> int:
        """Number of micro-batches that are computed at once; 1 on an accelerator."""
        return max(1, self._encoder.streams)

    def in_batches(self, micro_batch: int) -> "Embedder":
        """Return an embedder of the same backbone and components with another micro-batch.

        Raises:
            UsageError: If the micro-batch is none.

        Example:
            >>> Embedder().in_batches(1).micro_batch
            1
        """
        check_micro_batch(micro_batch)
        other = copy(self)
        other.micro_batch = micro_batch
        other._encoder = Encoder(self.backbone, micro_batch)
        return other

    def embed(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        ids: Iterable[str] | None = None,
        progress: Progress | None = None,
    ) -> Embedded:
        """Encode some images; arguments and errors as for `embed`."""
        chunks = list(self.stream(images, ids=ids, progress=progress))
        if len(chunks) == 1:
            return chunks[0]
        starts = np.cumsum([0, *(len(chunk) for chunk in chunks)]).tolist()
        parts = [chunk.components for chunk in chunks] or [self._nothing()]
        return Embedded(
            key=self.key,
            backbone=self.backbone.name,
            ids=tuple(name for chunk in chunks for name in chunk.ids),
            components={name: torch.cat([part[name] for part in parts]) for name in self._specs},
            reasons={
                start + row: why
                for start, chunk in zip(starts, chunks, strict=False)
                for row, why in chunk.reasons.items()
            },
        )

    def stream(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        ids: Iterable[str] | None = None,
        chunk: int | None = None,
        progress: Progress | None = None,
    ) -> Generator[Embedded, None, None]:
        """Yield features in chunks, in order, while later images are decoded and encoded.

        Pillow images and arrays are copied when they are taken from the iterable, on this thread;
        files are read on others. Threads run until the generator is exhausted or closed.

        Args:
            images: One image or any iterable of them, which may be endless.
            ids: Their names; as many as there are images.
            chunk: Images in a chunk; None takes as many as have 64 MiB of features.
            progress: Called after each image.

        Raises:
            UsageError: If `chunk` is not positive; and where the generator comes across something
                that is no image, or `ids` has too few or too many names.
            UnreadableImageError: If an image is unreadable under `strict`.
        """
        if chunk is not None and chunk < 1:
            raise UsageError(f"chunk must be at least 1 image, got {chunk}.")
        usual = max(1, self._chunk_rows // self.micro_batch) * self.micro_batch
        return self._stream(images, ids, chunk or usual, progress)

    def _stream(
        self,
        images: ImageLike | Iterable[ImageLike],
        ids: Iterable[str] | None,
        capacity: int,
        progress: Progress | None,
    ) -> Generator[Embedded, None, None]:
        encoder = copy(self._encoder)  # each call has a pool of its own
        loader = ImageLoader(
            preprocess=encoder.preprocess,
            max_pixels=self.max_pixels,
            room=encoder.image_room if encoder.cuts else None,
        )
        several: Iterable[ImageLike] = [images] if is_one(images) else images  # type: ignore[list-item,assignment]
        total = len(several) if isinstance(several, Sized) else None
        capacity = capacity if total is None else max(1, min(capacity, total))
        names: deque[str] = deque()
        threads = cpu_cores()
        loaded = in_order(
            self._jobs(several, ids, names),
            loader,
            threads=threads,
            ahead=encoder.decode_ahead(threads, self.views),
        )
        waiting: deque[_Chunk] = deque()
        done = 0
        with quiet_pillow(), closing(loaded), encoder.streaming():
            while len(chunk := self._fill(encoder, loaded, names, capacity, done, total, progress)):
                done += len(chunk)
                waiting.append(chunk)
                # As in a pass: the oldest is waited for while later ones keep the encoder busy.
                while _flying(list(waiting)[1:]) >= max(1, 2 * encoder.streams):
                    yield self._finished(waiting.popleft())
            while waiting:
                yield self._finished(waiting.popleft())

    def _jobs(
        self, images: Iterable[ImageLike], ids: Iterable[str] | None, names: deque[str]
    ) -> Iterator[Job]:
        """Walk the images on the calling thread, ahead of their turn; their names go to `names`."""
        given = None if ids is None else iter([ids] if isinstance(ids, str) else ids)
        count = 0
        for count, image in enumerate(images, start=1):
            name = None if given is None else next(given, None)
            if given is not None and name is None:
                raise UsageError(f"ids has {count - 1} names, and there are more images.")
            source = source_of(image, count - 1, name, self.max_pixels)
            names.append(source.id)
            yield Job(source, self._shown, self._boxed)
        if given is not None and next(given, None) is not None:
            raise UsageError(f"ids has more names than there are images ({count}).")

    def _fill(
        self,
        encoder: Encoder,
        loaded: Iterator[LoadedImage],
        names: deque[str],
        capacity: int,
        done: int,
        total: int | None,
        progress: Progress | None,
    ) -> "_Chunk":
        rows = np.arange(capacity)
        variants = {
            views: tuple(s.key.variant for s in self._specs.values() if s.views == views)
            for views in self._shown
        }
        group = RowGroup(
            encoder,
            [Shown(v, rows, tuple(dict.fromkeys(filter(None, variants[v])))) for v in self._shown],
        )
        ids: list[str] = []
        for row, image in enumerate(islice(loaded, capacity)):
            ids.append(names.popleft())
            if self.strict and image.reasons:
                raise UnreadableImageError(next(iter(image.reasons.values())), ids[-1])
            group.add(row, image)
            if progress is not None:
                progress(done + len(ids), total)
        group.close()
        return _Chunk(tuple(ids), group)

    def _finished(self, chunk: "_Chunk") -> Embedded:
        rows = np.arange(len(chunk))
        reasons: dict[int, str] = {}
        for said in chunk.group.reasons.values():
            for row, why in said.items():
                reasons.setdefault(row, why)
        components = {}
        for name, spec in self._specs.items():
            values = chunk.group.values(spec, rows)
            wrong = np.flatnonzero(~np.isfinite(values).reshape(len(rows), -1).all(1))
            for row in wrong.tolist():
                reason = f"has features that are not finite ({name})"
                if self.strict:
                    raise UnreadableImageError(reason, chunk.ids[row])
                reasons.setdefault(row, reason)
            values[wrong] = 0
            if spec.key.dtype == "int8":
                values = unpack(pack(values, component=name))
            components[name] = torch.from_numpy(values)
        return Embedded(
            key=self.key,
            backbone=self.backbone.name,
            ids=chunk.ids,
            components=components,
            reasons=dict(sorted(reasons.items())),
        )

    def _nothing(self) -> dict[str, Tensor]:
        return {
            name: torch.zeros(
                (0, *spec.encoded_shape), dtype=torch.float16 if spec.encodes else torch.int32
            )
            for name, spec in self._specs.items()
        }


@dataclass(frozen=True, slots=True)
class _Chunk:
    ids: tuple[str, ...]
    group: RowGroup

    def __len__(self) -> int:
        return len(self.ids)


def _flying(chunks: Sequence[_Chunk]) -> int:
    return sum(chunk.group.flying() for chunk in chunks)

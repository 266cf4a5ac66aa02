"""Answering images one by one: a stream of files, bytes or pixels, or the rows of a cache.

Images are decoded and encoded in chunks while earlier ones are answered, so memory does not grow
with their number. Rows are answered in blocks of one size, the last one filled up: products of
another size may differ in the last bit, and an answer should not depend on how many others there
are. So the images of a cache get the same bits through the cache and as files. (Methods that solve
several images together, as lazsl does, may differ in the last digits among other images.)
"""

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from featcache.backbones.devices import pick_device
from featcache.errors import UsageError
from featcache.imaging.loader import FileSource, ImageSource, PixelSource
from featcache.sources.queries.image import QueryImage
from featcache.types import FeatureSet
from heads.answering import embedder_for, query_needs, rows_of
from heads.certainty.asked import Asked
from heads.certainty.calibration import others_on
from heads.contract.rows import Rows
from heads.head import Head
from heads.predicted import Candidate, Decision, Prediction
from heads.reading import read_rows
from heads.whole import whole

if TYPE_CHECKING:
    from featcache.embedded import Embedded
    from featcache.embedding import Embedder
    from featcache.imaging.inputs import ImageLike

BLOCK = 64
"""Rows that a head answers at once."""
CHUNK = 64
"""Least number of images in a chunk; more where a micro-batch has more."""
NOT_FINITE = "has an answer that is not finite"


class Predictor:
    """A head and what encodes images for it, kept for many calls.

    Args:
        head: The head; it is moved to the device.
        top: Number of candidates of each image; fewer where the head has fewer classes.
        device: auto, cpu, cuda, cuda:1, ...
        asked: What is asked beside classes: prediction sets, rejection.

    Raises:
        HeadError: If the head cannot promise what is asked.
        UnknownNameError: If a rule or measure is unknown.
        UsageError: If `top` is not positive, there is no such device or a share is none.
    """

    def __init__(
        self, head: Head, *, top: int = 5, device: str = "auto", asked: Asked | None = None
    ) -> None:
        if whole("top", top) < 1:
            raise UsageError(f"top must be 1 or more classes, got {top}.")
        self.device = device
        self.head = head.to(pick_device(device))
        self.top = min(top, len(head.classes))
        self.asked = asked or Asked()
        self.asked.check(head.calibration, head.method.name)

    @cached_property
    def embedder(self) -> "Embedder":
        """What encodes images like those of training; the first use loads the backbone.

        Raises:
            HeadError: If the head does not say how to encode images, or other weights are here.
            BackboneError: If the backbone cannot be loaded.
        """
        return embedder_for(self.head, device=self.device, strict=False)

    def images(
        self, images: "Iterable[ImageLike | QueryImage]"
    ) -> Generator[Prediction, None, None]:
        """Yield the answers for images, in order, while later ones are decoded and encoded.

        Args:
            images: Paths, bytes, Pillow images, uint8 arrays [h w 3], or images with labels; may be
                endless. Taken some hundreds ahead.

        Raises:
            HeadError: As `embedder`.
            UsageError: If one is no image.
        """
        labels: deque[str | None] = deque()

        def sources() -> Iterator["ImageLike"]:
            for image in images:
                labels.append(image.label if isinstance(image, QueryImage) else None)
                yield _source(image) if isinstance(image, QueryImage) else image

        size = self.embedder.micro_batch
        stream = self.embedder.stream(sources(), chunk=size * -(-CHUNK // size))
        with closing(stream):
            for chunk in stream:
                for prediction in self.embedded(chunk):
                    yield replace(prediction, label=labels.popleft())

    def embedded(self, features: "Embedded") -> list[Prediction]:
        """Return the answers for features that `featcache.embed` or `embedder` gave, in order.

        Raises:
            HeadError: If they were not made like those of training.
        """
        self.head.check_key(features.key, "what was embedded")
        usable = features.usable()
        lost = usable[~features.rows("global", usable).any(1).numpy()]
        problems = {**features.reasons, **dict.fromkeys(lost.tolist(), "has features of length 0")}
        found: dict[int, Decision] = {}
        for rows, count in _blocks(np.setdiff1d(usable, lost)):
            decisions = self.decide(rows_of(self.head, features, rows))
            found |= zip(rows[:count].tolist(), decisions, strict=False)
        return [
            Prediction(id=name, problem=problems[row])
            if row in problems
            else _prediction(name, found[row])
            for row, name in enumerate(features.ids)
        ]

    def cached(self, cache: FeatureSet, split: str = "test") -> Iterator[Prediction]:
        """Yield the answers for all images of a split, in its order.

        Args:
            cache: The cache.
            split: Its split.

        Raises:
            HeadError: If its features were not made like those of training.
            MissingComponentError: If it lacks what the head reads.
            UnknownNameError: If there is no such split.
        """
        self.head.check_key(cache.key, f"the cache {cache.path}")
        needs, listing = query_needs(self.head), cache.listing
        answers = chain.from_iterable(
            self.decide(read_rows(cache, rows, "query", needs, self.head.device))[:count]
            for rows, count in _blocks(cache.usable(split))
        )
        for row in listing.rows(split).tolist():
            label = cache.classes[cache.labels[row]] if cache.labels[row] >= 0 else None
            if cache.ok[row]:
                yield _prediction(listing.ids[row], next(answers), label)
            else:
                why = "has no usable features in the cache"
                yield Prediction(id=listing.ids[row], label=label, problem=why)

    def decide(self, rows: Rows) -> list[Decision]:
        """Decide of every row: here logits become names, probabilities, sets and rejections.

        A row whose logits or probabilities are not finite has no candidates.
        """
        logits = self.head.logits(rows)
        sets, rejected = self.asked.of(self.head.calibration, logits, others_on(rows))
        # By logits: probabilities may be equal where these are not. Of equal ones the first, as
        # `Head.predict` has it.
        order = logits.sort(dim=1, descending=True, stable=True).indices
        probabilities = self.head.softened(logits)
        finite = _finite(logits) & torch.isfinite(probabilities).all(1)
        found = (order, probabilities, sets, rejected, finite)
        return [self._decision(*row) for row in zip(*(t.cpu().numpy() for t in found), strict=True)]

    def _decision(
        self,
        order: Int64[np.ndarray, " c"],
        probabilities: Float[np.ndarray, " c"],
        within: Bool[np.ndarray, " c"],
        rejected: np.bool_,
        finite: np.bool_,
    ) -> Decision:
        """Name what was found of one row; `order` has its classes, best first."""
        if not finite:
            return Decision(candidates=())

        def named(labels: Int64[np.ndarray, " k"]) -> tuple[Candidate, ...]:
            return tuple(
                Candidate(
                    label=label, name=self.head.classes[label], probability=float(probability)
                )
                for label, probability in zip(labels.tolist(), probabilities[labels], strict=True)
            )

        return Decision(
            candidates=named(order[: self.top]),
            set=None if self.asked.coverage is None else named(order[within[order]]),
            rejected=None if self.asked.reject is None else bool(rejected),
        )


def predict(
    head: Head,
    images: "FeatureSet | ImageLike | Iterable[ImageLike]",
    *,
    top: int = 5,
    split: str | None = None,
    device: str = "auto",
    coverage: float | None = None,
    rule: str = "lac",
    reject: float | None = None,
    measure: str = "max-logit",
) -> Iterator[Prediction]:
    """Yield the answer of a head for each of many images, or for the rows of a cache.

    Args:
        head: The head.
        images: Images as `featcache.embed` takes them, one or any iterable; among them folders,
            tables (`new.csv`), archives (`photos.zip`) and sources by prefix (`wds:shards/`); or a
            cache.
        top: Number of candidates of each image.
        split: Split of a cache; None is `test`.
        device: auto, cpu, cuda, cuda:1, ...
        coverage: Share of images whose label `Prediction.set` should contain, in (0, 1); None for
            no sets. This, `rule`, `reject` and `measure` are those of `heads.answers.answers_of`.
        rule: How sets are made: lac, aps or raps.
        reject: Share of images of the classes that may be `Prediction.rejected`, in (0, 1).
        measure: What is strange: max-logit or energy.

    Yields:
        Predictions in order; an image that cannot be used has a `problem` and stops nothing.

    Raises:
        HeadError: If features were not made like those of training, the head does not say how to
            encode images, or cannot promise the coverage or the share.
        SourceError: If a folder, a table or an archive cannot be listed.
        UsageError: If an argument is invalid, or something is no image.

    Example:
        >>> import featcache, heads
        >>> cache = featcache.open("fieldguide", "tiny")
        >>> head = heads.fit("ridge", cache, shots=4)
        >>> photos = [f"{cache.listing.root}/{cache.listing.ids[row]}" for row in (0, 1)]
        >>> found = list(heads.predict(head, photos, top=3))
        >>> [len(each.candidates) for each in found]
        [3, 3]
    """
    asked = Asked(coverage=coverage, rule=rule, reject=reject, measure=measure)
    predictor = Predictor(head, top=top, device=device, asked=asked)
    if isinstance(images, FeatureSet):
        return predictor.cached(images, "test" if split is None else split)
    if split is not None:
        raise UsageError(f"split='{split}' is for a cache; got {type(images).__name__}.")
    from featcache.imaging.inputs import is_one

    several: Iterable[ImageLike] = [images] if is_one(images) else images  # type: ignore[list-item,assignment]
    return predictor.images(chain.from_iterable(map(_opened, several)))


def _opened(image: "ImageLike") -> "Iterable[ImageLike | QueryImage]":
    """Return the images that a path stands for, where it is that of a folder or the like."""
    from featcache.sources.queries.opening import is_source, open_queries
    from featcache.store.root import cache_root

    if isinstance(image, str | os.PathLike) and is_source(os.fspath(image)):
        return open_queries(os.fspath(image), cache_root(None)).images
    return [image]


def _source(image: QueryImage) -> ImageSource:
    if image.place is None:
        return PixelSource(image.id, None, image.reason)
    return FileSource(image.id, image.place)


def _blocks(
    rows: Int64[np.ndarray, " r"],
) -> Iterator[tuple[Int64[np.ndarray, " b"], int]]:
    """Yield the rows in blocks of one size with how many count; the last is filled by its first."""
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        yield np.concatenate([block, np.full(BLOCK - len(block), block[0])]), len(block)


def _finite(logits: Float[Tensor, "n c"]) -> Bool[Tensor, " n"]:
    """Tell of every row whether it has a best class; -inf excludes a class and is allowed."""
    return torch.isfinite(logits.max(1).values)


def _prediction(name: str, decision: Decision, label: str | None = None) -> Prediction:
    return Prediction(
        id=name,
        candidates=decision.candidates,
        set=decision.set,
        rejected=decision.rejected,
        label=label,
        problem="" if decision.candidates else NOT_FINITE,
    )

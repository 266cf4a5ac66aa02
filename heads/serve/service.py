"""A head that answers uploaded files."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import numpy as np

from featcache.errors import HeadError
from featcache.imaging.decode import TooManyPixelsError, UnreadableImageError, size_of
from heads.certainty.asked import Asked
from heads.head import Head
from heads.predicted import Prediction
from heads.predicting import Predictor
from heads.serve.batch_sizes import BatchSizes
from heads.serve.batching import Batcher
from heads.serve.limits import Limits

COVERAGE, REJECT = 0.9, 0.05
"""What is asked of a calibrated head unless something else is named."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that somebody sent."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said of one file."""

    prediction: Prediction
    status: HTTPStatus = HTTPStatus.OK
    """What a request of this file alone is answered with."""


class Service:
    """A head with what encodes images for it, and a thread that does both.

    Args:
        predictor: The head; its encoder is loaded here.
        limits: How much is taken at once.
        micro_batch: Views that are encoded together; None takes what waits. With that of the head
            the answers have the bits of `heads.predict`, and one image costs as much as all.

    Raises:
        HeadError: If the head does not say how to encode images, or other weights are here.
        BackboneError: If the backbone cannot be loaded.
        UsageError: If the micro-batch is none.
    """

    def __init__(
        self, predictor: Predictor, limits: Limits, *, micro_batch: int | None = None
    ) -> None:
        self.predictor, self.limits = predictor, limits
        embedder = predictor.embedder
        self._sizes = BatchSizes(
            largest=embedder.micro_batch,
            views=embedder.views,
            streams=embedder.streams,
            named=micro_batch,
        )
        self._embedders = {size: embedder.in_batches(size) for size in self._sizes.all}
        self._batcher: Batcher[Upload, Prediction] = Batcher(
            self._answered,
            take=self._sizes.take,
            enough=self._sizes.enough,
            wait=self._sizes.wait,
            room=limits.waiting,
        )

    def warm(self) -> None:
        """Answer a grey picture, so that the first visitor does not wait for what is done once.

        Raises:
            BackboneError: If the largest batch does not fit into memory.
        """
        grey = np.full((64, 64, 3), 128, dtype=np.uint8)
        for size in {self._sizes.all[0], self._sizes.all[-1]}:
            self.predictor.embedded(self._embedders[size].embed(grey))

    def facts(self) -> dict[str, Any]:
        """Describe the head as one plain object."""
        head, asked = self.predictor.head, self.predictor.asked
        return {
            "method": head.method.name,
            "dataset": head.dataset,
            "backbone": head.backbone,
            "classes": list(head.classes),
            "top": self.predictor.top,
            "coverage": asked.coverage,
            "rule": None if asked.coverage is None else asked.rule,
            "reject": asked.reject,
            "calibration_rows": 0 if head.calibration is None else head.calibration.rows,
            "caution": asked.caution(head.calibration),
        }

    async def answer(self, uploads: Sequence[Upload]) -> list[Answer]:
        """Answer files, in order; those that cannot be used with the reason.

        Raises:
            BusyError: If too many images are waiting.
            ClosedError: If the server is stopping.
        """
        refused = await asyncio.to_thread(lambda: [self._refusal(each) for each in uploads])
        good = [each for each, no in zip(uploads, refused, strict=True) if no is None]
        futures = self._batcher.submit(good)
        found = iter(await asyncio.gather(*map(asyncio.wrap_future, futures)))
        return [_judged(next(found)) if no is None else no for no in refused]

    def close(self) -> None:
        """Answer what waits, then end."""
        self._batcher.close()

    def _refusal(self, upload: Upload) -> Answer | None:
        """Tell by its size and its header whether a file is refused."""
        most, limits = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self.limits
        if len(upload.data) > limits.file_bytes:
            problem = f"has {len(upload.data):,} bytes, above the limit of {limits.file_bytes:,}"
            return Answer(Prediction(id=upload.name, problem=problem), most)
        try:
            width, height = size_of(upload.data)
        except TooManyPixelsError:
            problem = f"has more pixels than the limit of {limits.pixels:,}"
            return Answer(Prediction(id=upload.name, problem=problem), most)
        except UnreadableImageError as error:
            return _judged(Prediction(id=upload.name, problem=error.reason))
        if width * height > limits.pixels:
            problem = f"has {width} x {height} pixels, above the limit of {limits.pixels:,}"
            return Answer(Prediction(id=upload.name, problem=problem), most)
        return None

    def _answered(self, uploads: list[Upload]) -> list[Prediction]:
        embedder = self._embedders[self._sizes.size(len(uploads))]
        features = embedder.embed(
            [each.data for each in uploads], ids=[each.name for each in uploads]
        )
        return self.predictor.embedded(features)


def asked_of(
    head: Head, *, coverage: float | None, rule: str | None, reject: float | None
) -> tuple[Asked, list[HeadError]]:
    """Return what is asked of a head, and why the usual is not where it cannot promise that.

    Args:
        head: The head.
        coverage: In (0, 1); None for the usual one.
        rule: One of `heads.ops.score_names.RULES`; None for the usual one.
        reject: In (0, 1); None for the usual share.
    """
    reasons: list[HeadError] = []
    if coverage is None:
        coverage = _promised(head, COVERAGE, Asked(coverage=COVERAGE), reasons)
    if reject is None:
        reject = _promised(head, REJECT, Asked(reject=REJECT), reasons)
    return Asked(coverage=coverage, reject=reject, rule=rule or Asked.rule), reasons


def _promised(head: Head, share: float, asked: Asked, reasons: list[HeadError]) -> float | None:
    """Return a share that a head can promise; else None, with one reason more."""
    try:
        asked.check(head.calibration, head.method.name)
    except HeadError as error:
        if str(error) not in map(str, reasons):
            reasons.append(error)
        return None
    return share


def _judged(prediction: Prediction) -> Answer:
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE if prediction.problem else HTTPStatus.OK
    return Answer(prediction, status)

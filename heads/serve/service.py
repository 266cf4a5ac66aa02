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
from heads.serve.batching import Batcher
from heads.serve.limits import Limits

COVERAGE, REJECT = 0.9, 0.05
"""What is asked of a calibrated head unless something else is named."""
BATCHES = 4
"""Micro-batches that are encoded at once where so many images wait: on a CPU beside each other."""
WAIT = 0.005
"""Seconds that the first image of a batch waits for others: little beside those of a batch."""


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

    Raises:
        HeadError: If the head does not say how to encode images, or other weights are here.
        BackboneError: If the backbone cannot be loaded.
    """

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        self.predictor, self.limits = predictor, limits
        size = predictor.embedder.micro_batch
        self._batcher: Batcher[Upload, Prediction] = Batcher(
            self._answered, enough=size, most=BATCHES * size, wait=WAIT, room=limits.waiting
        )

    def warm(self) -> None:
        """Answer a grey picture, so that the first visitor does not wait for what is done once."""
        grey = np.full((64, 64, 3), 128, dtype=np.uint8)
        self.predictor.embedded(self.predictor.embedder.embed(grey))

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
        features = self.predictor.embedder.embed(
            [each.data for each in uploads], ids=[each.name for each in uploads]
        )
        return self.predictor.embedded(features)


def asked_of(
    head: Head, *, coverage: float | None, rule: str | None, reject: float | None
) -> Asked:
    """Return what is asked of a head: what is named, else the usual where it can promise that.

    Args:
        head: The head.
        coverage: In (0, 1); None for the usual one.
        rule: One of `heads.ops.score_names.RULES`; None for the usual one.
        reject: In (0, 1); None for the usual share.
    """
    if coverage is None and _can_promise(head, Asked(coverage=COVERAGE)):
        coverage = COVERAGE
    if reject is None and _can_promise(head, Asked(reject=REJECT)):
        reject = REJECT
    return Asked(coverage=coverage, reject=reject, rule=rule or Asked.rule)


def _can_promise(head: Head, asked: Asked) -> bool:
    try:
        asked.check(head.calibration, head.method.name)
    except HeadError:
        return False
    return True


def _judged(prediction: Prediction) -> Answer:
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE if prediction.problem else HTTPStatus.OK
    return Answer(prediction, status)

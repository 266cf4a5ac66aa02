"""How many images are encoded together, and that a lone one does not pay for others."""

from pathlib import Path
from typing import Any

import pytest

import heads
from featcache.errors import UsageError
from heads.head import Head
from heads.serve.batch_sizes import BATCHES, BatchSizes
from tests.heads.serve.conftest import Serve
from tests.heads.serve.test_app import form


@pytest.mark.parametrize(
    ("waiting", "streams", "views", "size", "take"),
    [
        (1, 1, 1, 1, 1),
        (3, 1, 1, 2, 2),
        (200, 1, 1, 128, 128),
        (1000, 1, 1, 256, 256),
        (3, 16, 1, 1, 3),
        (40, 16, 1, 2, 32),
        (1, 1, 61, 32, 1),
        (50, 1, 61, 256, 4),
        (1, 16, 61, 2, 1),
    ],
)
def test_as_many_as_fill_a_batch_on_every_stream(
    waiting: int, streams: int, views: int, size: int, take: int
) -> None:
    made = BatchSizes(largest=256, streams=streams, views=views)
    assert (made.size(waiting), made.take(waiting)) == (size, take)
    assert made.wait == 0


def test_all_are_taken_in_the_end_and_none_twice() -> None:
    assert BatchSizes(largest=6).all == (1, 2, 4, 6)
    for most in (1, 6, 256):
        for streams in (1, 3):
            made, left = BatchSizes(largest=most, streams=streams), 777
            while left:
                took = made.take(left)
                assert 1 <= took <= left
                assert made.size(took) in made.all
                left -= took


def test_a_named_size_is_kept() -> None:
    made = BatchSizes(largest=256, named=32)
    assert {made.size(n) for n in (1, 33, 1000)} == {32}
    assert (made.take(1), made.take(1000)) == (1, 32 * BATCHES)
    assert made.wait > 0


def test_a_lone_image_is_encoded_alone(
    serve: Serve, head: Head, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve(micro_batch=None)
    service: Any = client.app.state.service  # type: ignore[attr-defined]
    kind, used = type(service.predictor.embedder), []
    embed = kind.embed

    def noted(self: Any, *images: Any, **options: Any) -> Any:
        used.append(self.micro_batch)
        return embed(self, *images, **options)

    monkeypatch.setattr(kind, "embed", noted)
    (answer,) = client.post("/predict", files=form(photos[0])).json()["predictions"]
    assert used == [1]
    (expected,) = heads.predict(head, [photos[0]], top=2, device="cpu")
    for got, one in zip(answer["candidates"], expected.candidates, strict=True):
        assert got["class"] == one.name
        assert got["probability"] == pytest.approx(one.probability, abs=1e-3)


def test_a_micro_batch_that_is_none_is_refused(serve: Serve) -> None:
    with pytest.raises(UsageError, match="micro_batch must be 1 to 65536"):
        serve(micro_batch=0)

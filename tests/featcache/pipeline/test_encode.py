from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import BackboneError
from featcache.pipeline.encode import Encoder, Lane, micro_batch_for


def pictures(count: int, seed: int = 0) -> list[Any]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("gflops", "kind", "expected"),
    [
        (0.05, "cpu", 256),
        (8.8, "cpu", 16),
        (35.0, "cpu", 8),
        (500.0, "cpu", 8),
        (35.0, "cuda", 256),
        (0.05, "cuda", 512),
        (1000.0, "cuda", 32),
        (8.8, "xpu", 16),
    ],
)
def test_the_micro_batch_follows_from_work_and_device(
    gflops: float, kind: str, expected: int
) -> None:
    assert micro_batch_for(gflops, kind) == expected


def test_grey_levels_are_normalised_as_totensor_and_normalize(backbone: Any) -> None:
    (picture,) = pictures(1)
    seen: list[Any] = []

    def look(pixels: Any, _: Any) -> Any:
        seen.append(pixels)
        return pixels[:, :, 0, 0], {}

    backbone.encode_images = look
    Encoder(backbone, 1).start([picture], ())
    for channel in range(3):
        expected = (picture[..., channel] / 255 - backbone.mean[channel]) / backbone.std[channel]
        np.testing.assert_allclose(seen[0][0, channel], expected, atol=1e-6)


def test_every_batch_is_filled_and_rows_land_where_they_belong(backbone: Any) -> None:
    images = pictures(11)
    rows = np.array([3, 4, 8, 9, 10, 11, 20, 21, 22, 23, 24])
    lane = Lane(Encoder(backbone, 4), rows, ("vanilla",))
    for row, picture in reversed(list(zip(rows.tolist(), images, strict=True))):
        lane.add(row, [picture])
    out = lane.end()
    assert backbone.batches == [4, 4, 4]
    encoder = Encoder(backbone, 4)
    for i, picture in enumerate(images):
        alone = encoder.start([picture], ("vanilla",)).wait()
        np.testing.assert_array_equal(out["global"][i], alone["global"][0])
        np.testing.assert_array_equal(out["vanilla"][i], alone["vanilla"][0])


def test_views_lie_behind_each_other_and_missing_rows_stay_zero(backbone: Any) -> None:
    images = pictures(6)
    lane = Lane(Encoder(backbone, 4), np.array([5, 6, 7]), views=3)
    lane.add(5, images[:3])
    lane.add(7, images[3:])
    out = lane.end()["global"].reshape(3, 3, 16)
    assert not out[1].any()
    assert out[[0, 2]].any(-1).all()
    assert backbone.batches == [4, 4]


def test_rows_are_stored_raw_in_half(backbone: Any) -> None:
    backbone.scale = 7.0
    lane = Lane(Encoder(backbone, 2), np.array([0]))
    lane.add(0, pictures(1))
    row = lane.end()["global"]
    assert row.dtype == np.float16
    assert abs(np.linalg.norm(row.astype(np.float64)) - 1) > 0.5
    assert torch.is_inference_mode_enabled() is False


def test_a_batch_too_large_for_the_device_names_the_flag(
    backbone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(backbone, "encode_images", refuse)
    picture = np.zeros((32, 32, 3), dtype=np.uint8)
    with pytest.raises(BackboneError, match="--micro-batch 32"):
        Encoder(backbone, 64).start([picture], ())

import threading
from typing import Any

import numpy as np
import pytest
import torch

from featcache.backbones.registry import load_backbone
from featcache.encoding.encoder import Encoder, Lane, micro_batch_for
from featcache.errors import BackboneError


def pictures(count: int, seed: int = 0) -> list[Any]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("gflops", "kind", "expected"),
    [
        (0.05, "cpu", 256),
        (8.8, "cpu", 16),
        (35.0, "cpu", 4),
        (500.0, "cpu", 2),
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


def far_too_much(*_: object) -> torch.Tensor:
    return torch.empty(1 << 60, dtype=torch.uint8)


def out_of_cuda(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("ask_for", [far_too_much, out_of_cuda])
def test_a_batch_too_large_for_the_device_names_the_flag(
    ask_for: Any, backbone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone, "encode_images", ask_for)
    picture = np.zeros((32, 32, 3), dtype=np.uint8)
    with pytest.raises(BackboneError, match="micro_batch=32"):
        Encoder(backbone, 64).start([picture], ())


def test_other_errors_are_not_taken_for_want_of_memory(
    backbone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone, "encode_images", lambda *_: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match=r"inconsistent|size"):
        Encoder(backbone, 64).start(pictures(1), ())


@pytest.fixture
def threads() -> Any:
    """Three threads, whatever the machine has; what was set before comes back."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


@pytest.mark.parametrize("compute", ["fp32", "bf16"])
def test_bytes_do_not_depend_on_how_many_batches_are_computed_at_once(
    compute: str, threads: int
) -> None:
    backbone = load_backbone("tiny", weights="random", device="cpu", compute=compute)
    side = backbone.image_size
    images = list(np.random.default_rng(0).integers(0, 256, (29, side, side, 3), dtype=np.uint8))

    def rows(streams: int) -> dict[str, Any]:
        torch.set_num_threads(streams)
        encoder = Encoder(backbone, 4)
        assert encoder.streams == streams
        with encoder.streaming():
            lane = Lane(encoder, np.arange(29), backbone.variants[:1])
            for row, picture in enumerate(images):
                lane.add(row, [picture])
            return lane.end()

    alone = Encoder(backbone, 4).start(images[:4], backbone.variants[:1]).wait()
    one, three = rows(1), rows(threads)
    for name in alone:
        np.testing.assert_array_equal(one[name], three[name])
        np.testing.assert_array_equal(one[name][:4], alone[name])


def test_streams_compute_in_one_thread_each_and_give_torch_back_its_threads(
    backbone: Any, threads: int
) -> None:
    seen: list[int] = []
    backbone.on_batch = lambda _: seen.append(torch.get_num_threads())
    encoder = Encoder(backbone, 2)
    encoder.start(pictures(2), ()).wait()
    running = threading.active_count()
    with encoder.streaming():
        started = [encoder.start(pictures(2), ()) for _ in range(6)]
        for batch in started:
            batch.wait()
    assert seen == [1] * 7
    assert threading.active_count() == running
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert (torch.get_num_threads(), later) == (threads, [threads])


def test_an_error_in_a_stream_reaches_the_pass_and_drops_what_waits(backbone: Any) -> None:
    def fail(batch: int) -> None:
        if batch == 2:
            raise KeyboardInterrupt

    backbone.on_batch = fail
    encoder = Encoder(backbone, 1)
    encoder.streams = 1
    lane = Lane(encoder, np.arange(50))

    def walk() -> None:
        with encoder.streaming():
            for row, picture in enumerate(pictures(50)):
                lane.add(row, [picture])

    with pytest.raises(KeyboardInterrupt):
        walk()
    assert len(backbone.batches) < 10

"""Windows cut where they are encoded: the same caches as from windows cut by decoding threads."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from featcache.backbones.registry import load_backbone
from featcache.encoding import device_crops as module
from featcache.encoding.device_crops import Cutter
from featcache.encoding.encoder import Encoder, preprocessing
from featcache.errors import BackboneError
from featcache.imaging import loader
from featcache.imaging.loader import FileSource, ImageLoader, Job
from featcache.imaging.resample import resample
from featcache.imaging.views import CENTRAL, ViewSpec
from featcache.imaging.windows import Preprocess
from featcache.pipeline import update
from featcache.places import FilePlace

EVERYTHING: dict[str, Any] = {
    "patches": ["clearclip", "vanilla:int8@train"],
    "views": ["2", "3:strong", "2:weak@val", "4:cdfsl"],
    "crops": ["5", "3:fair"],
    "view_patches": ["4:cdfsl"],
}
CROPS = ViewSpec("lazsl", 5, 0)
TURNED = ViewSpec("cdfsl", 4, 0)


def cutting(*arguments: Any) -> Encoder:
    """Let a CPU do what only CUDA devices do by themselves."""
    encoder = Encoder(*arguments)
    encoder.cuts = True
    return encoder


@pytest.mark.long
@pytest.mark.parametrize(
    ("room", "largest"),
    [(1, 1 << 23), (3 * 64 * 64 * 5, 1 << 23), (1 << 27, 1 << 23), (1 << 27, 3 * 45 * 50), (1, 0)],
)
def test_no_byte_depends_on_where_windows_are_cut(
    ask: Any,
    shards: Any,
    folder: Path,
    tmp_path: Path,
    room: int,
    largest: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (folder / "train" / "ant" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    Image.new("RGB", (9, 700), (1, 2, 3)).save(folder / "train" / "bee" / "stripe.png")
    by_threads = ask(**EVERYTHING, allow_bad=True)
    monkeypatch.setattr(update, "Encoder", cutting)
    monkeypatch.setattr(module, "CANVAS_BYTES", room)
    monkeypatch.setattr(loader, "WHOLE_BYTES", largest)  # larger ones are cut by threads after all
    summary = ask(**EVERYTHING, allow_bad=True, root=tmp_path / "there")
    assert summary.bad == by_threads.bad
    assert len(summary.bad) == 1
    assert len(shards(summary.path)) > 10
    assert shards(summary.path) == shards(by_threads.path)


def drawn(root: Path, seed: int, *kinds: ViewSpec, room: Any = None, preprocess: Any = None) -> Any:
    rng = np.random.default_rng(seed)
    path = root / f"{seed}.png"
    size = (40 + 7 * seed, 60 - 5 * seed, 3)
    Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(path)
    source = FileSource(path.name, FilePlace(path), hashlib.sha256(path.read_bytes()).hexdigest())
    drawer = ImageLoader(preprocess=preprocess or Preprocess(32), max_pixels=10**6, room=room)
    return drawer(Job(source, kinds))


def test_squares_are_those_of_the_decoding_threads(backbone: Any, tmp_path: Path) -> None:
    encoder = Encoder(backbone, 4)
    cutter = Cutter(encoder, Preprocess(32))
    given: dict[tuple[int, ViewSpec], list[Any]] = {}
    for row in range(6):
        job = drawn(tmp_path, row, CENTRAL, CROPS, TURNED, room=encoder.image_room)
        assert set(job.squares) == {TURNED}  # distorted ones are not cut on the device
        ready = list(cutter.add(row, job))
        assert {r for r, kind, _ in ready if kind == CENTRAL} == set(range(4) if row == 3 else ())
        given.update({(r, kind): list(squares) for r, kind, squares in ready})
    given.update({(r, kind): list(squares) for r, kind, squares in cutter.flush()})
    assert list(cutter.flush()) == []
    for row in range(6):
        for kind, expected in drawn(tmp_path, row, CENTRAL, CROPS, TURNED).squares.items():
            got = given.pop((row, kind))
            assert all(isinstance(s, Tensor) == (kind != TURNED) for s in got)
            np.testing.assert_array_equal(np.stack([np.asarray(s) for s in got]), expected)
    assert not given


def test_squares_are_bounded_too(backbone: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """Small pictures of many crops fill no canvas."""
    monkeypatch.setattr(module, "CANVAS_BYTES", 3 * 32 * 32 * 12)
    encoder = Encoder(backbone, 64)
    cutter = Cutter(encoder, Preprocess(32))
    flushed: list[int] = []
    for row in range(6):
        monkeypatch.setattr(module, "resample", noted(flushed))
        list(cutter.add(row, drawn(tmp_path, row, CROPS, room=encoder.image_room)))
    list(cutter.flush())
    assert sum(flushed) == 6 * 5
    assert max(flushed) <= 12 + 5


def noted(counts: list[int]) -> Any:
    def call(canvas: Tensor, pictures: Any, windows: Any, *rest: Any) -> Tensor:
        counts.append(len(windows))
        return resample(canvas, pictures, windows, *rest)

    return call


def test_want_of_memory_for_a_canvas_names_the_flag(
    backbone: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module, "resample", refuse)
    encoder = Encoder(backbone, 8)
    cutter = Cutter(encoder, Preprocess(32))
    list(cutter.add(0, drawn(tmp_path, 0, CENTRAL, room=encoder.image_room)))
    with pytest.raises(BackboneError, match="micro_batch=4"):
        list(cutter.flush())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_cuts_the_squares_of_the_decoding_threads(tmp_path: Path) -> None:
    backbone = load_backbone("tiny", weights="random", device="cuda")
    encoder, side = Encoder(backbone, 16), preprocessing(backbone)
    cutter = Cutter(encoder, side)
    found: dict[tuple[int, ViewSpec], Any] = {}
    for row in range(200):
        job = drawn(tmp_path, row % 7, CENTRAL, CROPS, room=encoder.image_room, preprocess=side)
        found |= {(r, kind): squares for r, kind, squares in cutter.add(row, job)}
    found |= {(r, kind): squares for r, kind, squares in cutter.flush()}
    for (row, kind), squares in found.items():
        expected = drawn(tmp_path, row % 7, kind, preprocess=side).squares[kind]
        got = np.stack([np.asarray(square.cpu()) for square in squares])
        np.testing.assert_array_equal(got, np.stack(expected))
    assert len(found) == 400


def test_a_canvas_is_bounded(
    backbone: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures of other shapes make it wider than each; what does not fit waits for the next."""
    sizes = []
    empty = torch.empty

    def note(shape: Any, **options: Any) -> Tensor:
        if len(shape) == 4:  # a canvas, not the room of one picture
            sizes.append(int(np.prod(shape)))
        return empty(shape, **options)

    monkeypatch.setattr(torch, "empty", note)
    monkeypatch.setattr(module, "CANVAS_BYTES", 40_000)
    encoder = Encoder(backbone, 64)
    cutter = Cutter(encoder, Preprocess(32))
    rows = []
    for row in range(8):
        job = drawn(tmp_path, row, CENTRAL, room=encoder.image_room)
        rows += [r for r, _, _ in cutter.add(row, job)]
    rows += [r for r, _, _ in cutter.flush()]
    assert rows == list(range(8))
    assert 1 < len(sizes) < 8
    assert max(sizes) <= 40_000

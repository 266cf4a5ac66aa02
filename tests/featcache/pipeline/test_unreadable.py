"""Images that cannot be read: recorded, skipped, refused, and encoded once they can be read."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from featcache.errors import SourceError
from featcache.pipeline import passes, plan, texts
from featcache.pipeline.opening import NOTHING_STORED
from featcache.store.cache import Cache
from featcache.text.encode import encode_texts
from tests.bad_images import bad_images
from tests.featcache.pipeline.passes import interrupt_at, shards

Make = Callable[..., Image.Image]


BAD = {name: bad_images()[name] for name in ("empty.jpg", "html.jpg", "cut.png")}


@pytest.fixture
def bad_folder(folder: Path) -> Path:
    for name, data in BAD.items():
        (folder / "train" / "cat" / name).write_bytes(data)
    return folder


@pytest.mark.usefixtures("bad_folder")
def test_unreadable_images_are_recorded_and_skipped(ask: Any, backbone: Any) -> None:
    summary = ask(views=["2"])
    assert {Path(name).name for name, _ in summary.bad} == set(BAD)
    assert summary.complete
    cache = Cache.open(summary.path)
    features = cache.feature_set()
    assert int((~features.ok).sum()) == 3
    assert "is empty" in cache.bad_rows().values()
    backbone.batches.clear()
    again = ask(views=["2"])
    assert backbone.batches == []
    assert {Path(name).name for name, _ in again.bad} == set(BAD)  # said every time


def refuse_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    access = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: not mode & os.W_OK and access(p, mode))


@pytest.mark.usefixtures("bad_folder")
def test_a_cache_that_cannot_be_written_tells_what_is_unreadable(
    ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = ask().bad
    refuse_writing(monkeypatch)
    again = ask()
    assert again.bad == bad
    assert len(bad) == 3
    assert again.complete
    with pytest.raises(SourceError, match=r"train/cat/cut.png.*Without strict"):
        ask(strict=True)


def test_a_cache_that_cannot_be_written_without_a_readable_image_fails(
    ask: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, path in enumerate(sorted(folder.glob("*/*/*.*g"))):
        path.write_bytes(b"no picture %d" % number)
    for _ in range(2):
        with pytest.raises(SourceError, match="None of the 22 images could be read"):
            ask(allow_bad=True)
        refuse_writing(monkeypatch)


@pytest.mark.usefixtures("bad_folder")
def test_strict_stops_at_the_first(ask: Any) -> None:
    with pytest.raises(SourceError, match=r"train/cat/cut.png.*Without strict"):
        ask(strict=True)


@pytest.mark.usefixtures("bad_folder", "small_shards")
def test_too_many_unreadable_images_stop_unless_allowed(
    ask: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(passes, "BAD_COUNT", 2)
    with pytest.raises(SourceError, match=r"3 of 25 images .*allow_bad=True"):
        ask(patches=["none"])
    (path,) = (tmp_path / "cache" / "zoo").glob("fake-*")
    assert shards(path)
    assert ask(patches=["none"], allow_bad=True).complete


def test_an_image_that_changes_during_the_pass_is_not_stored(
    ask: Any, folder: Path, backbone: Any, make_picture: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = folder / "val" / "cat" / "0.jpg"
    real = encode_texts

    def meddle(*arguments: Any, **options: Any) -> Any:
        make_picture(777).save(victim)
        return real(*arguments, **options)

    monkeypatch.setattr(texts, "encode_texts", meddle)
    summary = ask()
    assert summary.bad == (("val/cat/0.jpg", "changed on disk while the features were extracted"),)
    assert ask().encoded == {"global": 1, "patches.clearclip": 1}


def test_an_image_that_can_be_read_later_gets_its_rows(
    ask: Any, folder: Path, make_picture: Make, backbone: Any
) -> None:
    make_picture(1234, (300, 300)).save(folder / "train" / "bee" / "large.png")
    refused = ask(views=["2"], max_pixels=50_000)
    assert [name for name, _ in refused.bad] == ["train/bee/large.png"] * 1
    again = ask(views=["2"], max_pixels=50_000)
    assert again.encoded == {}
    mended = ask(views=["2"])
    assert mended.bad == ()
    assert mended.encoded["global"] == mended.encoded["patches.clearclip"] == 1
    features = Cache.open(mended.path).feature_set()
    assert features.ok.all()
    row = features.listing.ids.index("train/bee/large.png")
    assert features.rows("global", np.array([row])).any()
    assert ask(views=["2"]).encoded == {}


@pytest.mark.usefixtures("bad_folder")
def test_unreadable_images_of_earlier_passes_count(
    ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "shard_rows_for", lambda *_: 1)
    monkeypatch.setattr(passes, "BAD_COUNT", 2)
    for _ in range(3):
        with pytest.raises(SourceError, match="allow_bad=True"):
            ask(patches=["none"])
    ask(patches=["none"], allow_bad=True)
    assert ask(patches=["vanilla"]).complete  # they were agreed to


def test_a_pass_that_stored_nothing_fixes_nothing(ask: Any, backbone: Any) -> None:
    backbone.on_batch = interrupt_at(1)
    with pytest.raises(KeyboardInterrupt) as caught:
        ask(micro_batch=8)
    assert caught.value.__notes__ == [NOTHING_STORED]
    backbone.on_batch = lambda _: None
    backbone.batches.clear()
    ask(micro_batch=2)
    assert set(backbone.batches) == {2}
    assert ask(micro_batch=2).complete

"""Whole extractions of tiny folders, with everything that can go wrong with files."""

import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from featcache.encoding.encoder import Encoder, preprocessing
from featcache.errors import CacheError, SourceError, UsageError
from featcache.imaging import loader
from featcache.imaging.decode import read_image
from featcache.imaging.views import central_view
from featcache.pipeline import plan, run
from featcache.pipeline.opening import NOTHING_STORED
from featcache.pipeline.run import KEPT, Progress
from featcache.places import Place
from featcache.store.cache import Cache
from tests.featcache.pipeline.passes import interrupt_at, shards
from tests.tiers import quick

Make = Callable[..., Image.Image]


def test_a_whole_extraction(ask: Any, backbone: Any, folder: Path) -> None:
    said: list[str] = []
    seen: list[Progress] = []
    summary = ask(progress=seen.append, say=said.append)
    assert summary.images == 22
    assert summary.encoded == {"global": 22, "patches.clearclip": 22}
    assert summary.complete
    assert set(backbone.batches) == {4}
    assert any("22 images" in s for s in said)
    assert (seen[-1].stage, seen[-1].done, seen[-1].total) == ("encode", 22, 22)
    assert seen[-1].binding in ("decode", "encode", "write")
    features = Cache.open(summary.path).feature_set()
    assert sorted(features.listing.splits) == ["test", "train", "val"]
    assert features.rows("global", np.arange(22)).shape == (22, 16)
    assert features.rows("patches.clearclip", np.array([3, 1])).shape == (2, 4, 16)
    assert features.text is not None
    assert features.text.classes == ("ant", "bee", "cat")
    assert json.loads(json.dumps(summary.to_json()))["images"] == 22
    assert any("Encoded 22 images" in s for s in summary.sentences())


def test_rows_are_what_the_backbone_says_of_each_image(ask: Any, backbone: Any) -> None:
    summary = ask()
    features = Cache.open(summary.path).feature_set()
    encoder = Encoder(backbone, 4)
    root = Path(features.listing.root)
    for row, name in enumerate(features.listing.ids):
        with Image.open(root / name) as image:
            picture = central_view(np.array(image.convert("RGB")), preprocessing(backbone))
        expected = encoder.start([picture], ()).wait()["global"]
        np.testing.assert_array_equal(features.rows("global", np.array([row])).numpy(), expected)


def test_asking_again_encodes_nothing_and_a_new_component_itself_only(
    ask: Any, backbone: Any
) -> None:
    ask(patches=["none"])
    backbone.batches.clear()
    again = ask(patches=["none"])
    assert backbone.batches == []
    assert again.encoded == {}
    assert again.held == {"global": 22}
    assert any("Nothing to encode" in s for s in again.sentences())
    more = ask(patches=["clearclip,vanilla"])
    assert more.encoded == {"patches.clearclip": 22, "patches.vanilla": 22}


def test_new_photographs_are_encoded_alone(ask: Any, folder: Path, make_picture: Make) -> None:
    first = ask()
    before = shards(first.path)
    make_picture(500).save(folder / "train" / "bee" / "new.png")
    second = ask()
    assert second.encoded == {"global": 1, "patches.clearclip": 1}
    after = shards(second.path)
    assert {k: after[k] for k in before} == before
    assert Cache.open(second.path).feature_set().listing.ids[22] == "train/bee/new.png"


def test_relabelling_encodes_nothing_but_new_words(ask: Any, folder: Path, backbone: Any) -> None:
    ask()
    backbone.batches.clear()
    for split in ("train", "val", "test"):
        (folder / split / "bee").rename(folder / split / "wasp")
    summary = ask()
    assert backbone.batches == []
    assert summary.text
    text = Cache.open(summary.path).text()
    assert text is not None
    assert text.classes == ("ant", "cat", "wasp")


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("at", quick([5, 1, 2, 9], 1))
def test_an_interrupted_pass_goes_on_and_leaves_the_same_bytes(
    ask: Any, backbone: Any, tmp_path: Path, at: int
) -> None:
    whole = ask(views=["3"], root=tmp_path / "whole")
    threads = threading.active_count()
    backbone.batches.clear()
    backbone.on_batch = interrupt_at(at)
    with pytest.raises(KeyboardInterrupt) as caught:
        ask(views=["3"])
    kept = any((tmp_path / "cache").glob("*/*/[!t]*/*.h5"))
    assert caught.value.__notes__ == [KEPT if kept else NOTHING_STORED]
    assert threading.active_count() == threads
    backbone.on_batch = lambda _: None
    resumed = ask(views=["3"])
    assert resumed.complete
    assert shards(resumed.path) == shards(whole.path)
    assert len(shards(whole.path)) > 10


@pytest.mark.usefixtures("small_shards")
def test_finished_shards_survive_and_are_not_encoded_again(
    ask: Any, backbone: Any, tmp_path: Path
) -> None:
    backbone.on_batch = lambda batch: (
        (_ for _ in ()).throw(KeyboardInterrupt()) if batch == 5 else 0
    )
    with pytest.raises(KeyboardInterrupt):
        ask(patches=["none"])
    (path,) = (tmp_path / "cache" / "zoo").glob("fake-*")
    kept = shards(path)
    assert kept
    backbone.on_batch = lambda _: None
    summary = ask(patches=["none"])
    assert summary.encoded["global"] == 22 - 4 * sum(k.startswith("global") for k in kept)
    assert kept.items() <= shards(path).items()


def test_limit_takes_all_splits_and_classes_and_the_rest_comes_later(ask: Any) -> None:
    some = ask(limit=9)
    assert some.encoded["global"] == 9
    assert not some.complete
    listing = Cache.open(some.path).feature_set().listing
    reader = Cache.open(some.path).rows("global").present()
    taken = {(s, int(listing.labels[r])) for s, rows in listing.splits.items() for r in rows
             if reader[r]}  # fmt: skip
    assert len(taken) == 9
    rest = ask()
    assert rest.encoded["global"] == 13
    assert rest.complete


def test_a_forecast_leaves_no_trace(ask: Any, backbone: Any, tmp_path: Path) -> None:
    forecast = ask(dry_run=True)
    assert forecast.encoded == {"global": 22, "patches.clearclip": 22}
    assert forecast.bytes == 22 * 5 * 32
    assert not (tmp_path / "cache").exists()
    assert backbone.batches == []
    done = ask()
    assert done.bytes == forecast.bytes
    assert ask(dry_run=True).encoded == {}


def test_views_are_of_the_few_shot_images_and_depend_on_content_only(
    ask: Any, folder: Path, tmp_path: Path, backbone: Any
) -> None:
    first = ask(views=["2"], micro_batch=None)
    assert first.encoded["views.rrc50-2"] == 13
    features = Cache.open(first.path).feature_set()
    rows = features.listing.splits["train"]
    views = features.rows("views.rrc50-2", rows)
    assert (views[:, 0] != views[:, 1]).any(-1).all()
    other = tmp_path / "elsewhere"
    shutil.copytree(folder, other)
    for path in sorted((other / "train").rglob("*.*")):
        path.rename(path.with_name("z" + path.name[::-1].split(".", 1)[1][::-1] + path.suffix))
    again = ask(
        views=["3"], dataset=f"folder:{other}", name="other", micro_batch=None, patches=["none"]
    )
    moved = Cache.open(again.path).feature_set()
    place = {h: i for i, h in enumerate(moved.listing.hashes)}
    same = np.array([place[features.listing.hashes[r]] for r in rows])
    np.testing.assert_array_equal(moved.rows("views.rrc50-3", same)[:, :2].numpy(), views.numpy())


def test_each_file_is_decoded_once_for_all_components(
    ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    real = read_image

    def counted(place: Place, *arguments: Any, **more: Any) -> Any:
        names.append(str(place))
        return real(place, *arguments, **more)

    monkeypatch.setattr(loader, "read_image", counted)
    ask(views=["2"], patches=["clearclip,vanilla"])
    assert len(names) == len(set(names)) == 22


def test_overflow_is_refused_and_names_the_image(ask: Any, backbone: Any) -> None:
    backbone.scale = 1e6
    with pytest.raises(CacheError, match=r"not finite.*(jpg|png)"):
        ask()


def test_disk_and_size_are_checked_before_the_pass(
    ask: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(plan, "ASK_ABOVE", 1000)
    with pytest.raises(CacheError, match="yes=True"):
        ask()
    assert ask(yes=True).complete
    monkeypatch.setattr(plan, "RESERVE", 10**18)
    with pytest.raises(CacheError, match="root=DIR"):
        ask(root=tmp_path / "other", yes=True)


def test_a_backbone_without_patches(ask: Any, backbone: Any) -> None:
    backbone.variants, backbone.patches = (), 0
    said: list[str] = []
    assert ask(say=said.append).encoded == {"global": 22}
    assert any("no patch features" in s for s in said)
    with pytest.raises(UsageError, match="use patches='none'"):
        ask(patches=["clearclip"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"limit": 0}, "limit must be"),
        ({"patches": ["clearcliq"]}, "did you mean 'clearclip'"),
        ({"views": ["2:rrc"]}, "did you mean 'rrc50'"),
        ({"views": ["2@some"]}, "few-shot"),
        ({"views": ["-1"]}, "views='-1' should begin with a number"),
        ({"micro_batch": 0}, "micro_batch must be"),
        ({"micro_batch": 1 << 17}, "micro_batch must be .* 65536"),
        ({"patches": ["none,vanilla"]}, "none"),
    ],
)
def test_wrong_usage_says_what_is_right(ask: Any, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        ask(**changes)


def test_the_users_own_words_stay_until_others_come(ask: Any, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("a sketch of {}.\n")
    first = ask(templates=words)
    assert templates_of(first) == ("a sketch of {}.",)
    again = ask()
    assert not again.text
    assert templates_of(again) == ("a sketch of {}.",)
    words.write_text("a photo of {}.\n")
    assert ask(templates=words).text
    assert templates_of(again) == ("a photo of {}.",)


def templates_of(summary: run.Summary) -> tuple[str, ...]:
    listing = Cache.open(summary.path).listing()
    assert listing is not None
    return listing.templates


def test_a_moved_folder_asked_for_by_name_is_told_how_to_be_written(ask: Any, folder: Path) -> None:
    ask()
    moved = folder.rename(folder.parent / "moved")
    with pytest.raises(SourceError) as caught:
        ask(dataset=folder.name)
    assert str(folder) in str(caught.value)
    told = f"write dataset=folder:NEW, name='{folder.name}' and moved=True"
    assert told in str(caught.value)
    assert ask(dataset=f"folder:{moved}", name=folder.name, moved=True).encoded == {}
    assert ask(dataset=folder.name).encoded == {}


def test_another_root_is_refused_for_every_backbone_of_a_name(
    ask: Any, folder: Path, tmp_path: Path, backbone: Any
) -> None:
    ask()
    other = tmp_path / "elsewhere" / "zoo"
    shutil.copytree(folder, other)
    backbone.key = replace(backbone.key, weights="random-1")
    with pytest.raises(SourceError, match=r"Add moved.*with name"):
        ask(dataset=f"folder:{other}")
    assert len(list((tmp_path / "cache" / "zoo").glob("fake-*"))) == 1
    assert ask(dataset=f"folder:{other}", moved=True).complete
    assert ask(dataset=f"folder:{other}", views=["1"]).complete


def test_the_name_of_a_cached_folder_stands_for_it(ask: Any, folder: Path) -> None:
    first = ask()
    again = ask(dataset="zoo", patches=["vanilla"])
    assert again.path == first.path
    assert again.encoded == {"patches.vanilla": 22}
    renamed = ask(name="other")
    assert ask(dataset="other").path == renamed.path
    with pytest.raises(UsageError, match="Unknown data set 'zooo'"):
        ask(dataset="zooo")

"""Every component against a loop that draws and encodes one picture at a time."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from featcache.encoding.encoder import preprocessing
from featcache.errors import SourceError, UnknownNameError, UsageError
from featcache.imaging import decode, loader
from featcache.imaging.decode import UnreadableImageError, read_image
from featcache.imaging.randomness import view_stream
from featcache.imaging.views import draw_view
from featcache.pipeline import extraction
from featcache.pipeline.run import Summary
from featcache.places import FilePlace, Place
from featcache.store.cache import Cache
from featcache.store.repair.verify import verify

Ask = Callable[..., Summary]

ALL = {
    "patches": ["clearclip", "vanilla:int8@train"],
    "views": ["2", "3:strong", "2:weak@val", "4:cdfsl"],
    "crops": ["5", "3:fair"],
    "view_patches": ["4:cdfsl", "4:cdfsl:vanilla:int8@test"],
}


def drawn(backbone: Any, cache: Cache, recipe: str, row: int, count: int) -> tuple[Any, Any, Any]:
    """Global features [v d], patch features of both variants [v p d] and boxes, one by one."""
    listing = cache.listing()
    assert listing is not None
    sha = listing.hashes[row]
    image = read_image(FilePlace(Path(listing.root) / listing.ids[row]), sha)
    views = [
        draw_view(image, preprocessing(backbone), recipe, v, view_stream(0, recipe, sha, v))
        for v in range(count)
    ]
    pixels = torch.from_numpy(np.stack([v.pixels for v in views])).permute(0, 3, 1, 2).float() / 255
    mean = torch.tensor(backbone.mean).view(1, 3, 1, 1)
    std = torch.tensor(backbone.std).view(1, 3, 1, 1)
    rows, patches = backbone.encode_images((pixels - mean) / std, ("clearclip", "vanilla"))
    return rows, patches, [v.box for v in views]


def test_every_component_is_what_a_loop_makes(ask: Ask, backbone: Any) -> None:
    summary = ask(**ALL)
    cache = Cache.open(summary.path)
    features = cache.feature_set()
    listing = features.listing
    train = len(listing.splits["train"])
    few = train  # sixteen shots are all there are
    assert summary.encoded == {
        "global": 22, "patches.clearclip": 22, "patches.vanilla.int8": train,
        "views.rrc50-2": few, "views.strong-3": train, "views.weak-2": 3, "views.cdfsl-4": few,
        "crops.lazsl-5": 9, "boxes.lazsl-5": 9, "crops.fair-3": train, "boxes.fair-3": train,
        "view_patches.clearclip.cdfsl-4": few, "view_patches.vanilla.cdfsl-4.int8": 6,
    }  # fmt: skip
    assert summary.complete
    assert verify(summary.path, full=True).problems == ()
    for name, recipe, count in (
        ("views.rrc50-2", "rrc50", 2), ("views.strong-3", "strong", 3), ("views.weak-2", "weak", 2),
        ("views.cdfsl-4", "cdfsl", 4), ("crops.lazsl-5", "lazsl", 5), ("crops.fair-3", "fair", 3),
    ):  # fmt: skip
        present = np.flatnonzero(features.components[name].present())
        for row in present[[0, len(present) // 2, -1]].tolist():
            expected, patches, boxes = drawn(backbone, cache, recipe, row, count)
            got = features.rows(name, np.array([row]))[0].float()
            torch.testing.assert_close(got, expected, atol=2e-2, rtol=2e-3)
            if name.startswith("crops"):
                stored = features.rows(name.replace("crops", "boxes"), np.array([row]))[0]
                assert stored.dtype == torch.int32
                assert [tuple(b) for b in stored.tolist()] == boxes
            if name == "views.cdfsl-4":
                whole = features.rows("view_patches.clearclip.cdfsl-4", np.array([row]))[0].float()
                torch.testing.assert_close(whole, patches["clearclip"], atol=2e-2, rtol=2e-3)
    row = int(listing.splits["test"][0])
    _, patches, _ = drawn(backbone, cache, "cdfsl", row, 4)
    small = features.rows("view_patches.vanilla.cdfsl-4.int8", np.array([row]))[0].float()
    cosine = torch.cosine_similarity(small, patches["vanilla"], dim=-1)
    assert small.shape == (4, 4, 16)
    assert float(cosine.min()) > 0.9998


def test_asking_again_encodes_what_is_missing_only(ask: Ask, backbone: Any) -> None:
    ask(views=["2@val"], crops=["2@val"])
    batches = len(backbone.batches)
    assert ask(views=["2@val"], crops=["2@val"]).encoded == {}
    assert len(backbone.batches) == batches
    more = ask(views=["2@val", "2@test"], crops=["2"])
    assert more.encoded == {"views.rrc50-2": 6, "crops.lazsl-2": 6, "boxes.lazsl-2": 6}
    assert more.passed == 6
    assert ask(views=["2@query"]).encoded == {}


def test_fewer_views_are_the_first_of_more(ask: Ask, backbone: Any) -> None:
    ask(views=["3@val"])
    assert ask(views=["2@val"]).encoded == {}
    assert ask(views=["2@query"]).encoded == {"views.rrc50-3": 6}  # those of test are added there
    path = ask(views=["2@val"], name="apart").path
    rows = Cache.open(path).listing().rows("val")  # type: ignore[union-attr]
    three, two = (Cache.open(p).feature_set() for p in (ask().path, path))
    torch.testing.assert_close(
        three.rows("views.rrc50-3", rows)[:, :2], two.rows("views.rrc50-2", rows),
        atol=2e-3, rtol=1e-3,
    )  # fmt: skip


def test_an_interrupted_smaller_count_goes_on(ask: Ask, backbone: Any) -> None:
    """What stands in for what does not depend on where a pass was stopped."""
    whole = ask(views=["4", "2"])
    assert set(whole.encoded) == {"global", "patches.clearclip", "views.rrc50-4"}
    assert ask(views=["4", "2"]).encoded == {}


def test_an_image_that_could_not_be_read_once_is_mended_everywhere(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask()
    real = decode.read_image

    def refuse(place: Place, *arguments: Any, **more: Any) -> Any:
        path = place.container
        if path.name == "1.jpg" and path.parent.name == "bee" and path.parts[-3] == "train":
            raise UnreadableImageError("cannot be read: Input/output error")
        return real(place, *arguments, **more)

    monkeypatch.setattr(loader, "read_image", refuse)
    path = ask(views=["2"], crops=["2@train"]).path
    assert int((~Cache.open(path).feature_set().ok).sum()) == 1
    monkeypatch.setattr(loader, "read_image", real)
    assert ask().encoded == {"views.rrc50-2": 1, "crops.lazsl-2": 1, "boxes.lazsl-2": 1}
    assert Cache.open(path).feature_set().ok.all()


@pytest.mark.long
def test_a_stripe_has_crops_and_no_central_view_in_whatever_order(ask: Ask, folder: Path) -> None:
    Image.new("RGB", (2, 90_000_000 // 15)).save(folder / "train" / "ant" / "stripe.png")
    row = {"patches": ["none"], "crops": ["2@train"]}
    together = ask(**row).path
    ask(patches=["none"], name="apart")
    apart = ask(**row, name="apart").path
    for path in (together, apart):
        cache = Cache.open(path)
        assert [int(cache.rows(n).bad().sum()) for n in ("global", "crops.lazsl-2")] == [1, 0]
    for name in ("crops.lazsl-2", "boxes.lazsl-2"):
        one, other = (sorted((p / name).glob("*.h5")) for p in (together, apart))
        assert [f.name for f in one] == [f.name for f in other]
        for a, b in zip(one, other, strict=True):
            opened = [Cache.open(path).rows(name) for path in (together, apart)]
            stored = [reader.gather(np.arange(14)) for reader in opened]
            np.testing.assert_array_equal(stored[0], stored[1])
            assert a.stat().st_size == b.stat().st_size


def test_removed_bad_images_no_longer_count(ask: Ask, folder: Path) -> None:
    for i in range(10):
        (folder / "train" / "cat" / f"bad{i}.jpg").write_bytes(b"no picture" + bytes([i]))
    ask()
    for i in range(10):
        (folder / "train" / "cat" / f"bad{i}.jpg").unlink()
    (folder / "train" / "cat" / "another.jpg").write_bytes(b"no picture either")
    assert ask().complete


def test_equal_pictures_go_through_the_encoder_once(ask: Ask, backbone: Any) -> None:
    ask()
    before = len(backbone.batches)
    ask(views=["4:cdfsl@val"])
    alone = len(backbone.batches) - before
    shutil.rmtree(ask().path)
    ask()
    before = len(backbone.batches)
    ask(views=["4:cdfsl@val"], view_patches=["4:cdfsl@val", "4:cdfsl:vanilla@val"])
    assert len(backbone.batches) - before == alone == 3  # three images of four views


def test_lost_boxes_need_no_encoder(ask: Ask, backbone: Any) -> None:
    path = ask(crops=["4"]).path
    cache = Cache.open(path)
    kept = {line.file: (path / "boxes.lazsl-4" / line.file).read_bytes()
            for line in cache.shards["boxes.lazsl-4"]}  # fmt: skip
    for file in kept:
        cache.drop("boxes.lazsl-4", file)
    before = len(backbone.batches)
    assert ask(crops=["4"]).encoded == {"boxes.lazsl-4": 9}
    assert len(backbone.batches) == before
    for file, data in kept.items():
        assert (path / "boxes.lazsl-4" / file).read_bytes() == data


def test_another_seed_stands_beside(ask: Ask) -> None:
    path = ask(views=["2"], seed=5).path
    ask(views=["2"])
    features = Cache.open(path).feature_set()
    rows = np.flatnonzero(features.components["views.rrc50-2"].present())
    one, other = (features.rows(n, rows) for n in ("views.rrc50-2", "views.rrc50-2@5"))
    assert not torch.equal(one, other)


def test_a_forecast_predicts_the_bytes_of_each_component(ask: Ask) -> None:
    forecast = ask(**ALL, dry_run=True)
    path = ask(**ALL).path
    shards = Cache.open(path).shards
    for name, predicted in forecast.component_bytes.items():
        stored = sum(line.facts.bytes for line in shards[name])
        rows = sum(line.facts.shape[0] for line in shards[name])
        assert predicted <= stored <= predicted + 8192 * len(shards[name])
        assert forecast.encoded[name] == rows
    assert any("views.strong-3: " in text for text in forecast.sentences())


def test_photographs_come_go_and_change_their_class(ask: Ask, folder: Path, backbone: Any) -> None:
    """Nothing whose bytes are known is encoded a second time."""
    everything = {"views": ["2@all"], "crops": ["2@all"]}
    ask(**everything)
    before = backbone.pictures
    (folder / "train/ant/1.jpg").rename(folder / "train/bee/was-an-ant.jpg")  # relabelled
    (folder / "train/cat").rename(folder / "train/tiger")  # renamed
    (folder / "val/cat").rename(folder / "val/tiger")
    (folder / "test/cat").rename(folder / "test/tiger")
    (folder / "train/bee/0.jpg").unlink()
    (folder / "sketch/ant").mkdir(parents=True)
    (folder / "test/ant/0.jpg").rename(folder / "sketch/ant/0.jpg")  # another split
    summary = ask(**everything)
    assert summary.encoded == {}
    assert backbone.pictures == before
    listing = Cache.open(summary.path).listing()
    assert listing is not None
    assert listing.classes == ("ant", "bee", "tiger")
    assert list(listing.splits) == ["train", "val", "test", "sketch"]
    assert len(listing) == 22
    shutil.copy(folder / "train/ant/0.jpg", folder / "train/ant/copy.jpg")
    (folder / "train/ant/new.png").write_bytes((folder / "train/ant/extra.png").read_bytes() + b" ")
    summary = ask(**everything)
    # The copy gets a row of its own; the file with one byte more is another photograph.
    assert summary.encoded == dict.fromkeys(
        ["global", "patches.clearclip", "views.rrc50-2", "crops.lazsl-2", "boxes.lazsl-2"], 2
    )


@pytest.mark.parametrize(
    ("wish", "error", "said"),
    [
        ({"views": ["10@trian"]}, UnknownNameError, "did you mean 'train'"),
        ({"views": ["2:strnog"]}, UnknownNameError, "did you mean 'strong'"),
        ({"crops": ["0"]}, UsageError, "crops='0' should begin with a number"),
        ({"view_patches": ["4:cdfsl:sclip"]}, UnknownNameError, "Unknown patch variant 'sclip'"),
        ({"view_patches": ["4:cdfsl:maskclip"]}, UnknownNameError, "patch variant of fake"),
        ({"patches": ["none", "vanilla"]}, UsageError, "excludes other requests"),
        ({"patches": ["none:int8"]}, UsageError, "excludes other requests, got 'none:int8'"),
        ({"seed": -1}, UsageError, "seed must be 0 to"),
        ({"seed": 10**18}, UsageError, "seed must be 0 to"),
    ],
)
def test_wrong_wishes(ask: Ask, wish: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        ask(**wish)


def test_weights_are_remembered_for_the_commands_that_go_on(ask: Ask, tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    file.write_bytes(b"")
    path = ask(weights=str(file)).path
    assert Cache.open(path).feature_set().weights == str(file)
    assert ask(weights=str(file), views=["2@val"]).encoded == {"views.rrc50-2": 3}


def test_strict_minds_what_was_recorded_before(ask: Ask, folder: Path) -> None:
    (folder / "train" / "ant" / "broken.jpg").write_bytes(b"no picture")
    ask()
    with pytest.raises(SourceError, match=r"train/ant/broken.jpg .* Without strict"):
        ask(strict=True)


def test_wrong_wishes_are_told_before_a_model_is_loaded(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "load_backbone", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(UsageError, match="views='ten'"):
        ask(views=["ten"])

"""Features without a cache are, byte for byte, those that a pass writes."""

import doctest
import io
import itertools
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from featcache import embedding
from featcache.embedding import Embedded, Embedder, embed
from featcache.errors import UnknownNameError, UsageError
from featcache.imaging.decode import UnreadableImageError, decode
from featcache.pipeline.run import Request, extract
from featcache.quantise import pack
from featcache.store.cache import Cache
from featcache.types import FeatureSet

REQUESTS: dict[str, Any] = {
    "views": ("2", "1:strong", "1:weak", "2:cdfsl"),
    "crops": ("2:lazsl", "1:fair"),
    "patches": ("clearclip", "clearclip:int8"),
    "view_patches": ("2:cdfsl", "2:cdfsl:int8"),
}
"""Every kind of component, and every recipe."""

Make = Callable[..., Image.Image]


def everywhere(requests: dict[str, Any]) -> dict[str, Any]:
    return {kind: [f"{text}@all" for text in texts] for kind, texts in requests.items()}


def bytes_of(values: torch.Tensor) -> bytes:
    return values.numpy().tobytes()


def same(one: Embedded, other: Embedded) -> bool:
    return one.components.keys() == other.components.keys() and all(
        bytes_of(values) == bytes_of(other.components[name])
        for name, values in one.components.items()
    )


def paths_of(features: FeatureSet) -> list[Path]:
    return [Path(features.listing.root) / name for name in features.listing.ids]


def make_odd_images(root: Path, make: Make) -> None:
    """Whatever decoding has to settle: rotation, palettes, 16 bits, CMYK, damage, a stripe."""
    root.mkdir(parents=True)
    image = make(1, (70, 50))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(root / "turned.jpg", exif=exif)
    image.convert("CMYK").save(root / "cmyk.jpg")
    image.save(root / "sound.jpg", quality=90)
    image.quantize(16).save(root / "palette.png")
    image.convert("RGBA").save(root / "alpha.webp", lossless=True)
    deep = np.arange(48 * 40, dtype=np.uint16).reshape(40, 48) * 30
    Image.fromarray(deep).save(root / "deep.png")
    make(2, (200, 3)).save(root / "stripe.bmp")
    (root / "torn.jpg").write_bytes((root / "sound.jpg").read_bytes()[:700])
    (root / "empty.png").write_bytes(b"")


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    """Odd images through a real pass with the embedded model, with every kind of component."""
    from tests.featcache.conftest import picture

    folder = tmp_path_factory.mktemp("odd")
    make_odd_images(folder / "images" / "thing", picture)
    summary = extract(
        Request(
            dataset=f"folder:{folder / 'images'}",
            backbone="tiny",
            root=folder / "cache",
            compute="fp32",
            micro_batch=4,
            **everywhere(REQUESTS),
        )
    )
    return Cache.open(summary.path).feature_set()


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder("tiny", compute="fp32", micro_batch=4, **REQUESTS)


def test_every_component_has_the_bytes_of_a_pass(cached: FeatureSet, embedder: Embedder) -> None:
    embedded = embedder.embed(paths_of(cached))
    every = np.arange(len(cached.listing))
    assert set(embedded.components) == set(cached.components)
    for name, values in embedded.components.items():
        stored = cached.rows(name, every)
        assert (values.dtype, values.shape) == (stored.dtype, stored.shape)
        assert bytes_of(values) == bytes_of(stored), name
    assert embedded.key == cached.key
    assert embedded.ok.tolist() == cached.ok.tolist()
    bad = Cache.open(cached.path).bad_rows()
    assert embedded.reasons == bad
    assert len(bad) == 2
    good = embedded.usable()
    assert bytes_of(embedded.unit("global", good)) == bytes_of(cached.unit("global", good))


def test_int8_is_what_lies_in_the_shards(cached: FeatureSet, embedder: Embedder) -> None:
    embedded = embedder.embed(paths_of(cached))
    for name in ("patches.clearclip", "view_patches.clearclip.cdfsl-2"):
        (shard,) = (cached.path / f"{name}.int8").glob("*.h5")
        with h5py.File(shard) as file:
            stored = file["features"][...]
        packed = pack(embedded.rows(name).numpy())
        assert packed.tobytes() == stored.tobytes()


def test_neither_order_nor_chunk_nor_names_change_a_byte(
    cached: FeatureSet, embedder: Embedder
) -> None:
    paths = paths_of(cached)
    whole = embedder.embed(paths)
    back = embedder.embed(paths[::-1], ids=[f"photo {i}" for i in range(len(paths))])
    for name, values in whole.components.items():
        assert bytes_of(back.components[name].flip(0)) == bytes_of(values)
    parts = list(embedder.stream(iter(paths), chunk=2))
    assert [len(part) for part in parts] == [2, 2, 2, 2, 1]
    for name, values in whole.components.items():
        assert bytes_of(torch.cat([p.components[name] for p in parts])) == bytes_of(values)
    assert back.ids[0] == "photo 0"
    assert whole.ids == tuple(map(str, paths))


def test_bytes_are_as_good_as_their_file(cached: FeatureSet, embedder: Embedder) -> None:
    paths = paths_of(cached)
    assert same(embedder.embed([path.read_bytes() for path in paths]), embedder.embed(paths))


def test_pixels_give_the_central_features_of_their_file(
    cached: FeatureSet, embedder: Embedder
) -> None:
    """Pillow's images are turned and converted as files are; arrays are upright RGB already."""
    whole = embedder.embed(paths_of(cached))
    good = whole.usable()
    paths = [paths_of(cached)[row] for row in good.tolist()]
    opened = embedder.embed(Image.open(path) for path in paths)
    arrays = embedder.embed([decode(path.read_bytes()) for path in paths])
    mixed = embedder.embed(
        [Image.open(p) if i % 2 else decode(p.read_bytes()) for i, p in enumerate(paths)]
    )
    assert same(opened, arrays)  # views too: their randomness is named by the pixels
    assert same(mixed, arrays)
    for name in ("global", "patches.clearclip", "patches.clearclip.int8"):
        assert bytes_of(arrays.rows(name)) == bytes_of(whole.rows(name, good))
    random = arrays.rows("views.rrc50-2")
    assert bytes_of(random) != bytes_of(whole.rows("views.rrc50-2", good))


@pytest.fixture
def photo(make_picture: Make) -> np.ndarray:
    return np.array(make_picture(5, (60, 44)))


def test_one_image_needs_no_list(backbone: Any, tmp_path: Path, photo: np.ndarray) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(photo).save(path)
    for one in (str(path), path, path.read_bytes(), bytearray(path.read_bytes()), photo):
        assert bytes_of(embed(one, backbone).rows("global")) == bytes_of(
            embed([photo], backbone).rows("global")
        )
    four = embed(np.stack([photo, photo]), backbone)
    assert len(four) == 2
    assert len(embed(Image.fromarray(photo), backbone)) == 1


def test_seed_and_name_of_a_component(backbone: Any, photo: np.ndarray) -> None:
    third = embed([photo], backbone, views=["2"], seed=3)
    assert set(third.components) == {"global", "views.rrc50-2@3"}
    first = embed([photo], backbone, views="2")
    assert bytes_of(third.rows("views.rrc50-2@3")) != bytes_of(first.rows("views.rrc50-2"))
    names = ("views.rrc50-2@3", "boxes.lazsl-4", "view_patches.vanilla.cdfsl-2.int8")
    named = Embedder(backbone, components=names)
    assert named.components == ("global", *names)
    again = named.embed([photo])
    assert bytes_of(again.rows("views.rrc50-2@3")) == bytes_of(third.rows("views.rrc50-2@3"))
    assert again.rows("boxes.lazsl-4").dtype == torch.int32
    assert again.rows("boxes.lazsl-4").shape == (1, 4, 4)


def test_unreadable_images_are_rows_with_a_reason(backbone: Any, photo: np.ndarray) -> None:
    gone = Path("/nowhere/of/all.jpg")
    images: list[Any] = [photo, b"no image", gone, b"", np.zeros((0, 4, 3), np.uint8), photo]
    embedded = embed(images, backbone, views=["2"])
    assert embedded.ok.tolist() == [True, False, False, False, False, True]
    assert embedded.usable().tolist() == [0, 5]
    assert [embedded.reasons[i].split()[0] for i in (1, 2, 3, 4)] == ["is", "cannot", "is", "is"]
    assert not embedded.rows("views.rrc50-2")[1:5].any()
    assert torch.equal(embedded.rows("global")[0], embedded.rows("global")[5])
    with pytest.raises(UnreadableImageError, match=r"^/nowhere/of/all.jpg cannot be read") as error:
        embedded.unit("global", np.array([0, 2]))
    assert error.value.image == str(gone)
    assert error.value.reason.startswith("cannot be read")
    assert embedded.unit("global", embedded.usable()).shape == (2, 16)
    with pytest.raises(UnreadableImageError, match=r"^images\[1\] is no image"):
        embed(images, backbone, strict=True)
    with pytest.raises(UnreadableImageError, match="above the limit of 100"):
        embed([photo], backbone, max_pixels=100, strict=True)
    large = embed([Image.fromarray(photo), photo], backbone, max_pixels=100)
    assert large.reasons[0] == large.reasons[1]


def test_features_that_are_not_finite_are_no_features(backbone: Any, photo: np.ndarray) -> None:
    backbone.scale = float("inf")
    embedded = embed([photo], backbone, patches=["clearclip:int8"])
    assert embedded.reasons == {0: "has features that are not finite (global)"}
    assert not embedded.rows("global").any()
    with pytest.raises(UnreadableImageError, match="not finite"):
        embed([photo], backbone, strict=True)
    backbone.scale = 0.0
    with pytest.raises(UnreadableImageError, match=r"images\[0\] has features of length zero"):
        embed([photo], backbone).unit("global")


def test_no_images_have_no_rows(backbone: Any) -> None:
    nothing = embed([], backbone, views=["3"], crops=["2"])
    shapes = {name: tuple(rows.shape) for name, rows in nothing.components.items()}
    assert shapes == {
        "global": (0, 16),
        "views.rrc50-3": (0, 3, 16),
        "crops.lazsl-2": (0, 2, 16),
        "boxes.lazsl-2": (0, 2, 4),
    }
    assert nothing.ok.tolist() == []
    assert list(Embedder(backbone).stream(iter(()))) == []


def test_a_stream_takes_no_more_than_it_needs(backbone: Any, photo: np.ndarray) -> None:
    taken = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal taken
        frame = np.empty_like(photo)  # one array for all, as cameras hand them over
        for taken in itertools.count(1):
            frame[...] = (photo.astype(int) + taken) % 256
            yield frame

    embedder = Embedder(backbone, micro_batch=4)
    stream = embedder.stream(endless(), chunk=8)
    before = threading.active_count()
    chunks = list(itertools.islice(stream, 3))
    assert [len(chunk) for chunk in chunks] == [8, 8, 8]
    assert taken < 200
    stream.close()
    assert threading.active_count() <= before
    frames = [((photo.astype(int) + i) % 256).astype(np.uint8) for i in range(1, 25)]
    expected = embedder.embed(frames).rows("global")
    assert bytes_of(torch.cat([c.rows("global") for c in chunks])) == bytes_of(expected)
    assert len(np.unique(expected.numpy(), axis=0)) == 24


def test_several_threads_share_an_embedder(backbone: Any, make_picture: Make) -> None:
    embedder = Embedder(backbone, views=["2"], micro_batch=4)
    images = [np.array(make_picture(seed)) for seed in range(6)]
    alone = embedder.embed(images)
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda _: embedder.embed(images), range(6)))
    assert all(same(one, alone) for one in together)


def test_progress_and_names(backbone: Any, photo: np.ndarray) -> None:
    told: list[tuple[int, int | None]] = []
    embed([photo] * 3, backbone, progress=lambda *n: told.append(n))
    assert told == [(1, 3), (2, 3), (3, 3)]
    told.clear()
    embed(iter([photo]), backbone, ids=iter("a"), progress=lambda *n: told.append(n))
    assert told == [(1, None)]
    with pytest.raises(UsageError, match="ids has 1 names, and there are more images"):
        embed([photo, photo], backbone, ids=["a"])
    with pytest.raises(UsageError, match=r"more names than there are images \(1\)"):
        embed([photo], backbone, ids=["a", "b"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"views": ["10@train"]}, "views='10@train' names rows of a data set"),
        ({"views": ["x"]}, "views='x' should begin with a number"),
        ({"crops": ["4:rrc50"]}, "Unknown recipe of crops 'rrc50'"),
        ({"patches": ["maskclip"]}, "Unknown patch variant of fake 'maskclip'"),
        ({"seed": -1}, "seed must be"),
        ({"micro_batch": 0}, "micro_batch must be 1 to 65536 images, got 0"),
        ({"max_pixels": 0}, "max_pixels must be a positive number"),
        ({"components": ["colour"]}, "'colour' is not the name of a component"),
        ({"components": ["views.lazsl-2"]}, "Unknown recipe of views 'lazsl'"),
        ({"components": ["views.rrc50"]}, "does not say how many"),
        ({"components": ["patches.maskclip"]}, "Unknown patch variant of fake 'maskclip'"),
        ({"components": ["global-3"]}, "has a recipe or a count"),
        ({"components": ["text.0123456789ab"]}, "is made of texts"),
    ],
)
def test_errors_speak_of_arguments(backbone: Any, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)) as error:
        Embedder(backbone, **arguments)
    assert "--" not in str(error.value)


def test_what_is_no_image_is_refused_by_its_place(backbone: Any, photo: np.ndarray) -> None:
    refused: list[tuple[Any, str]] = [
        (3, "int"),
        (photo.astype(np.float32), r"float32 \[44, 60, 3\]"),
        (photo[..., 0], r"uint8 \[44, 60\]"),
    ]
    for wrong, got in refused:
        with pytest.raises(UsageError, match=rf"^images\[1\] should be a path.*got {got}\.$"):
            embed(iter([photo, wrong]), backbone)
    with pytest.raises(UsageError, match="chunk must be at least 1"):
        Embedder(backbone).stream([photo], chunk=0)
    with pytest.raises(UnknownNameError, match=r"Unknown component 'views.rrc50-2'"):
        embed(photo, backbone).rows("views.rrc50-2")
    with pytest.raises(UsageError, match="holds boxes"):
        embed(photo, backbone, crops=["2"]).unit("boxes.lazsl-2")


def test_nothing_is_written_and_no_cache_looked_for(
    backbone: Any, photo: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATCACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    embed([photo], backbone, views=["2"], crops=["2"], patches=["clearclip:int8"])
    assert list(tmp_path.iterdir()) == []


def test_the_caller_keeps_what_they_said_of_warnings(backbone: Any, photo: np.ndarray) -> None:
    with warnings.catch_warnings():
        before = list(warnings.filters)
        stream = Embedder(backbone).stream([photo, photo], chunk=1)
        next(stream)
        warnings.filterwarnings("ignore", message="mine")
        stream.close()
        assert [f for f in warnings.filters if f not in before] == [warnings.filters[0]]
        assert warnings.filters[0][1].pattern == "mine"  # type: ignore[union-attr]


def test_damaged_metadata_is_hushed_wherever_it_is_met(backbone: Any, photo: np.ndarray) -> None:
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "TIFF")
    torn = bytearray(buffer.getvalue())
    torn[int.from_bytes(torn[4:8], "little")] += 40  # more tags than there are
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(embed([bytes(torn)], backbone)) == 1


def test_the_examples_of_the_docstrings() -> None:
    failed, tried = doctest.testmod(embedding)
    assert failed == 0
    assert tried == 6

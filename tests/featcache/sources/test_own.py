"""Everyone's own data: the same bytes from any kind of source are the same rows of a cache."""

import csv
import io
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featcache.errors import SourceError, UnknownNameError
from featcache.pipeline.repair import mend
from featcache.pipeline.run import Request, Summary, extract
from featcache.sources.kinds import KINDS
from featcache.sources.registry import name_of, open_dataset
from featcache.store.cache import Cache
from featcache.store.repair.verify import repair as take_out
from tests.tiers import quick

Photos = dict[tuple[str, str, str], bytes]
"""Split, class and file -> bytes."""


def photos() -> Photos:
    made: Photos = {}
    for number, name in enumerate(("ant", "bee")):
        for i, split in enumerate(("train", "train", "val", "test")):
            rng = np.random.default_rng(10 * number + i)
            pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            data = io.BytesIO()
            Image.fromarray(pixels).save(data, format=("JPEG", "PNG")[i % 2])
            made[split, name, f"{i}.{('jpg', 'png')[i % 2]}"] = data.getvalue()
    return made


def folder(images: Photos, root: Path) -> str:
    for (split, name, file), data in images.items():
        (root / "photos" / split / name).mkdir(parents=True, exist_ok=True)
        (root / "photos" / split / name / file).write_bytes(data)
    return f"folder:{root}/photos"


def zipped(images: Photos, root: Path) -> str:
    with zipfile.ZipFile(root / "photos.zip", "w") as archive:
        for key, data in images.items():
            archive.writestr("/".join(key), data)
    return f"zip:{root}/photos.zip"


def table(images: Photos, root: Path) -> str:
    folder(images, root)
    with (root / "photos/list.csv").open("w", newline="") as file:
        rows = csv.writer(file, delimiter=";")
        rows.writerow(["file", "kind", "fold"])
        rows.writerows([f"{s}/{n}/{f}", n, s] for s, n, f in images)
    return f"csv:{root}/photos/list.csv?label=kind&split=fold"


def shards(images: Photos, root: Path) -> str:
    for split in ("train", "val", "test"):
        with tarfile.open(root / f"photos-{split}-000000.tar", "w") as archive:
            for (own, name, file), data in images.items():
                if own == split:
                    key = f"{name}-{file.partition('.')[0]}"
                    for member, content in (
                        (f"{name}-{file}", data),
                        (f"{key}.cls", name.encode()),
                    ):
                        info = tarfile.TarInfo(member)
                        info.size = len(content)
                        archive.addfile(info, io.BytesIO(content))
    return f"wds:{root}"


def parquet(images: Photos, root: Path) -> str:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (root / "data").mkdir()
    for split in ("train", "val", "test"):
        rows = [(name, file, data) for (s, name, file), data in images.items() if s == split]
        values = [{"bytes": data, "path": file} for _, file, data in rows]
        columns = {"image": pa.array(values), "label": pa.array([name for name, _, _ in rows])}
        pq.write_table(pa.table(columns), root / f"data/{split}-00000-of-00001.parquet")
    return f"hf:{root}"


WAYS: dict[str, Callable[[Photos, Path], str]] = {
    "zip": zipped,
    "csv": table,
    "wds": shards,
    "hf": parquet,
}


def encode(root: Path, spec: str, **more: object) -> Summary:
    request = Request(dataset=spec, backbone="tiny", root=root, name="photos", views=["2"])
    return extract(replace(request, **more))  # type: ignore[arg-type]


def by_content(path: Path) -> dict[tuple[str, str], bytes]:
    """Component and hash of an image's bytes -> bytes of its row."""
    features = Cache.open(path).feature_set()
    hashes = features.listing.hashes
    return {
        (name, hashes[row]): features.rows(name, np.array([row])).numpy().tobytes()
        for name, reader in features.components.items()
        for row in np.flatnonzero(reader.present()).tolist()
    }


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], bytes]:
    root = tmp_path_factory.mktemp("plain")
    return by_content(encode(root / "caches", folder(photos(), root)).path)


@pytest.mark.parametrize("kind", quick(WAYS, 1))
def test_the_same_rows_bit_for_bit(
    tmp_path: Path, plain: dict[tuple[str, str], bytes], kind: str
) -> None:
    images = photos()
    summary = encode(tmp_path / "caches", WAYS[kind](images, tmp_path))
    assert not summary.bad
    assert by_content(summary.path) == plain
    listing = Cache.open(summary.path).feature_set().listing
    assert listing.classes == ("ant", "bee")
    assert {name: len(rows) for name, rows in listing.splits.items()} == {
        "train": 4,
        "val": 2,
        "test": 2,
    }


@pytest.mark.long
@pytest.mark.parametrize("kind", ["csv", "hf"])
def test_the_name_stands_for_the_same_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    spec = WAYS[kind](photos(), tmp_path)
    prefix, _, path = spec.partition(":")
    monkeypatch.chdir(tmp_path)
    relative = Path(path.partition("?")[0]).relative_to(tmp_path)
    spec = f"{prefix}:{relative}{path[len(path.partition('?')[0]) :]}"
    first = encode(tmp_path / "caches", spec)
    before = Cache.open(first.path).feature_set().listing
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = encode(tmp_path / "caches", "photos", name=None)
    assert sum(again.encoded.values()) == 0
    after = Cache.open(again.path).feature_set().listing
    assert list(after.ids) == list(before.ids)
    assert after.classes == before.classes


@pytest.mark.long
@pytest.mark.parametrize("kind", ["wds", "hf"])
def test_lost_rows_are_encoded_again(tmp_path: Path, kind: str) -> None:
    path = encode(tmp_path / "caches", WAYS[kind](photos(), tmp_path), views=()).path
    whole = {shard: shard.read_bytes() for shard in (path / "global").glob("*.h5")}
    shard = min(whole)
    data = bytearray(whole[shard])
    data[-100] ^= 0xFF
    shard.write_bytes(data)
    take_out(path, report=None)
    assert mend(path).encoded == {"global": 8}
    assert {shard: shard.read_bytes() for shard in whole} == whole


@pytest.mark.long
def test_a_changed_image_is_encoded_again(tmp_path: Path) -> None:
    images = photos()
    spec = shards(images, tmp_path)
    encode(tmp_path / "caches", spec, views=())
    data = io.BytesIO()
    Image.new("RGB", (30, 30), (200, 10, 10)).save(data, format="JPEG")
    images["train", "ant", "0.jpg"] = data.getvalue()
    shards(images, tmp_path)
    assert set(encode(tmp_path / "caches", spec, views=()).encoded.values()) == {1}


def test_every_kind_is_there_and_names_its_data() -> None:
    for prefix in ("csv", "wds", "hf", "coco", "labelstudio", "fiftyone", "npz"):
        assert prefix in KINDS
    with pytest.raises(UnknownNameError, match="did you mean 'csv'"):
        open_dataset("cvs:photos.csv", root=Path())


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("csv:{}/list.csv?label=kind", "list"),
        ("wds:{}", "folder"),
        ("wds:{}/x-{{0..3}}.tar", "folder"),
        ("hf:{}", "folder"),
    ],
)
def test_names(tmp_path: Path, spec: str, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/list.csv").touch()
    assert name_of(spec.format(tmp_path / "folder")) == name


def test_what_is_not_there(tmp_path: Path) -> None:
    for prefix in KINDS:
        with pytest.raises(SourceError):
            open_dataset(f"{prefix}:{tmp_path}/nothing", root=tmp_path)


@pytest.mark.parametrize("kind", ["csv", "wds"])
def test_the_bare_install_reads_all_but_parquet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for module in [m for m in sys.modules if m.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert len(open_dataset(WAYS[kind](photos(), tmp_path), root=tmp_path).samples) == 8

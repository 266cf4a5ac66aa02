"""`zip:` and `tar:` give the listing and the rows that `folder:` gives of the unpacked files."""

import io
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featcache.errors import SourceError
from featcache.pipeline.repair import mend
from featcache.pipeline.run import Request, Summary, extract
from featcache.sources.listing import build_listing
from featcache.sources.registry import name_of, open_dataset, spec_of
from featcache.store.cache import Cache
from featcache.store.repair.verify import repair as take_out
from tests.tiers import quick

KINDS = ("zip", "tar")


def _image(seed: int, form: str) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format=form)
    return data.getvalue()


def _photos(root: Path) -> Path:
    for label, name in enumerate(("ant", "bee", "crab spider")):
        (root / name).mkdir(parents=True)
        for i in range(4):
            form, suffix = (("JPEG", "jpg"), ("PNG", "png"), ("PPM", "ppm"))[i % 3]
            (root / name / f"{i}.{suffix}").write_bytes(_image(10 * label + i, form))
    (root / "README.md").write_text("beside")
    return root


def _pack(root: Path, file: Path, top: str = "") -> Path:
    members = [(p, f"{top}{p.relative_to(root)}") for p in sorted(root.rglob("*"))]
    if file.suffix == ".zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
            for path, name in members:
                packed.write(path, name)
    else:
        with tarfile.open(file, "w") as archive:
            for path, name in members:
                archive.add(path, name, recursive=False)
    return file


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return _photos(tmp_path / "photos")


@pytest.mark.parametrize("top", ["", "photos/", "a/b/"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_listing(tmp_path: Path, photos: Path, kind: str, top: str) -> None:
    file = _pack(photos, tmp_path / f"photos.{kind}", top)
    plain = open_dataset(f"folder:{photos}", root=tmp_path)
    found = open_dataset(f"{kind}:{file}", root=tmp_path)
    assert (found.name, found.root) == ("photos", file / top)
    assert (found.classes, found.notes) == (plain.classes, plain.notes)
    assert [(s.id, s.label, s.split) for s in found.samples] == [
        (s.id, s.label, s.split) for s in plain.samples
    ]
    one, other = build_listing(found), build_listing(plain)
    assert list(one.hashes) == list(other.hashes)
    again = open_dataset(spec_of(str(found.root)), root=tmp_path, name="photos")
    assert again.samples == found.samples


@pytest.mark.parametrize("kind", KINDS)
def test_split_folders_in_an_archive(tmp_path: Path, photos: Path, kind: str) -> None:
    file = _pack(photos, tmp_path / f"p.{kind}", "train/")
    found = open_dataset(f"{kind}:{file}", root=tmp_path)
    assert found.classes == ("ant", "bee", "crab spider")
    assert (found.root, found.samples[0].id) == (file, "train/ant/1.png")


def test_a_folder_in_an_archive_can_be_named(tmp_path: Path, photos: Path) -> None:
    file = _pack(photos, tmp_path / "p.zip", "summer/")
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("winter/elk/1.jpg", b"x")
    assert open_dataset(f"zip:{file}", root=tmp_path).classes == ("summer", "winter")
    summer = open_dataset(f"zip:{file}/summer", root=tmp_path)
    assert (summer.name, summer.classes) == ("summer", ("ant", "bee", "crab spider"))
    assert name_of(f"zip:{file}/summer") == "summer"
    with pytest.raises(SourceError, match="There is no folder 'autumn'"):
        open_dataset(f"zip:{file}/autumn", root=tmp_path)


def test_layouts_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr("1.jpg", b"x")
    with pytest.raises(SourceError, match="images directly in it but no class folders"):
        open_dataset(f"zip:{tmp_path / 'p.zip'}", root=tmp_path)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(SourceError, match="has no images"):
        open_dataset(f"zip:{tmp_path / 'empty.zip'}", root=tmp_path)


def _extract(root: Path, dataset: str, **more: object) -> Summary:
    request = Request(dataset=dataset, backbone="tiny", root=root, name="photos")
    return extract(replace(request, **more))  # type: ignore[arg-type]


def _rows(path: Path) -> dict[str, bytes]:
    """Return component and image -> the bytes of its row."""
    features = Cache.open(path).feature_set()
    ids = features.listing.ids
    return {
        f"{name} {ids[row]}": features.rows(name, np.array([row])).numpy().tobytes()
        for name, reader in features.components.items()
        for row in np.flatnonzero(reader.present()).tolist()
    }


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Cache of a folder of images, the folder, and a place to pack it."""
    base = tmp_path_factory.mktemp("archives")
    photos = _photos(base / "photos")
    return _extract(base / "plain", f"folder:{photos}", views=["2"]).path, photos, base


@pytest.mark.parametrize("kind", quick(KINDS, 1))
def test_the_same_rows_bit_for_bit(extracted: tuple[Path, Path, Path], kind: str) -> None:
    plain, photos, base = extracted
    file = _pack(photos, base / f"photos.{kind}", "top/")
    packed = _extract(base / kind, f"{kind}:{file}", views=["2"])
    assert not packed.bad
    assert _rows(packed.path) == _rows(plain)
    # By its name, which stands for where the images were.
    assert sum(_extract(base / kind, "photos", views=["2"], name=None).encoded.values()) == 0


@pytest.mark.long
def test_a_moved_data_set_is_not_encoded_again(extracted: tuple[Path, Path, Path]) -> None:
    _, photos, base = extracted
    root = base / "moved"
    _extract(root, f"folder:{photos}")
    file = _pack(photos, base / "moved.zip")
    assert sum(_extract(root, f"zip:{file}", moved=True).encoded.values()) == 0


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_lost_rows_are_encoded_again_from_the_archive(
    extracted: tuple[Path, Path, Path], kind: str
) -> None:
    _, photos, base = extracted
    file = _pack(photos, base / f"lost.{kind}", "top/")
    path = _extract(base / f"lost-{kind}", f"{kind}:{file}").path
    whole = {shard: shard.read_bytes() for shard in (path / "global").glob("*.h5")}
    shard = min(whole)
    data = bytearray(whole[shard])
    data[-100] ^= 0xFF
    shard.write_bytes(data)
    take_out(path, report=None)
    assert mend(path).encoded == {"global": 12}
    assert {shard: shard.read_bytes() for shard in whole} == whole


@pytest.mark.long
def test_of_a_replaced_archive_only_the_changed_image_is_encoded(
    extracted: tuple[Path, Path, Path],
) -> None:
    _, photos, base = extracted
    file, root = _pack(photos, base / "changing.zip"), base / "changing"
    path = _extract(root, f"zip:{file}").path
    before = _rows(path)
    replaced = base / "new.zip"
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(replaced, "w") as new:
        for name in old.namelist():
            data = _image(99, "JPEG") if name == "bee/0.jpg" else old.read(name)
            new.writestr(name, data)
    replaced.replace(file)
    again = _extract(root, f"zip:{file}")
    assert set(again.encoded.values()) == {1}
    after = _rows(path)
    assert {k: v for k, v in after.items() if before.get(k) == v}.keys() == {
        k for k in before if not k.endswith("bee/0.jpg")
    }

"""MedMNIST's arrays as images: bytes that are the same everywhere, and what is refused."""

import hashlib
import io
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from featcache.errors import SourceError
from featcache.imaging.png import png_bytes, png_size
from featcache.limits import IMAGE_FILE
from featcache.sources.layouts.own import npz_member
from featcache.sources.layouts.own.npz import open_npz


def arrays(shape: tuple[int, ...] = (5, 4), n: int = 6) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    made: dict[str, Any] = {}
    for split, count in (("train", n), ("val", 2), ("test", 3)):
        made[f"{split}_images"] = rng.integers(0, 256, (count, *shape), np.uint8)
        made[f"{split}_labels"] = (np.arange(count) % 2)[:, None].astype(np.uint8)
    return made


def write(root: Path, *, packed: bool = True, **content: Any) -> str:
    (np.savez_compressed if packed else np.savez)(root / "mini.npz", **content)
    return str(root / "mini.npz")


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3)])
def test_images_are_their_pixels(tmp_path: Path, shape: tuple[int, ...], packed: bool) -> None:
    content = arrays(shape)
    data = open_npz(write(tmp_path, packed=packed, **content), {})
    assert data.classes == ("0", "1")
    assert [s.split for s in data.samples] == ["train"] * 6 + ["val"] * 2 + ["test"] * 3
    for sample in data.samples:
        split, _, index = sample.id.partition("_images/")
        encoded = sample.place.read(IMAGE_FILE)
        pixels = np.asarray(Image.open(io.BytesIO(encoded)))
        assert np.array_equal(pixels, content[f"{split}_images"][int(index)])
        assert sample.label == int(index) % 2
        assert len(encoded) == sample.place.size()


@pytest.mark.parametrize("shape", [(1, 1), (300, 257), (200, 201, 3), (1, 65_534), (1, 65_535)])
def test_png_bytes_decode_to_the_same_pixels(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    encoded = png_bytes(pixels)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encoded))), pixels)
    assert len(encoded) == png_size(shape[0], shape[1], 3 if len(shape) == 3 else 1)


def test_png_bytes_never_change() -> None:
    """Rows of a cache are found again by the hash of these bytes."""
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    digest = hashlib.sha256(png_bytes(pixels)).hexdigest()
    assert digest.startswith("b6584210aa7efee3")


@pytest.mark.parametrize("shape", [(0, 3), (2, 3, 2), (2,), (2, 3, 3, 3)])
def test_png_bytes_of_no_image(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected an image"):
        png_bytes(np.zeros(shape, np.uint8))


def test_images_are_read_in_any_order_and_from_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npz_member, "BLOCK", 64)  # a few images in a block
    content = arrays((5, 4), n=60)
    data = open_npz(write(tmp_path, **content), {})
    train = [s for s in data.samples if s.split == "train"]
    order = np.random.default_rng(2).permutation(len(train)).tolist()
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda i: train[i].place.read(IMAGE_FILE), order))
    assert read == [png_bytes(content["train_images"][i]) for i in order]


def test_class_names_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("melanoma\nnevus\n")
    data = open_npz(write(tmp_path, **arrays()), {"names": str(tmp_path / "names.txt")})
    assert data.classes == ("melanoma", "nevus")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"train_labels": np.zeros((6, 14), np.uint8)}, "14 labels an image"),
        ({"train_labels": np.zeros(6)}, "float64"),
        ({"train_labels": np.zeros(5, np.uint8)}, "for images [6, 5, 4]"),
        ({"train_images": np.zeros((6, 5, 4), np.float32)}, "float32"),
        ({"train_images": np.zeros((6, 5, 4, 4), np.uint8)}, "expected train_images"),
        ({"train_images": np.zeros((6, 0, 4), np.uint8)}, "expected train_images"),
        ({"train_images": np.asfortranarray(np.zeros((6, 5, 4), np.uint8))}, "Fortran"),
        ({"train_labels": np.array([{}] * 6, dtype=object)}, "Python objects"),
        ({"more_images": np.zeros((1, 2, 2), np.uint8)}, "no more_labels"),
    ],
)
def test_what_is_refused(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_npz(write(tmp_path, **{**arrays(), **change}), {})
    assert expected in str(caught.value)


def test_no_images(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds x; expected train_images"):
        open_npz(write(tmp_path, x=np.zeros(3)), {})


@pytest.mark.parametrize("content", [b"", b"PK", b"\0" * 100])
def test_no_npz(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(SourceError, match=r"could not be read as \.npz"):
        open_npz(str(tmp_path / "x.npz"), {})


def test_a_header_that_claims_more_than_there_is(tmp_path: Path) -> None:
    """Neither memory is taken for it, nor does an image come of it."""
    path = write(tmp_path, **arrays())
    header = io.BytesIO()
    shape = (6, 5000, 5000)
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    with zipfile.ZipFile(path) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    members["train_images.npy"] = header.getvalue() + b"x" * 100
    with zipfile.ZipFile(path, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    data = open_npz(path, {})
    with pytest.raises(OSError, match="ends before entry 0"):
        data.samples[0].place.read(IMAGE_FILE)
    members["train_labels.npy"] = members["train_labels.npy"][:-2]
    with zipfile.ZipFile(path, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    with pytest.raises(SourceError, match="ends within 'train_labels'"):
        open_npz(path, {})


def test_damaged_bytes_are_an_error_of_reading(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 64, 64), np.uint8)
    labels = np.arange(40) % 2
    path = Path(write(tmp_path, packed=True, train_images=pixels, train_labels=labels))
    content = bytearray(path.read_bytes())
    content[content.index(b"train_images.npy") + 120_000] ^= 1  # past what is read for the header
    path.write_bytes(content)
    data = open_npz(str(path), {})
    with pytest.raises(OSError, match="could not be read"):
        data.samples[39].place.read(IMAGE_FILE)

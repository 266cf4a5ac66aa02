"""Files that are replaced after their labels were read: no label comes to another image."""

import hashlib
import io
import json
import os
import tarfile
import time
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from featcache.errors import SourceError
from featcache.keys import Listing
from featcache.limits import IMAGE_FILE
from featcache.sources import hashing
from featcache.sources.listing import build_listing
from featcache.sources.registry import open_dataset

ORDER = range(20)
OTHER = [(7 * i + 1) % 20 for i in range(20)]


def parquet(path: Path, order: Sequence[int]) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": b"image %d" % i, "path": f"{i}.png"} for i in order]
    said = {"info": {"features": {"label": {"names": ["ant", "bee"], "_type": "ClassLabel"}}}}
    table = pa.table({"image": pa.array(rows, image), "label": [i % 2 for i in order]})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(said)}), path)


def npz(path: Path, order: Sequence[int]) -> None:
    pixels = np.stack([np.full((4, 4), i, np.uint8) for i in order])
    np.savez(path, train_images=pixels, train_labels=np.array(order) % 2)


def archive(path: Path, order: Sequence[int]) -> None:
    """Write class folders in which image i has the place of another, with bytes of one length."""
    with zipfile.ZipFile(path, "w") as file:
        for at, i in enumerate(order):
            file.writestr(f"{'ant' if i % 2 == 0 else 'bee'}/{at:02d}.jpg", b"image %02d" % i)


def tarred(path: Path, order: Sequence[int]) -> None:
    """The same as `archive`, with labels beside the images, as webdataset has them."""
    with tarfile.open(path, "w") as file:
        for at, i in enumerate(order):
            for suffix, data in (("jpg", b"image %02d" % i), ("cls", b"%d" % (i % 2))):
                member = tarfile.TarInfo(f"{at:02d}.{suffix}")
                member.size = len(data)
                file.addfile(member, io.BytesIO(data))


KINDS = {
    "hf:{}/p.parquet": parquet,
    "npz:{}/p.npz": npz,
    "zip:{}/p.zip": archive,
    "wds:{}/p.tar": tarred,
}


def put(spec: str, folder: Path, order: Sequence[int]) -> Path:
    """Write a file aside, as old as another, and put it in place as a whole."""
    path = Path(spec.partition(":")[2].format(folder))
    KINDS[spec](aside := path.with_name(f"aside{path.suffix}"), order)
    os.utime(aside, (1e9, 1e9))
    aside.replace(path)
    return path


def wrong(listing: Listing, label_of: dict[str, int]) -> list[str]:
    """Return the images that have the label of another."""
    rows = zip(listing.ids, listing.hashes, listing.labels, strict=True)
    return [i for i, content, label in rows if label_of.get(content, label) != label]


def labels(spec: str, folder: Path) -> dict[str, int]:
    put(spec, folder, ORDER)
    listing = build_listing(open_dataset(spec.format(folder), root=folder), workers=1)
    return dict(zip(listing.hashes, listing.labels.tolist(), strict=True))


@pytest.mark.parametrize("spec", KINDS)
def test_no_label_comes_to_an_image_that_was_put_in_its_place(tmp_path: Path, spec: str) -> None:
    label_of = labels(spec, tmp_path)
    dataset = open_dataset(spec.format(tmp_path), root=tmp_path)
    put(spec, tmp_path, OTHER)
    try:
        listing = build_listing(dataset, workers=1)
    except SourceError:  # the file has changed
        return
    assert not wrong(listing, label_of)


@pytest.mark.parametrize("spec", KINDS)
def test_no_hash_is_remembered_for_an_image_that_was_put_in_its_place(
    tmp_path: Path, spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "RACY_SECONDS", 0.0)  # a large data set is hashed for longer
    label_of, known = labels(spec, tmp_path), tmp_path / "hashes.tsv"
    dataset = open_dataset(spec.format(tmp_path), root=tmp_path)
    dataset.samples[0].place.read(IMAGE_FILE)  # hashing has begun
    put(spec, tmp_path, OTHER)
    time.sleep(0.05)
    with suppress(SourceError):
        build_listing(dataset, known=known, workers=1)
    time.sleep(0.05)
    now = open_dataset(spec.format(tmp_path), root=tmp_path)
    assert now.samples[0].place.read(IMAGE_FILE)
    listing = build_listing(now, known=known, workers=1)
    by_id = {s.id: hashlib.sha256(s.place.read(IMAGE_FILE)).hexdigest() for s in now.samples}
    assert dict(zip(listing.ids, listing.hashes, strict=True)) == by_id
    assert not wrong(listing, label_of)


@pytest.mark.parametrize("spec", KINDS)
def test_a_file_that_was_put_in_its_place_is_refused(tmp_path: Path, spec: str) -> None:
    put(spec, tmp_path, ORDER)
    dataset = open_dataset(spec.format(tmp_path), root=tmp_path)
    time.sleep(0.05)
    put(spec, tmp_path, OTHER)
    for sample in dataset.samples[:2]:
        with pytest.raises(SourceError, match="has changed since its labels were read"):
            sample.place.read(IMAGE_FILE)
    with pytest.raises(SourceError, match="has changed since its labels were read"):
        build_listing(dataset, workers=1)

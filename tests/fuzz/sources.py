"""Lists and archives of images that are read in place: seeds of each kind, and what must hold."""

import csv
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from scipy.io import savemat

from featcache.limits import IMAGE_FILE
from featcache.sources.layouts.named.mat_file import read_whole_numbers
from featcache.sources.listing import build_listing
from featcache.sources.registry import open_dataset
from tests.fuzz.cases import Case, writable
from tests.fuzz.guard import Target

IMAGES = {f"{c}/{i}.jpg": b"\xff\xd8\xff" + bytes([i]) + c.encode() for c in "ab" for i in range(4)}
LABELS = {name: name[0] for name in IMAGES}


def _check(spec: str) -> Callable[[Path], None]:
    """List a case and read every image; what is accepted is labelled and can be shown."""

    def run(folder: Path) -> None:
        prefix, _, path = spec.partition(":")
        dataset = open_dataset(f"{prefix}:{folder / path}", root=folder)
        writable([*dataset.classes, *(s.id for s in dataset.samples), *dataset.splits()])
        assert all(-1 <= s.label < len(dataset.classes) for s in dataset.samples)
        assert len({s.id for s in dataset.samples}) == len(dataset.samples)
        for sample in dataset.samples:
            try:
                data = sample.place.read(IMAGE_FILE)
            except OSError:
                continue
            assert isinstance(data, bytes)
        listing = build_listing(dataset, workers=1)
        assert list(build_listing(dataset, listing, workers=1).ids) == list(listing.ids)

    return run


def _zip(method: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in IMAGES.items():
            archive.writestr(name, data)
    return out.getvalue()


def _tar(form: int, more: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, data in {**IMAGES, **more}.items():
            info = tarfile.TarInfo(f"{'long' * 40}/{name}" if form == tarfile.PAX_FORMAT else name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _table(delimiter: str) -> bytes:
    out = io.StringIO()
    rows = csv.writer(out, delimiter=delimiter)
    rows.writerow(("path", "label", "split"))
    rows.writerows((n, c, ("train", "test")[i % 2]) for i, (n, c) in enumerate(LABELS.items()))
    return b"\xef\xbb\xbf" + out.getvalue().encode()


def _coco() -> bytes:
    return json.dumps(
        {
            "images": [{"id": i, "file_name": name} for i, name in enumerate(IMAGES)],
            "categories": [{"id": 3, "name": "ant"}, {"id": 1, "name": "bee"}],
            "annotations": [
                {"image_id": i, "category_id": 3 if name[0] == "a" else 1}
                for i, name in enumerate(IMAGES)
            ],
        }
    ).encode()


def _studio() -> list[bytes]:
    small = [{"image": f"/data/upload/1/{n}", "choice": c} for n, c in LABELS.items()]
    whole = [
        {
            "data": {"image": name},
            "annotations": [
                {"result": [{"type": "choices", "from_name": "c", "value": {"choices": [label]}}]}
            ],
        }
        for name, label in LABELS.items()
    ]
    return [json.dumps(value).encode() for value in (small[:1] + small[4:5], whole)]


def _fiftyone() -> Case:
    labels = {name.rpartition(".")[0]: "ab".index(name[0]) for name in IMAGES}
    value = {"classes": ["ant", "bee"], "labels": labels}
    return {
        "labels.json": json.dumps(value).encode(),
        **{f"data/{n}": d for n, d in IMAGES.items()},
    }


def _shards() -> list[Case]:
    more = {f"{n.rpartition('.')[0]}.cls": str("ab".index(n[0])).encode() for n in IMAGES}
    said = {f"{n.rpartition('.')[0]}.cls": n[:1].encode() for n in IMAGES}
    return [
        {"train/0.tar": _tar(tarfile.GNU_FORMAT, more), "classnames.txt": b"ant\nbee\n"},
        {"0.tar": _tar(tarfile.USTAR_FORMAT, said)},
    ]


def _npz() -> bytes:
    out = io.BytesIO()
    pixels = np.arange(8 * 4 * 3, dtype=np.uint8).reshape(8, 4, 3)
    np.savez_compressed(
        out, train_images=pixels, train_labels=np.arange(8) % 2, test_images=pixels[:2, ::-1],
        test_labels=np.arange(2)[:, None],
    )  # fmt: skip
    return out.getvalue()


def _parquet() -> list[Case]:
    import pyarrow as pa
    from pyarrow import parquet as pq

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    said = {"info": {"features": {"label": {"names": ["ant", "bee"], "_type": "ClassLabel"}}}}
    cases = []
    for labels in ([0, 1] * 4, ["ant", "bee"] * 4):
        rows = [{"bytes": data, "path": name} for name, data in IMAGES.items()]
        table = pa.table({"image": pa.array(rows, image), "label": labels})
        if labels[0] == 0:
            table = table.replace_schema_metadata({"huggingface": json.dumps(said)})
        out = io.BytesIO()
        pq.write_table(table, out, row_group_size=3)
        cases.append({"train.parquet": out.getvalue()})
    return cases


def _beside(file: str, *contents: bytes) -> Callable[[Path], list[Case]]:
    return lambda _: [{file: content, **IMAGES} for content in contents]


def _alone(file: str, *contents: bytes) -> Callable[[Path], list[Case]]:
    return lambda _: [{file: content} for content in contents]


def _target(spec: str, seeds: Callable[[Path], list[Case]], *, is_folder: bool = False) -> Target:
    name = f"images-{spec.partition(':')[0]}"
    return Target(name=name, run=_check(spec), seeds=seeds, is_folder=is_folder)


def _mat(folder: Path) -> None:
    arrays = read_whole_numbers((folder / "p.mat").read_bytes(), "p.mat")
    assert all(numbers.ndim == 1 and numbers.dtype == np.int64 for numbers in arrays.values())


def _mat_files() -> list[bytes]:
    files = []
    for is_packed in (False, True):
        out = io.BytesIO()
        ids = np.arange(60, dtype=np.uint16)
        savemat(out, {"ids": ids, "label": [[1.0, 2.0]], "s": {"a": 1}}, do_compression=is_packed)
        files.append(out.getvalue())
    return files


SOURCE_TARGETS = (
    Target(name="mat", run=_mat, seeds=_alone("p.mat", *_mat_files())),
    _target("zip:p.zip", _alone("p.zip", _zip(zipfile.ZIP_STORED), _zip(zipfile.ZIP_DEFLATED))),
    _target(
        "tar:p.tar",
        _alone("p.tar", *(_tar(form, {}) for form in (tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT))),
    ),
    _target("csv:list.csv", _beside("list.csv", _table(","), _table(";"))),
    _target("coco:list.json", _beside("list.json", _coco())),
    _target("labelstudio:list.json", _beside("list.json", *_studio())),
    _target("fiftyone:.", lambda _: [_fiftyone()], is_folder=True),
    _target("wds:.", lambda _: _shards(), is_folder=True),
    _target("npz:p.npz", _alone("p.npz", _npz())),
    *([_target("hf:.", lambda _: _parquet())] if find_spec("pyarrow") is not None else []),
)

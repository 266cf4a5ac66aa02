"""Hugging Face's forms: parquet shards, metadata, class folders, and what is refused."""

import json
import sys
import tracemalloc
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.errors import SourceError
from featcache.limits import IMAGE_FILE
from featcache.sources.base import Dataset
from featcache.sources.layouts.own import parquet_place
from featcache.sources.layouts.own.huggingface import open_huggingface

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def parquet(
    path: Path,
    columns: Mapping[str, Any],
    features: Mapping[str, object] | None = None,
    **options: Any,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(dict(columns))
    if features is not None:
        info = {"info": {"features": dict(features)}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(table, path, **options)
    return path


def images(names: Sequence[str]) -> Any:
    return pa.array([{"bytes": n.encode(), "path": f"{n}.jpg"} for n in names], IMAGE)


def class_label(*names: str) -> dict[str, object]:
    return {"names": list(names), "_type": "ClassLabel"}


def shard(root: Path, name: str, keys: Sequence[str], labels: Sequence[int | None]) -> Path:
    features = {"image": {"_type": "Image"}, "label": class_label("dog", "cat", "red_fox")}
    columns = {"image": images(keys), "label": pa.array(labels, pa.int64())}
    return parquet(root / name, columns, features, row_group_size=2)


def rows(data: Dataset) -> dict[str, tuple[str, str]]:
    return {s.id: (data.classes[s.label] if s.label >= 0 else "", s.split) for s in data.samples}


def refusal(path: Path | str, **options: str) -> str:
    with pytest.raises(SourceError) as caught:
        open_huggingface(str(path), options)
    return str(caught.value)


def touch(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(file.encode())
    return root


def test_shards_with_class_names_in_the_schema(tmp_path: Path) -> None:
    shard(tmp_path, "data/train-00000-of-00002.parquet", ["a", "b", "c"], [0, 1, 2])
    shard(tmp_path, "data/train-00001-of-00002.parquet", ["d", "e"], [1, -1])
    shard(tmp_path, "data/validation-00000-of-00001.parquet", ["f"], [0])
    shard(tmp_path, "data/test-00000-of-00001.parquet", ["g"], [2])
    data = open_huggingface(str(tmp_path), {})
    assert data.classes == ("dog", "cat", "red fox")
    found = rows(data)
    assert found["data/train-00000-of-00002.parquet/1"] == ("cat", "train")
    assert found["data/train-00001-of-00002.parquet/1"] == ("", "train")
    assert found["data/validation-00000-of-00001.parquet/0"] == ("dog", "val")
    assert [s.place.read(IMAGE_FILE) for s in data.samples] == [c.encode() for c in "abcdefg"]
    assert all(s.place.size() == 1 for s in data.samples)


def test_one_file_and_a_pattern(tmp_path: Path) -> None:
    shard(tmp_path, "train-0.parquet", ["a", "b"], [0, 1])
    shard(tmp_path, "train-1.parquet", ["c", "d"], [0, 1])
    assert len(open_huggingface(str(tmp_path / "train-0.parquet"), {}).samples) == 2
    assert len(open_huggingface(f"{tmp_path}/train-{{0..1}}.parquet", {}).samples) == 4


def test_images_are_read_in_any_order_and_from_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_place, "KEPT", 40)
    monkeypatch.setattr(parquet_place, "OPEN", 1)
    for i in range(3):
        keys = [f"image {i}.{j}" for j in range(15)]
        shard(tmp_path, f"train-{i}.parquet", keys, [j % 3 for j in range(15)])
    data = open_huggingface(str(tmp_path), {})
    order = np.random.default_rng(0).permutation(len(data.samples)).tolist()
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda i: data.samples[i].place.read(IMAGE_FILE), order))
    expected = {
        f"train-{i}.parquet/{j}": f"image {i}.{j}".encode() for i in range(3) for j in range(15)
    }
    assert read == [expected[data.samples[i].id] for i in order]


def test_what_is_kept_of_decoded_images_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_place, "KEPT", 1 << 20)
    keys = [f"{i:04d}" + "x" * 100_000 for i in range(80)]
    columns = {"image": images(keys), "label": pa.array([i % 2 for i in range(80)])}
    path = parquet(tmp_path / "train.parquet", columns)
    del keys, columns
    data = open_huggingface(str(path), {})
    tracemalloc.start()
    for sample in data.samples:
        assert len(sample.place.read(IMAGE_FILE)) == 100_004
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 << 20


def test_names_as_labels(tmp_path: Path) -> None:
    columns = {"img": images("abc"), "class": pa.array(["3", "cat", None])}
    path = parquet(tmp_path / "x.parquet", columns)
    assert sorted(v[0] for v in rows(open_huggingface(str(path), {})).values()) == ["", "3", "cat"]
    encoded = {"img": images("abc"), "class": pa.array(["dog", "cat", "dog"]).dictionary_encode()}
    data = open_huggingface(str(parquet(tmp_path / "x.parquet", encoded)), {})
    assert data.classes == ("cat", "dog")


def test_plain_bytes_as_images(tmp_path: Path) -> None:
    columns = {"jpg": pa.array([b"a", b"b"]), "cls": pa.array([0, 1]), "id": pa.array([7, 8])}
    path = parquet(tmp_path / "x.parquet", columns)
    assert "no column that usually holds the label" in refusal(path)
    data = open_huggingface(str(path), {"label": "cls"})
    assert {s.place.read(IMAGE_FILE) for s in data.samples} == {b"a", b"b"}


def test_a_label_that_is_not_clear_is_asked_for(tmp_path: Path) -> None:
    columns = {
        "img": images("ab"),
        "fine_label": pa.array([0, 1]),
        "coarse_label": pa.array([0, 0]),
    }
    features = {"fine_label": class_label("cat", "dog"), "coarse_label": class_label("pet")}
    path = parquet(tmp_path / "x.parquet", columns, features)
    message = refusal(path)
    assert "'fine_label', 'coarse_label'" in message
    assert f"hf:{path}?label=fine_label" in message
    assert open_huggingface(str(path), {"label": "fine_label"}).classes == ("cat", "dog")


def test_an_image_that_is_not_clear_is_asked_for(tmp_path: Path) -> None:
    columns = {"image": images("ab"), "mask": images("cd"), "label": pa.array([0, 1])}
    path = parquet(tmp_path / "x.parquet", columns)
    assert f"hf:{path}?image=image" in refusal(path)
    data = open_huggingface(str(path), {"image": "mask"})
    assert {s.place.read(IMAGE_FILE) for s in data.samples} == {b"c", b"d"}
    columns = {"text": pa.array(["a", "b"]), "label": pa.array([0, 1])}
    assert "no column of images" in refusal(parquet(tmp_path / "x.parquet", columns))


def test_images_beside_the_parquet_file(tmp_path: Path) -> None:
    touch(tmp_path, "data/a.jpg", "data/b.jpg")
    values = [{"bytes": None, "path": "a.jpg"}, {"bytes": None, "path": "b.jpg"}]
    columns = {"image": pa.array(values, IMAGE), "label": pa.array([0, 1])}
    parquet(tmp_path / "data/train.parquet", columns)
    data = open_huggingface(str(tmp_path), {})
    assert {s.place.read(IMAGE_FILE) for s in data.samples} == {b"data/a.jpg", b"data/b.jpg"}
    values[1]["path"] = "../../secret.jpg"
    columns["image"] = pa.array(values, IMAGE)
    parquet(tmp_path / "data/train.parquet", columns)
    assert "outside" in refusal(tmp_path)


def test_an_image_without_bytes_is_unreadable_alone(tmp_path: Path) -> None:
    values = [{"bytes": b"a", "path": None}, {"bytes": None, "path": None}]
    columns = {"image": pa.array(values, IMAGE), "label": pa.array([0, 1])}
    data = open_huggingface(str(parquet(tmp_path / "x.parquet", columns)), {})
    assert data.samples[0].place.read(IMAGE_FILE) == b"a"
    with pytest.raises(OSError, match="holds no bytes"):
        data.samples[1].place.read(IMAGE_FILE)


def test_shards_of_two_data_sets(tmp_path: Path) -> None:
    shard(tmp_path, "default/train/0000.parquet", ["a", "b"], [0, 1])
    shard(tmp_path, "small/train/0000.parquet", ["a", "b"], [0, 1])
    message = refusal(tmp_path)
    assert "default/, small/" in message
    assert f"hf:{tmp_path}/default" in message
    data = open_huggingface(str(tmp_path / "default"), {})
    assert {s.split for s in data.samples} == {"train"}
    (tmp_path / "one").mkdir()
    shard(tmp_path, "one/train-0.parquet", ["a"], [0])
    columns = {"image": images("b"), "label": pa.array([0])}
    parquet(tmp_path / "one/train-1.parquet", columns, {"label": class_label("other")})
    assert "other columns or class names" in refusal(tmp_path / "one")


@pytest.mark.parametrize("file", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_images_with_metadata(tmp_path: Path, file: str) -> None:
    touch(tmp_path, "train/a.jpg", "train/sub/b.jpg", "test/c.jpg")
    tables = {"train": {"a.jpg": "cat", "sub/b.jpg": "dog"}, "test": {"c.jpg": "dog"}}
    for split, listed in tables.items():
        path = tmp_path / split / file
        if file.endswith("csv"):
            path.write_text("file_name,label\n" + "".join(f"{k},{v}\n" for k, v in listed.items()))
        elif file.endswith("jsonl"):
            lines = [json.dumps({"file_name": k, "label": v}) for k, v in listed.items()]
            path.write_text("\n".join(lines) + "\n")
        else:
            columns = {
                "file_name": pa.array(list(listed)),
                "label": pa.array(list(listed.values())),
            }
            parquet(path, columns)
    found = rows(open_huggingface(str(tmp_path), {}))
    assert found["test/c.jpg"] == ("dog", "test")
    assert set(found) == {"train/a.jpg", "train/sub/b.jpg", "test/c.jpg"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"file_name": "../x.jpg", "label": "cat"}', "outside"),
        ('{"file_name": "a.jpg", "label": ["cat"]}', "multi-label"),
        ('{"file_name": "a.jpg"', "could not be read as JSON"),
        ('{"file_name": "a.jpg", "text": "a cat"}', "no column that usually holds the label"),
        ('{"file_name": null, "label": "cat"}', "names no file"),
        ("[]", "no JSON object"),
    ],
)
def test_broken_metadata(tmp_path: Path, line: str, expected: str) -> None:
    touch(tmp_path, "train/a.jpg")
    (tmp_path / "train/metadata.jsonl").write_text(line + "\n")
    assert expected in refusal(tmp_path)


def test_two_tables_in_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "metadata.csv", "metadata.jsonl")
    assert "both metadata.csv and metadata.jsonl" in refusal(tmp_path)


def test_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "test/cat/2.jpg", "test/dog/2.jpg")
    data = open_huggingface(str(tmp_path), {})
    assert data.classes == ("cat", "dog")
    assert data.splits()[0] == "train"


def test_a_loading_script_is_not_run(tmp_path: Path) -> None:
    shard(tmp_path, "train.parquet", ["a", "b"], [0, 1])
    (tmp_path / "convert.py").write_text("print('helper')\n")
    assert len(open_huggingface(str(tmp_path), {}).samples) == 2
    (tmp_path / "pets.py").write_text("class P(datasets.GeneratorBasedBuilder):\n    pass\n")
    message = refusal(tmp_path)
    assert "loading script pets.py" in message
    assert "refs/convert/parquet" in message


def test_saved_to_disk(tmp_path: Path) -> None:
    touch(tmp_path, "state.json", "dataset_info.json", "data-00000-of-00001.arrow")
    assert "save_to_disk" in refusal(tmp_path)


def test_a_folder_that_is_not_there() -> None:
    assert "its name on the hub as owner/name" in refusal("/nowhere/at/all")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\0" * 100 + b"PAR1", b"x" * 1000])
def test_no_parquet(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.parquet").write_bytes(content)
    assert "could not be read as parquet" in refusal(tmp_path / "x.parquet")


def test_an_empty_table(tmp_path: Path) -> None:
    columns = {"image": pa.array([], IMAGE), "label": pa.array([], pa.int64())}
    assert "lists no image" in refusal(parquet(tmp_path / "x.parquet", columns))
    assert "no images" in refusal(touch(tmp_path / "empty", "README.md"))


def test_a_damaged_page_is_an_error_of_reading(tmp_path: Path) -> None:
    keys = [f"{i}" + "x" * 1000 for i in range(20)]
    columns = {"label": pa.array([i % 2 for i in range(20)]), "image": images(keys)}
    path = parquet(tmp_path / "x.parquet", columns, compression="zstd", use_dictionary=False)
    facts = pq.ParquetFile(path).metadata.row_group(0).column(1)
    content = bytearray(path.read_bytes())
    start = facts.data_page_offset
    content[start : start + facts.total_compressed_size] = b"\xff" * facts.total_compressed_size
    path.write_bytes(content)
    data = open_huggingface(str(path), {})  # the bytes of images are not read for the listing
    assert len(data.samples) == 20
    with pytest.raises(OSError, match="could not be read as parquet"):
        data.samples[0].place.read(IMAGE_FILE)


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shard(tmp_path, "train.parquet", ["a", "b"], [0, 1])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'featcache[data]'" in refusal(path)


def test_an_old_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shard(tmp_path, "train.parquet", ["a", "b"], [0, 1])
    monkeypatch.setattr(pa, "__version__", "14.0.0")
    assert "from 14.0.1 on, and 14.0.0 is installed" in refusal(path)


def test_a_link_to_a_script_is_not_opened(tmp_path: Path) -> None:
    script = tmp_path / "elsewhere.py"
    script.write_text("class Mine(GeneratorBasedBuilder): pass")
    root = touch(tmp_path / "set", "train/ant/1.jpg", "train/bee/1.jpg")
    (root / "load.py").symlink_to(script)
    assert open_huggingface(str(root), {}).classes == ("ant", "bee")
    (root / "set.py").symlink_to(script)
    assert "loading script set.py" in refusal(root)


def test_a_label_longer_than_any_name(tmp_path: Path) -> None:
    columns = {"image": images(["a", "b"]), "label": pa.array(["x", "y" * (1 << 21)])}
    path = parquet(tmp_path / "x.parquet", columns)
    assert "'label'" in (said := refusal(path))
    assert "a value of 2097152 bytes" in said
    columns["label"] = columns["label"].dictionary_encode()
    assert "a value of 2097152 bytes" in refusal(parquet(tmp_path / "y.parquet", columns))

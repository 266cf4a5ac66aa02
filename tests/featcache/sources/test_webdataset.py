"""Shards of webdataset: the layouts of CLIP_benchmark and img2dataset, and unsound shards."""

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from featcache.errors import SourceError
from featcache.limits import IMAGE_FILE
from featcache.sources.base import Dataset
from featcache.sources.layouts.own.shards import expand_braces
from featcache.sources.layouts.own.webdataset import open_webdataset
from featcache.sources.prefixes.folder import open_folder


def shard(path: Path, *members: tuple[str, bytes | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


Member = tuple[str, bytes | str]


def sample(key: str, label: str) -> list[tuple[str, bytes | str]]:
    return [(f"{key}.cls", label), (f"{key}.webp", f"image {key}")]


def benchmark(root: Path) -> Path:
    """CLIP_benchmark's layout."""
    for split, counts in (("train", (3, 2)), ("test", (2,))):
        for number, count in enumerate(counts):
            members = [m for i in range(count) for m in sample(f"s{number}{i:06d}", str(i % 2))]
            shard(root / split / f"{number}.tar", *members)
        (root / split / "nshards.txt").write_text(f"{len(counts)}\n")
    (root / "classnames.txt").write_text("missile\ncat\nmissile\n")
    (root / "zeroshot_classification_templates.txt").write_text("a bad photo of a {c}.\n{c}.\n")
    return root


def refusal(path: Path | str, **options: str) -> str:
    with pytest.raises(SourceError) as caught:
        open_webdataset(str(path), options)
    return str(caught.value)


def labels(data: Dataset) -> dict[str, str]:
    return {s.id: data.classes[s.label] if s.label >= 0 else "" for s in data.samples}


def test_clip_benchmarks_layout(tmp_path: Path) -> None:
    data = open_webdataset(str(benchmark(tmp_path)), {})
    assert data.classes == ("missile", "cat", "missile")
    assert data.templates == ("a bad photo of a {}.", "{}.")
    assert Counter(s.split for s in data.samples)["test"] == 2
    first = min(data.samples, key=lambda s: s.id.replace("test", "zz"))
    assert first.id == "train/0.tar/s0000000.webp"
    assert first.place.read(IMAGE_FILE) == b"image s0000000"
    assert first.place.container == tmp_path / "train/0.tar"


def test_a_missing_shard_is_said(tmp_path: Path) -> None:
    (benchmark(tmp_path) / "train/1.tar").unlink()
    assert "says 2 shards, and 1 are there" in refusal(tmp_path)


def test_members_in_any_order(tmp_path: Path) -> None:
    members = [*sample("a", "0"), *sample("b", "1"), *sample("x.y/c", "1")]
    path = shard(tmp_path / "0.tar", *members[::2], *members[1::2])
    assert labels(open_webdataset(str(path), {})) == {
        "0.tar/a.webp": "0",
        "0.tar/b.webp": "1",
        "0.tar/x.y/c.webp": "1",
    }


def test_a_mask_is_no_image_of_its_own(tmp_path: Path) -> None:
    members = [*sample("a", "0"), ("a.seg.png", b"mask"), *sample("b", "1"), ("README", b"x")]
    data = open_webdataset(str(shard(tmp_path / "0.tar", *members)), {})
    assert [s.id for s in data.samples] == ["0.tar/a.webp", "0.tar/b.webp"]


def test_several_images_are_asked_about(tmp_path: Path) -> None:
    path = shard(tmp_path / "0.tar", *sample("a", "0"), ("a.jpg", b"jpeg"), *sample("b", "1"))
    assert f"wds:{path}?image=webp" in refusal(path)
    assert len(open_webdataset(str(path), {"image": "webp"}).samples) == 2


def test_shards_by_braces(tmp_path: Path) -> None:
    for i in range(8, 12):
        shard(tmp_path / f"x-{i:06d}.tar", *sample("a", "cat"), *sample("b", "dog"))
    data = open_webdataset(f"{tmp_path}/x-{{000008..000011}}.tar", {})
    assert len(data.samples) == 8
    assert data.classes == ("cat", "dog")
    assert "2 of the 6 shards" in refusal(f"{tmp_path}/x-{{000006..000011}}.tar")
    assert "names no shards" in refusal(f"{tmp_path}/x-{{9..3}}.tar")
    assert len(expand_braces("{0..1}/{00..10}.tar")) == 22
    assert "more than" in refusal(f"{tmp_path}/{{0..999}}/{{0..999}}.tar")


def test_splits_from_names(tmp_path: Path) -> None:
    shard(tmp_path / "mini-train-000000.tar", *sample("a", "cat"), *sample("b", "dog"))
    shard(tmp_path / "mini-val-000000.tar", *sample("a", "cat"))
    shard(tmp_path / "mini-test-000000.tar", *sample("b", "dog"))
    data = open_webdataset(str(tmp_path), {})
    assert Counter(s.split for s in data.samples) == {"train": 2, "val": 1, "test": 1}


def test_img2dataset_takes_a_label_from_its_json(tmp_path: Path) -> None:
    def meta(**fields: object) -> str:
        return json.dumps({"url": "https://x.org/1", "caption": "a cat", **fields})

    members: list[Member] = [
        ("000000000.jpg", b"0"),
        ("000000000.txt", "a cat"),
        ("000000000.json", meta(kind="cat")),
        ("000000001.jpg", b"1"),
        ("000000001.json", meta(kind=None)),
    ]
    path = shard(tmp_path / "00000.tar", *members)
    message = refusal(path)
    assert "'url', 'caption', 'kind'" in message
    assert f"wds:{path}?label=FIELD" in message
    data = open_webdataset(str(path), {"label": "kind"})
    assert labels(data) == {"00000.tar/000000000.jpg": "cat", "00000.tar/000000001.jpg": ""}
    assert "no field 'nope'" in refusal(path, label="nope")


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([("a.jpg", b"x")], "has no label; expected a.cls"),
        ([("a.jpg", b"x"), ("a.npy", b"\x93NUMPY")], "multi-label"),
        ([("a.jpg", b"x"), ("a.cls", b"\xff\xfe")], "not text"),
        ([("a.jpg", b"x"), ("a.cls", b"")], "no label for any"),
        ([("a.jpg", b"x"), ("a.cls", b"1"), ("b.jpg", b"x"), ("b.cls", b"cat")], "mixes labels"),
        ([("a.jpg", b"x"), ("a.cls", b"9" * (2 << 20))], "more than"),
        ([("a.jpg", b"x"), ("a.json", b"[1]")], "no JSON object"),
        ([("a.jpg", b"x"), ("a.json", b"[" * 100_000)], "could not be read as JSON"),
        ([("../a.jpg", b"x"), ("../a.cls", b"1")], "0.tar"),
        ([("/a.jpg", b"x"), ("/a.cls", b"1")], "0.tar"),
        ([("a.jpg", b"x"), ("a.cls", b"1"), ("a.jpg", b"y")], "0.tar"),
        ([("a.txt", b"x")], "lists no image"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, members: list[tuple[str, bytes | str]], expected: str
) -> None:
    assert expected in refusal(shard(tmp_path / "0.tar", *members))


def test_labels_beyond_the_class_names(tmp_path: Path) -> None:
    benchmark(tmp_path)
    shard(tmp_path / "test/0.tar", *sample("s1", "7"))
    assert "label '7' (sample 1)" in refusal(tmp_path)


def test_damaged_and_compressed_shards(tmp_path: Path) -> None:
    path = shard(tmp_path / "0.tar", *sample("a", "0"))
    path.write_bytes(path.read_bytes()[:1540])
    assert "cut off" in refusal(path)
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.jpg"))
    assert "gzip" in refusal(path)


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("dataset_type.txt", "retrieval", "for retrieval"),
        ("train/nshards.txt", "many", "expected a number of shards"),
        ("classnames.txt", "", "no class name"),
        ("zeroshot_classification_templates.txt", "no place\n", "exactly one {}"),
    ],
)
def test_lists_beside_the_shards(tmp_path: Path, file: str, text: str, expected: str) -> None:
    (benchmark(tmp_path) / file).write_text(text)
    assert expected in refusal(tmp_path)


def test_no_shards(tmp_path: Path) -> None:
    assert "has no shards" in refusal(tmp_path)
    assert "1 of the 1 shards" in refusal(tmp_path / "x.tar")


@pytest.mark.parametrize("name", ["a.tar", "train/00.TAR"])
def test_a_folder_of_shards_is_told_the_prefix_that_reads_them(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(SourceError, match=r"has no images but \.tar files") as caught:
        open_folder(tmp_path)
    assert f"Read shards of webdataset with dataset='wds:{tmp_path}'" in str(caught.value)


def test_a_tar_file_beside_images_is_no_shard(tmp_path: Path) -> None:
    for name in ("a.jpg", "all.tar"):
        (tmp_path / name).touch()
    with pytest.raises(SourceError, match="has images directly in it but no class folders"):
        open_folder(tmp_path)

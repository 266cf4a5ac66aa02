"""What users name becomes images one by one; what cannot be used says why and stops nothing."""

import io
import os
import tarfile
import zipfile
from itertools import count, islice
from pathlib import Path

import pytest

from featcache.errors import SourceError, UnknownNameError, UsageError
from featcache.sources.queries.image import QueryImage
from featcache.sources.queries.opening import is_source, of_lines, open_queries

BYTES = b"whatever"
"""Nothing is decoded here."""


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(BYTES)
    return root


def opened(text: Path | str, **options: object) -> list[QueryImage]:
    return list(open_queries(str(text), Path("/nowhere"), **options).images)  # type: ignore[arg-type]


def labels(images: list[QueryImage]) -> list[str | None]:
    return [image.label for image in images]


def test_a_plain_folder_needs_no_classes(tmp_path: Path) -> None:
    make(tmp_path / "new", "b.jpg", "a.png", "notes.txt", ".hidden.jpg")
    found = opened(tmp_path / "new")
    assert [image.id for image in found] == [f"{tmp_path}/new/a.png", f"{tmp_path}/new/b.jpg"]
    assert labels(found) == [None, None]


def test_class_folders_and_split_folders_are_labels(tmp_path: Path) -> None:
    make(tmp_path / "new", "red_fox/1.jpg", "cat/deep/2.jpg", "loose.jpg", "train/dog/3.jpg",
         "val/dog/4.jpg", "test/5.jpg")  # fmt: skip
    found = {Path(i.id).name: i.label for i in opened(f"folder:{tmp_path}/new/")}
    assert found == {"1.jpg": "red fox", "2.jpg": "cat", "loose.jpg": None, "3.jpg": "dog",
                     "4.jpg": "dog", "5.jpg": None}  # fmt: skip


def test_a_folder_without_images_is_told_at_once(tmp_path: Path) -> None:
    make(tmp_path / "new", "notes.md", "raw/1.cr2")
    with pytest.raises(SourceError, match=r"no images in it.*\.cr2"):
        open_queries(str(tmp_path / "new"), tmp_path)
    with pytest.raises(SourceError, match="no folder"):
        open_queries(f"folder:{tmp_path}/none", tmp_path)


def test_links_in_circles_pipes_and_closed_folders_stop_nothing(tmp_path: Path) -> None:
    root = make(tmp_path / "new", "a/1.jpg", "closed/2.jpg", "z/3.jpg")
    (root / "a" / "round").symlink_to(root)
    (root / "out.jpg").symlink_to("/etc/hostname")
    os.mkfifo(root / "pipe.jpg")
    (root / "closed").chmod(0)
    try:
        queries = open_queries(str(root), tmp_path)
        found = [Path(image.id).name for image in queries.images]
    finally:
        (root / "closed").chmod(0o755)
    said = " ".join(queries.notes())
    if os.geteuid():
        assert found == ["1.jpg", "3.jpg"]
        assert "1 folders in" in said
    assert "2 links" in said
    assert "pipe.jpg" in said


def test_names_are_on_one_line(tmp_path: Path) -> None:
    make(tmp_path / "new", "line\nbreak.jpg", "\x1b]0;x\x07.jpg")
    for image in opened(tmp_path / "new"):
        assert image.id.isprintable()
        assert image.place is not None
        assert image.place.container.exists()


def test_archives_are_read_in_place(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "new.zip", "w") as archive:
        for name in ("photos/ant/1.jpg", "photos/bee/2.jpg"):
            archive.writestr(name, BYTES)
    with tarfile.open(tmp_path / "flat.tar", "w") as tar:
        member = tarfile.TarInfo("3.jpg")
        member.size = len(BYTES)
        tar.addfile(member, io.BytesIO(BYTES))
    assert labels(opened(tmp_path / "new.zip")) == ["ant", "bee"]
    assert labels(opened(f"tar:{tmp_path}/flat.tar")) == [None]
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as archive:
        archive.writestr("a.txt", "")
    with pytest.raises(SourceError, match="no images"):
        opened(tmp_path / "none.zip")


@pytest.mark.parametrize(
    ("table", "options", "expected"),
    [
        ("path,label\n1.jpg,ant\n2.jpg,\n", {}, ["ant", None]),
        ("path\n1.jpg\n2.jpg\n", {}, [None, None]),
        ("1.jpg\n2.jpg\n", {}, [None, None]),
        ("1.jpg,red_fox\n2.jpg,bee\n", {}, ["red fox", "bee"]),
        ("where;id\n1.jpg;7\n2.jpg;8\n", {"columns": {"path": "where"}}, [None, None]),
        (
            "f,kind\n1.jpg,ant\n2.jpg,bee\n",
            {"columns": {"path": "f", "label": "kind"}},
            ["ant", "bee"],
        ),
        ("path,label,split\n1.jpg,ant,train\n2.jpg,bee,test\n", {"split": "test"}, ["bee"]),
        ("path,label\n1.jpg,3\n2.jpg,4.0\n", {}, ["3", "4"]),
    ],
)
def test_tables_with_and_without_labels(
    tmp_path: Path, table: str, options: dict[str, object], expected: list[str | None]
) -> None:
    make(tmp_path, "1.jpg", "2.jpg")
    (tmp_path / "new.csv").write_text(table)
    found = opened(tmp_path / "new.csv", **options)
    assert labels(found) == expected
    assert all(image.place is not None for image in found)


def test_rows_without_a_file_are_images_with_a_reason(tmp_path: Path) -> None:
    make(tmp_path / "in", "1.jpg")
    make(tmp_path, "secret.jpg")
    rows = ["path", "1.jpg", "none.jpg", "../secret.jpg", "/etc/hostname", "http://a.b/c.jpg"]
    (tmp_path / "in" / "new.csv").write_text("\n".join(rows))
    usable, *others = opened(tmp_path / "in" / "new.csv")
    assert usable.place is not None
    assert [image.id for image in others] == rows[2:]
    for image, why in zip(others, ("no such file", "outside", "outside", "address"), strict=True):
        assert image.place is None
        assert why in image.reason


def test_options_behind_a_table(tmp_path: Path) -> None:
    make(tmp_path / "photos", "1.jpg")
    (tmp_path / "names.txt").write_text("ant\nbee\n")
    (tmp_path / "new.csv").write_text("path,label\n1.jpg,1\n")
    options = f"root={tmp_path}/photos&names={tmp_path}/names.txt"
    (found,) = opened(f"{tmp_path}/new.csv?{options}")
    assert found.label == "bee"
    assert found.place is not None


@pytest.mark.parametrize(
    ("table", "options", "says"),
    [
        ("a,b\n1,2\n", {}, "no column that usually holds the path"),
        ("a,b\n1,2\n", {"columns": {"path": "c"}}, "no column 'c'"),
        ("path,label\n1.jpg,x\n", {"split": "test"}, "no column of splits"),
        ("", {}, "empty"),
    ],
)
def test_a_table_without_the_column_is_told_at_once(
    tmp_path: Path, table: str, options: dict[str, object], says: str
) -> None:
    (tmp_path / "new.csv").write_text(table)
    with pytest.raises(SourceError, match=says) as caught:
        open_queries(f"{tmp_path}/new.csv", tmp_path, **options)  # type: ignore[arg-type]
    assert "dataset" not in str(caught.value)  # here it is a path, no argument of that name


def test_a_source_by_its_prefix_brings_its_labels(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, data in (("a.jpg", BYTES), ("a.cls", b"0"), ("b.jpg", BYTES), ("b.cls", b"1")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    assert labels(opened(f"wds:{tmp_path}/0.tar")) == ["0", "1"]
    assert labels(opened(f"wds:{tmp_path}/0.tar", split="train")) == ["0", "1"]
    with pytest.raises(UnknownNameError, match="train"):
        opened(f"wds:{tmp_path}/0.tar", split="trian")


def test_wrong_calls(tmp_path: Path) -> None:
    make(tmp_path, "new/1.jpg")
    with pytest.raises(UnknownNameError, match="folder"):
        open_queries("foldr:new", tmp_path)
    with pytest.raises(UsageError, match="no path"):
        open_queries("folder:", tmp_path)
    with pytest.raises(UsageError, match="no table"):
        open_queries(f"{tmp_path}/new", tmp_path, columns={"path": "a"})
    with pytest.raises(UsageError, match="no splits"):
        open_queries(f"{tmp_path}/new", tmp_path, split="test")


@pytest.mark.parametrize(
    ("text", "several"),
    [("a.jpg", False), ("new.csv", True), ("new.csv?label=x", True), ("x.ZIP", True),
     ("wds:shards/", True), ("", False), ("a\0b", False), ("x" * 5000, False)],
)  # fmt: skip
def test_what_is_more_than_one_file(text: str, several: bool) -> None:
    if text:
        assert is_source(text) == several


def test_paths_from_lines() -> None:
    lines = [b"a.jpg\n", b"\n", b"b c.jpg\r\n", b"caf\xe9.jpg\n", b"nul\0.jpg\n", b"last.jpg"]
    found = list(of_lines(lines).images)
    assert [image.id for image in found] == [
        *("a.jpg", "b c.jpg", r"caf\udce9.jpg", "line 5", "last.jpg")
    ]
    assert [bool(image.reason) for image in found] == [False, False, False, True, False]


def test_a_line_without_end_is_one_image_of_bounded_size() -> None:
    stream = io.BytesIO(b"x" * (1 << 20) + b"\na.jpg\n")
    lines = iter(lambda: stream.readline(1 << 16), b"")
    found = list(of_lines(lines).images)
    assert [image.id for image in found] == ["line 1", "a.jpg"]


def test_lines_are_taken_as_they_come() -> None:
    endless = (b"%d.jpg\n" % n for n in count())
    assert [i.id for i in islice(of_lines(endless).images, 3)] == ["0.jpg", "1.jpg", "2.jpg"]

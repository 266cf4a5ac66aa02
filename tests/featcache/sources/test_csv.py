"""Tables of images: columns, delimiters, labels, splits, and everything odd in such a file."""

import os
from pathlib import Path

import pytest

from featcache.errors import SourceError, UnknownNameError
from featcache.limits import ROWS
from featcache.sources.base import Dataset, FurtherColumns
from featcache.sources.layouts.own.csv_file import OPTIONS, open_csv
from featcache.sources.layouts.own.options import split_options
from featcache.sources.registry import further_columns, open_dataset


def touch(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(file.encode())
    return root


def table(root: Path, text: str, name: str = "photos.csv", encoding: str = "utf-8") -> str:
    (root / name).write_text(text, encoding, newline="")
    return str(root / name)


def rows(dataset: Dataset) -> list[tuple[str, str, str]]:
    """Id, class and split of each image."""
    return [(s.id, dataset.classes[s.label] if s.label >= 0 else "", s.split)
            for s in dataset.samples]  # fmt: skip


def said(dataset: Dataset, what: str) -> bool:
    return any(what in note for note in dataset.notes)


def refusal(path: str, **options: str) -> str:
    with pytest.raises(SourceError) as caught:
        open_csv(path, options)
    return str(caught.value)


ANIMALS = ("c/1.jpg", "c/2.jpg", "d/1.jpg", "d/2.jpg")


@pytest.mark.parametrize(
    ("delimiter", "file"), [(",", "p.csv"), (";", "p.csv"), ("\t", "p.csv"), ("\t", "p.tsv")]
)
def test_path_label_and_split_by_their_usual_names(
    tmp_path: Path, delimiter: str, file: str
) -> None:
    touch(tmp_path, *ANIMALS)
    text = (
        "id,Filename,Class,Set\n1,c/1.jpg,cat,train\n2,d/1.jpg,big_dog,train\n"
        "3,c/2.jpg,cat,valid\n4,d/2.jpg,big_dog,test\n"
    )
    data = open_csv(table(tmp_path, text.replace(",", delimiter), file), {})
    assert data.classes == ("big dog", "cat")
    assert rows(data) == [
        ("c/1.jpg", "cat", "train"),
        ("d/1.jpg", "big dog", "train"),
        ("c/2.jpg", "cat", "val"),
        ("d/2.jpg", "big dog", "test"),
    ]
    assert said(data, "path from 'Filename', label from 'Class', split from 'Set'")
    assert data.samples[0].place.read(ROWS) == b"c/1.jpg"
    assert data.root == tmp_path


def test_columns_are_chosen(tmp_path: Path) -> None:
    touch(tmp_path, *ANIMALS)
    text = "where,what,label,why\nc/1.jpg,cat,x,train\nd/1.jpg,dog,y,train\n"
    path, options = split_options(
        table(tmp_path, text) + "?path=where&label=what&split=why", OPTIONS
    )
    assert rows(open_csv(path, options)) == [
        ("c/1.jpg", "cat", "train"),
        ("d/1.jpg", "dog", "train"),
    ]


def test_an_unclear_column_is_asked_for(tmp_path: Path) -> None:
    touch(tmp_path, *ANIMALS)
    path = table(tmp_path, "path,label,class\nc/1.jpg,cat,x\n")
    message = refusal(path)
    assert "'label', 'class'" in message
    assert f"csv:{path}?label=label" in message
    message = refusal(table(tmp_path, "path,kind\nc/1.jpg,cat\n"))
    assert "no column that usually holds the label" in message
    assert "'path', 'kind'" in message
    assert "no column 'nope'" in refusal(path, label="nope")


def test_a_bom_quotes_and_breaks_in_fields(tmp_path: Path) -> None:
    touch(tmp_path, "c/1, 2.jpg", "d/1.jpg")
    text = 'path,label,remark\r\n"c/1, 2.jpg",cat,"two\r\nlines ""here"""\r\nd/1.jpg,dog,\r\n'
    data = open_csv(table(tmp_path, text, encoding="utf-8-sig"), {})
    assert {r[:2] for r in rows(data)} == {("c/1, 2.jpg", "cat"), ("d/1.jpg", "dog")}


def test_splits_are_made_where_there_are_none(tmp_path: Path) -> None:
    files = [f"{c}/{i:02d}.jpg" for c in "ab" for i in range(10)]
    touch(tmp_path, *files)
    text = "".join(f"{f},{f[0]}\n" for f in ["path", *files]).replace("path,p", "path,label")
    data = open_csv(table(tmp_path, text), {})
    assert [sum(s.split == x for s in data.samples) for x in ("train", "val", "test")] == [10, 4, 6]
    assert said(data, "20 % as val and 30 % as test")


def test_a_split_of_ones_own(tmp_path: Path) -> None:
    touch(tmp_path, *ANIMALS)
    text = "path,label,split\nc/1.jpg,cat,train\nd/1.jpg,dog,train\nc/2.jpg,cat,night shots\n"
    data = open_csv(table(tmp_path, text + "d/2.jpg,dog,test\n"), {})
    assert data.splits() == ("train", "test", "night-shots")


def test_numbers_go_by_size(tmp_path: Path) -> None:
    files = [f"{i}.jpg" for i in range(12)]
    touch(tmp_path, *files)
    text = "path,label,split\n" + "".join(f"{i}.jpg,{i},train\n" for i in range(12))
    data = open_csv(table(tmp_path, text), {})
    assert data.classes == tuple(map(str, range(12)))
    assert said(data, "Labels are numbers")


def test_names_for_numbers(tmp_path: Path) -> None:
    touch(tmp_path, *ANIMALS)
    (tmp_path / "names.txt").write_text("dog\ncat\nfox\n")
    path = table(tmp_path, "path,label,split\nc/1.jpg,1,train\nd/1.jpg,0.0,train\n")
    names = str(tmp_path / "names.txt")
    data = open_csv(path, {"names": names})
    assert data.classes == ("dog", "cat", "fox")
    assert [r[1] for r in rows(data)] == ["cat", "dog"]
    message = refusal(table(tmp_path, "path,label\nc/1.jpg,3\n"), names=names)
    assert "label '3' (line 2)" in message


def test_without_a_header(tmp_path: Path) -> None:
    touch(tmp_path, *ANIMALS)
    data = open_csv(table(tmp_path, "c/1.jpg;cat\nd/1.jpg;dog\n"), {})
    assert {r[:2] for r in rows(data)} == {("c/1.jpg", "cat"), ("d/1.jpg", "dog")}
    path = table(tmp_path, "c/1.jpg,cat,train\nd/1.jpg,dog,train\n")
    assert "its columns are '1', '2', '3'" in refusal(path)
    assert len(open_csv(path, {"label": "2", "split": "3"}).samples) == 2


def test_an_image_listed_twice(tmp_path: Path) -> None:
    touch(tmp_path, *ANIMALS)
    text = "path,label\nc/1.jpg,cat\nd/1.jpg,dog\n./c/1.jpg,cat\n"
    data = open_csv(table(tmp_path, text), {})
    assert len(data.samples) == 2
    assert said(data, "lists 1 image again")
    message = refusal(table(tmp_path, text.replace("./c/1.jpg,cat", "c/1.jpg,dog")))
    assert "c/1.jpg the class 'cat' (line 2) and 'dog' (line 4)" in message
    text = "path,label,split\nc/1.jpg,cat,train\nc/1.jpg,cat,test\n"
    assert "the split 'train' (line 2) and 'test' (line 3)" in refusal(table(tmp_path, text))


def test_missing_images_are_said(tmp_path: Path) -> None:
    touch(tmp_path, "c/1.jpg")
    text = "path,label\nc/1.jpg,cat\nd/8.jpg,dog\nd/9.jpg,dog\n"
    data = open_csv(table(tmp_path, text), {})
    assert [s.id for s in data.samples] == ["c/1.jpg"]
    assert said(data, "2 images that photos.csv lists are not there")


def test_a_moved_root(tmp_path: Path) -> None:
    touch(tmp_path / "images", *ANIMALS)
    path = table(tmp_path, "path,label\nc/1.jpg,cat\nd/1.jpg,dog\n")
    message = refusal(path)
    assert "None of the 2 images" in message
    assert f"csv:{path}?root=FOLDER" in message
    data = open_csv(path, {"root": str(tmp_path / "images")})
    assert data.root == tmp_path / "images"
    assert len(data.samples) == 2


@pytest.mark.parametrize(
    "where", ["/etc/passwd.jpg", "../secret.jpg", "c/../../x.jpg", "C:\\a.jpg"]
)
def test_paths_that_leave_the_folder(tmp_path: Path, where: str) -> None:
    touch(tmp_path, *ANIMALS)
    message = refusal(table(tmp_path, f"path,label\nc/1.jpg,cat\n{where},dog\n"))
    assert "Line 3" in message
    assert "outside" in message


def test_a_link_that_leaves_the_folder_is_missing(tmp_path: Path) -> None:
    touch(tmp_path, "secret/x.jpg", "data/c/1.jpg")
    (tmp_path / "data/c/2.jpg").symlink_to(tmp_path / "secret/x.jpg")
    path = table(tmp_path / "data", "path,label\nc/1.jpg,cat\nc/2.jpg,dog\n")
    data = open_csv(path, {})
    assert [s.id for s in data.samples] == ["c/1.jpg"]


def test_absolute_paths_below_the_root(tmp_path: Path) -> None:
    touch(tmp_path, *ANIMALS)
    text = f"path,label\n{tmp_path}/c/1.jpg,cat\nd\\1.jpg,dog\n"
    data = open_csv(table(tmp_path, text), {})
    assert {s.id for s in data.samples} == {"c/1.jpg", "d/1.jpg"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"path,label\n", "lists no image"),
        (b"path,label\nc/1.jpg,ca\0t\n", "Line 2 of"),
        (b"path,label\nc/1.jpg,ca\xfft\n", "not UTF-8"),
        ("path,label\n".encode("utf-16"), "UTF-16"),
        (b"path,label\nc/1.jpg\n", "has 1 fields and the first row 2"),
        (b"path,label\nc/1.jpg,1\nd/1.jpg,dog\n", "mixes labels that are numbers and names"),
        (b"path,label\nc/1.jpg,\nd/1.jpg,\n", "no label for any"),
        (b"path,label\nc/1.jpg,Cat\nd/1.jpg,cat\n", "differ by case only"),
        (b"path,label\nc/1.jpg,-1\nd/1.jpg,2\n", "count from 0"),
        (b"path,label,split\nc/1.jpg,cat,\nd/1.jpg,dog,test\n", "no split at line 2"),
        (b"path\tlabel,split\nc/1.jpg\tcat,x\n", "comma and tab all divide"),
        (b"path\nc/1.jpg\n", "none divides"),
        (b'path,label\n"c/1.jpg,cat\n', "check its quotes"),
        (b"path,label\n" + b"x" * (1 << 20) + b",cat\n", "more than 1048576 bytes"),
        (b'path,label\nc/1.jpg,"' + b"x\n" * 100_000, "could not be read ("),
        (b"path,label\nhttps://x.org/1.jpg,cat\n", "names the address"),
        (b"path,label\n ,cat\n", "names no file"),
    ],
)
def test_broken_tables(tmp_path: Path, content: bytes, expected: str) -> None:
    touch(tmp_path, *ANIMALS)
    (tmp_path / "photos.csv").write_bytes(content)
    assert expected in refusal(str(tmp_path / "photos.csv"))


def test_a_row_of_another_width_further_down(tmp_path: Path) -> None:
    touch(tmp_path, *ANIMALS)
    text = "path,label\n" + "c/1.jpg,cat\n" * 60 + "c/1.jpg,cat,x\n"
    assert "Line 62" in refusal(table(tmp_path, text))


def test_a_chosen_delimiter(tmp_path: Path) -> None:
    touch(tmp_path, *ANIMALS)
    path = table(tmp_path, "path\tlabel,split\nc/1.jpg\tcat,x\nd/1.jpg\tdog,x\n")
    data = open_csv(path, {"delimiter": "tab", "label": "label,split"})
    assert data.classes == ("cat,x", "dog,x")
    assert "no delimiter 'pipe'" in refusal(path, delimiter="pipe")


def test_roboflow_one_hot_by_split(tmp_path: Path) -> None:
    touch(tmp_path, "train/1.jpg", "train/2.jpg", "valid/1.jpg")
    table(tmp_path, "filename, cat, dog\n1.jpg, 1, 0\n2.jpg, 0, 1\n", "train/_classes.csv")
    table(tmp_path, "filename, cat, dog\n1.jpg, 0, 1\n", "valid/_classes.csv")
    data = open_csv(str(tmp_path), {})
    assert rows(data)[0] == ("train/1.jpg", "cat", "train")
    assert ("valid/1.jpg", "dog", "val") in rows(data)
    table(tmp_path, "filename, cat, dog\n1.jpg, 1, 1\n", "valid/_classes.csv")
    assert "several classes (cat, dog)" in refusal(str(tmp_path))
    table(tmp_path, "filename, cat, dog\n1.jpg, 1, 0.5\n", "valid/_classes.csv")
    assert "'0.5' in the column 'dog'" in refusal(str(tmp_path))
    (tmp_path / "train/_classes.csv").unlink()
    (tmp_path / "valid/_classes.csv").unlink()
    assert "without train/_classes.csv" in refusal(str(tmp_path))


def test_too_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, *ANIMALS)
    monkeypatch.setenv(ROWS.variable, "1")
    message = refusal(table(tmp_path, "path,label\nc/1.jpg,cat\nd/1.jpg,dog\n"))
    assert ROWS.variable in message


def test_options(tmp_path: Path) -> None:
    assert split_options("a.csv", OPTIONS) == ("a.csv", {})
    assert split_options("a?b.csv", OPTIONS) == ("a?b.csv", {})
    (tmp_path / "a?label=1").write_text("")
    assert split_options(f"{tmp_path}/a?label=1", OPTIONS) == (f"{tmp_path}/a?label=1", {})
    with pytest.raises(UnknownNameError, match="did you mean 'label'"):
        split_options("a.csv?labels=x", OPTIONS)
    with pytest.raises(Exception, match="given twice"):
        split_options("a.csv?label=x&label=y", OPTIONS)


def test_names_that_repeat_need_numbers(tmp_path: Path) -> None:
    touch(tmp_path, *ANIMALS)
    (tmp_path / "names.txt").write_text("missile\ncat\nmissile\n")
    names = str(tmp_path / "names.txt")
    path = table(tmp_path, "path,label,split\nc/1.jpg,0,train\nd/1.jpg,2,train\n")
    assert [s.label for s in open_csv(path, {"names": names}).samples] == [0, 2]
    path = table(tmp_path, "path,label\nc/1.jpg,missile\nd/1.jpg,cat\n")
    assert "write the labels as numbers" in refusal(path, names=names)


def test_labels_that_differ_by_leading_zeros_are_not_one_class(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    path = table(tmp_path, "path,label\na.jpg,01\nb.jpg,1\nc.jpg,2\n")
    try:
        classes = open_csv(path, {}).classes
    except SourceError:
        return
    assert len(classes) == 3


def test_a_number_with_and_without_a_fraction_is_one_class(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    path = table(tmp_path, "path,label\na.jpg,3\nb.jpg,3.0\nc.jpg,10\n")
    assert open_csv(path, {}).classes == ("3", "10")
    path = table(tmp_path, "path,label\na.jpg,03\nb.jpg,3\nc.jpg,10\n")
    with pytest.raises(SourceError, match=r"'03' \(line 2\) and '3' \(line 3\)"):
        open_csv(path, {})


def test_further_columns_are_read_by_the_ids_of_the_images(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.jpg", "b.jpg")
    path = table(tmp_path, "x,file,x,label,place,\n1,./a.jpg,2,cat, Rome ,3\n1,b.jpg,2,dog,,3\n")
    data = open_dataset(f"csv:{path}?root={tmp_path / 'in'}", root=tmp_path)
    found = further_columns(data.spec)
    assert found.columns == {"place": {"a.jpg": "Rome", "b.jpg": ""}}
    assert found.left_out == (
        "Several columns of photos.csv are called 'x'; give each a name of its own."
    )
    assert {s.id for s in data.samples} == found.columns["place"].keys()
    assert further_columns(f"folder:{tmp_path}") == FurtherColumns()


def test_a_pipe_is_no_missing_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "list.csv")
    with pytest.raises(SourceError, match=r"list\.csv is no regular file; expected a csv or tsv"):
        further_columns(f"csv:{tmp_path / 'list.csv'}")
    with pytest.raises(SourceError, match=r"there\.csv is not there"):
        further_columns(f"csv:{tmp_path / 'there.csv'}")

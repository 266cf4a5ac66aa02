"""`heads predict`: classes of images, whatever they come as; formats and exit codes."""

import csv
import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

import featcache
import heads
from cli.heads.answers import Columns
from heads.predicted import Candidate, Prediction

Run = Callable[..., Any]


def test_a_folder_with_classes(answered: Run, photos: Path) -> None:
    answer = answered("predict", "last", str(photos))
    assert answer.code == 0, answer.err
    head, *lines = [line.split("\t") for line in answer.out.splitlines()]
    assert head == ["image", "prediction", "%", "then", "label"]
    assert len(lines) == 30
    image, prediction, percent, then, label = lines[0]
    assert image == f"{photos}/lime/0.png"
    assert label == "lime"
    assert {prediction, *(c.rpartition(" ")[0] for c in then.split(", "))} == {
        "lime",
        "plum",
        "rust",
    }
    assert 0 < float(percent) <= 100
    right = sum(line[1] == line[4] for line in lines)
    assert f"top-1 {100 * right / 30:.1f} % ±" in answer.err
    assert "of 30 labelled images." in answer.err
    assert "the first is taken; last@2 is the next" in answer.err


def test_a_cache_gives_what_its_files_give(answered: Run, photos: Path) -> None:
    stored = answered("predict", "last@2", "--dataset", "blobs", "--split", "test", "--json")
    assert stored.code == 0, stored.err
    records = [json.loads(line) for line in stored.out.splitlines()]
    paths = [str(photos / record["image"]) for record in records]
    given = answered("predict", "last@2", *paths, "--json", "-q")
    assert given.err == ""
    again = [json.loads(line) for line in given.out.splitlines()]
    assert [r["candidates"] for r in again] == [r["candidates"] for r in records]
    assert [r["label"] for r in records] == [path.split("/")[-2] for path in paths]
    assert [r["label"] for r in again] == [None] * len(paths)


def test_paths_from_stdin(answered: Run, photos: Path) -> None:
    stdin = f"{photos}/lime/0.png\n\n{photos}/none.png\n".encode()
    answer = answered("predict", "last", "-", "--json", stdin=stdin)
    assert answer.code == 0
    first, second = (json.loads(line) for line in answer.out.splitlines())
    assert first["problem"] == ""
    assert second["problem"] == "cannot be read: No such file or directory"
    assert "1 image of 2 could not be used." in answer.err
    assert answered("predict", "last", "-", stdin=b"").code == 1


def test_files_of_every_format(answered: Run, photos: Path, tmp_path: Path) -> None:
    rows: dict[str, list[dict[str, Any]]] = {}
    for suffix in ("csv", "jsonl", "parquet"):
        out = tmp_path / f"answers.{suffix}"
        answer = answered("predict", "last", str(photos / "rust"), "--top", "2", "--out", str(out))
        assert answer.code == 0, answer.err
        assert answer.out == ""
        if suffix == "csv":
            rows[suffix] = list(csv.DictReader(io.StringIO(out.read_text())))
        elif suffix == "jsonl":
            rows[suffix] = [json.loads(line) for line in out.read_text().splitlines()]
        else:
            rows[suffix] = pyarrow.parquet.read_table(out).to_pylist()
    assert list(rows["csv"][0]) == [
        *("image", "prediction", "probability", "prediction_2", "probability_2"),
        *("label", "problem"),
    ]
    for text, record, row in zip(*rows.values(), strict=True):
        best = record["candidates"][0]
        assert text["image"] == record["image"] == row["image"]
        assert text["prediction"] == best["class"] == row["prediction"]
        assert best["probability"] == row["probability"]
        assert float(text["probability"]) == pytest.approx(best["probability"], abs=1e-8)
        assert row["problem"] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("answers.csv", "answers.jsonl", "answers.parquet")
    ]


@pytest.fixture(scope="module")
def calibrated(quick_home: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file of a head that folds of its shots calibrated."""
    cache = featcache.open("blobs", "tiny", root=quick_home)
    head = heads.fit("gda", cache, shots=4, calibrate_on="folds")
    return str(head.save(tmp_path_factory.mktemp("heads") / "calibrated.head"))


def test_sets_and_none_of_these(
    answered: Run, photos: Path, tmp_path: Path, calibrated: str
) -> None:
    torn = tmp_path / "torn.jpg"
    torn.touch()
    given = [calibrated, str(photos), str(torn), "--coverage", "0.8", "--reject", "0.4"]
    table = answered("predict", *given, "--top", "2", "--rule", "aps")
    assert table.code == 0, table.err
    assert "Folds of 12 training images calibrated this head" in table.err
    assert "hold the right class 80 % of the time, and " in table.err
    assert "on 12 images in 4 folds" in answered("info", calibrated).out
    head, *lines = [line.split("\t") for line in table.out.splitlines()]
    assert head == ["image", "prediction", "%", "then", "set", "label"]
    lined = answered("predict", *given, "--top", "2", "--rule", "aps", "--json")
    records = [json.loads(line) for line in lined.out.splitlines()]
    assert [r.get("set") for r in records][-1] is None
    assert any(r["rejected"] for r in records[:-1])
    for line, record in zip(lines[:-1], records, strict=False):
        assert line[4] == ", ".join(c["class"] for c in record["set"])
        best = record["candidates"][0]["class"]
        assert line[1] == ("(none of these)" if record["rejected"] else best)
        assert line[3].startswith(best) == record["rejected"]
    for suffix in ("csv", "parquet"):
        out = tmp_path / f"answers.{suffix}"
        assert answered("predict", *given, "--rule", "aps", "--out", str(out)).code == 0
        if suffix == "csv":
            rows: list[Any] = list(csv.DictReader(io.StringIO(out.read_text())))
            for row in rows:
                row |= {k: json.loads(row[k]) if row[k] else None for k in ("set", "rejected")}
        else:
            rows = pyarrow.parquet.read_table(out).to_pylist()
        expected = [
            (r["rejected"], [c["class"] for c in r["set"]]) if "set" in r else (None, None)
            for r in records
        ]
        assert [(row["rejected"], row["set"]) for row in rows] == expected


def test_a_long_set_is_cut_in_a_table() -> None:
    classes = tuple(Candidate(label=n, name=f"c{n}", probability=0.1) for n in range(8))
    answer = Prediction(id="a.jpg", candidates=classes[:1], set=classes)
    cells = Columns(1, sets=True).cells(answer)
    assert cells == ["a.jpg", "c0", "10.0", "", "c0, c1, c2, c3, c4 and 3 more", ""]


def test_what_a_head_cannot_promise(answered: Run, photos: Path, calibrated: str) -> None:
    image = str(photos / "lime" / "1.png")
    for arguments, code, says in (
        ([calibrated, image, "--coverage", "0.99"], 1, "promise at most a coverage of 0.92"),
        (["last@2", image, "--coverage", "0.9"], 1, "calibrat"),
        ([calibrated, image, "--coverage", "90"], 2, "--coverage must be a number between 0 and 1"),
        ([calibrated, image, "--reject", "0"], 2, "--reject must be a number between 0 and 1"),
        ([calibrated, image, "--coverage", "0.8", "--rule", "apps"], 2, "did you mean 'aps'"),
        ([calibrated, image, "--rule", "aps"], 2, "--coverage 0.9"),
    ):
        answer = answered("predict", *arguments)
        assert (answer.code, answer.out) == (code, ""), answer
        assert says in answer.err


def test_a_table_with_columns_of_its_own(answered: Run, photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "new.csv"
    table.write_text("where,kind\nlime/0.png,Lime\nrust/1.png,rust\n../x.png,rust\n")
    spec = f"{table}?root={photos}"
    answer = answered("predict", "last", spec, "--column", "where", "--labels", "kind", "--json")
    assert answer.code == 0, answer.err
    records = [json.loads(line) for line in answer.out.splitlines()]
    assert [r["label"] for r in records] == ["Lime", "rust", "rust"]
    assert "outside" in records[2]["problem"]
    assert "of 2 labelled images" in answer.err
    assert "1 of 3 classes have none" in answer.err
    wrong = answered("predict", "last", str(table), "--column", "path")
    assert wrong.code == 1
    assert "no column 'path'" in wrong.err
    assert "csv:" not in wrong.out


def test_labels_of_other_classes_are_said(answered: Run, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "kiwi").symlink_to(photos / "lime")
    (tmp_path / "new" / "1.png").write_bytes((photos / "lime" / "1.png").read_bytes())
    (tmp_path / "new" / "kiwi").unlink()
    (tmp_path / "new" / "kiwi").mkdir()
    (tmp_path / "new" / "kiwi" / "2.png").write_bytes((photos / "lime" / "2.png").read_bytes())
    answer = answered("predict", "last", str(tmp_path / "new"))
    assert answer.code == 0
    assert "No accuracy: 1 label or folder, of 1 image, mean no class of the head: 'kiwi'." in (
        answer.err
    )


def test_nothing_usable_is_exit_code_1(answered: Run, tmp_path: Path) -> None:
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8 torn")
    os.mkfifo(tmp_path / "pipe.jpg")
    answer = answered("predict", "last", *map(str, sorted(tmp_path.iterdir())), "--out",
                      str(tmp_path / "a.csv"))  # fmt: skip
    assert answer.code == 1
    assert "pipe.jpg: cannot be read: is no regular file" in answer.err
    assert "torn.jpg: " in answer.err
    assert "2 images of 2 could not be used." in answer.err
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 3


def test_many_unusable_images_are_not_all_named(answered: Run, tmp_path: Path) -> None:
    for number in range(25):
        (tmp_path / f"{number:02}.jpg").touch()
    answer = answered("predict", "last", str(tmp_path))
    assert answer.code == 1
    assert answer.err.count("is empty") == 20
    assert answer.out.count("is empty") == 25
    assert "Further images" in answer.err


def test_what_is_cut_off_leaves_no_file(
    answered: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cli.heads.answers import Csv

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Csv, "write", stop)
    out = tmp_path / "a.csv"
    out.write_text("before")
    answer = answered("predict", "last", str(photos), "--out", str(out))
    assert answer.code == 130
    assert "was not written" in answer.err
    assert out.read_text() == "before"
    assert list(tmp_path.iterdir()) == [out]


def test_names_obey_nothing_on_the_terminal(answered: Run, photos: Path, tmp_path: Path) -> None:
    place = tmp_path / "a\x1b]0;x\x07\n.png"
    place.write_bytes((photos / "lime" / "1.png").read_bytes())
    answer = answered("predict", "last", str(tmp_path), str(place))
    assert answer.code == 0
    assert "\x1b" not in answer.out + answer.err
    assert len(answer.out.splitlines()) == 3


def test_parquet_needs_pyarrow(
    answered: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    answer = answered("predict", "last", str(photos), "--out", str(tmp_path / "a.parquet"))
    assert answer.code == 1
    assert "featcache[data]" in answer.err
    assert list(tmp_path.iterdir()) == []


def test_a_head_that_is_none_or_was_tampered_with(
    answered: Run, photos: Path, tmp_path: Path
) -> None:
    image = str(photos / "lime" / "1.png")
    whole = heads.load("last").save(tmp_path / "whole.head")
    assert answered("predict", str(whole), image).code == 0
    data = bytearray(whole.read_bytes())
    data[-5] ^= 1
    (tmp_path / "tampered.head").write_bytes(bytes(data))
    (tmp_path / "text.head").write_text("no head")
    os.mkfifo(tmp_path / "pipe.head")
    for name, says in (
        ("tampered.head", "damaged"),
        ("text.head", "no file of a head"),
        ("pipe.head", "no regular file"),
        ("none.head", "There is no file"),
    ):
        answer = answered("predict", str(tmp_path / name), image)
        assert (answer.code, answer.out) == (1, "")
        assert answer.err.startswith("error: ")
        assert says in answer.err
        assert answered("info", str(tmp_path / name)).code == 1


def test_a_head_of_other_weights_is_refused(answered: Run, photos: Path, tmp_path: Path) -> None:
    whole = heads.load("last")
    assert whole.key is not None
    other = replace(whole, key=replace(whole.key, weights="0" * 64))
    file = str(other.save(tmp_path / "other.head"))
    for images in ([str(photos)], ["--dataset", "blobs"]):
        answer = answered("predict", file, *images)
        assert (answer.code, answer.out) == (1, "")
        assert "has key" in answer.err
        assert "weights 0000" in answer.err


@pytest.mark.parametrize(
    ("names", "flag"),
    [
        ({"backbone": "hf-hub:somebody/towers"}, "--backbone"),
        ({"backbone": "local-dir:/somewhere"}, "--backbone"),
        ({"weights": "weights.safetensors"}, "--weights and --backbone"),
    ],
)
def test_a_place_that_only_a_file_names_is_not_loaded(
    answered: Run, photos: Path, tmp_path: Path, names: dict[str, str], flag: str
) -> None:
    whole = heads.load("last")
    about = {**whole.about, "weights": names.get("weights")}
    named = replace(whole, backbone=names.get("backbone", "tiny"), about=about)
    file = str(named.save(tmp_path / "named.head"))
    image = str(photos / "lime" / "1.png")
    for arguments in (
        ("predict", file, image),
        ("export", file, "--with-backbone", "--out", str(tmp_path / "export")),
    ):
        answer = answered(*arguments)
        assert (answer.code, answer.err.count("publishes. If you trust that place")) == (1, 1)
        assert f"name it yourself with {flag};" in answer.err
    allowed = answered(
        "predict", file, image, "--backbone", "tiny", "--weights", "random", "--json"
    )
    assert allowed.code == 0, allowed.err
    assert json.loads(allowed.out)["candidates"]
    assert not heads.load("last").is_foreign
    assert heads.load(file).is_foreign


def test_what_is_read_is_not_written_over(answered: Run, photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "new.csv"
    table.write_text(f"path,label\n{photos}/lime/1.png,lime\n")
    before = table.read_bytes()
    link = tmp_path / "link.csv"
    link.symlink_to(table)
    for named in (str(table), f"csv:{table}", f"{table}?label=label"):
        for out in (table, link):
            answer = answered("predict", "last", named, "--out", str(out))
            assert (answer.code, answer.out) == (2, "")
            assert "is read by this command" in answer.err
    answer = answered("predict", "last", str(table), "--format", "csv", "--out", str(tmp_path))
    assert answer.code == 2
    assert "is a folder" in answer.err
    os.mkfifo(pipe := tmp_path / "pipe")  # as a device would be, it would be replaced
    answer = answered("predict", "last", str(table), "--format", "csv", "--out", str(pipe))
    assert answer.code == 2
    assert "is no plain file" in answer.err
    assert pipe.is_fifo()
    assert table.read_bytes() == before


@pytest.mark.parametrize("name", ["{}/nowhere/", "folder:{}/nowhere"])
def test_a_folder_that_is_not_there_is_an_error(answered: Run, tmp_path: Path, name: str) -> None:
    answer = answered("predict", "last", name.format(tmp_path))
    assert answer.code == 1
    assert not answer.out
    assert f"There is no folder {tmp_path}/nowhere" in answer.err
    assert "name one with images in it" in answer.err


def test_results_need_a_folder_that_is_there(answered: Run, photos: Path, tmp_path: Path) -> None:
    answer = answered("predict", "last", str(photos), "--out", str(tmp_path / "no" / "a.csv"))
    assert answer.code == 2
    assert not answer.out
    assert f"There is no folder {tmp_path}/no for a.csv; make it first" in answer.err


def test_a_file_of_a_head_that_is_not_there(answered: Run, photos: Path, tmp_path: Path) -> None:
    answer = answered("predict", str(tmp_path / "no.head"), str(photos))
    assert answer.code == 1
    assert f"There is no file {tmp_path}/no.head. Name a file that `Head.save` wrote" in answer.err

"""`featcache datasets` and what it tells of one of them; extracting with other splits and words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featcache.sources.named import find
from tests.featcache.sources.miniatures import MINIATURES

Run = Callable[..., Any]


def test_the_list_has_all_of_them(featcache: Run) -> None:
    items = [json.loads(line) for line in featcache("datasets", "--json").out.splitlines()]
    assert len(items) == 31
    assert all(item["images"] and item["classes"] and item["licence"] for item in items)
    names = [item["name"] for item in items]
    assert names == sorted(names)
    by_name = {item["name"]: item for item in items}
    assert by_name["fieldguide"]["terms"] == "drawn"
    assert by_name["objectnet"]["terms"] == "account"
    assert by_name["eurosat"]["splits"]["coop"] == {"train": 13500, "val": 5400, "test": 8100}
    table = featcache("datasets").out
    assert len(table.splitlines()) == 32
    assert "by hand, needs an account" in table


@pytest.mark.parametrize("below", ["", "below"])
@pytest.mark.parametrize("option", ["--cache", "--data-root"])
@pytest.mark.parametrize("words", [(), ("--json",), ("eurosat",)])
def test_a_file_in_place_of_a_folder_is_refused(
    featcache: Run, tmp_path: Path, words: tuple[str, ...], option: str, below: str
) -> None:
    (tmp_path / "file").write_text("")
    answer = featcache("datasets", *words, option, str(tmp_path / "file" / below))
    assert (answer.code, answer.out) == (1, "")
    assert f"{tmp_path / 'file'} is a file, not a folder" in answer.err
    assert f"Choose another with {option}" in answer.err


def test_one_is_explained_by_name_or_alias(featcache: Run, tmp_path: Path) -> None:
    told = featcache("datasets", "textures", "--cache", str(tmp_path)).out
    for part in (
        "Describable Textures",
        "splits coop (default)",
        "train 2,820, val 1,128, test 1,692",
        "splits official",
        "Cimpoi",
        "research",
        "dtd-r1.0.1.tar.gz",
        f"nothing in {tmp_path / 'images'}",
    ):
        assert part in told, part


def test_what_is_here_is_said(featcache: Run, tmp_path: Path) -> None:
    (first,) = [m for m in MINIATURES if m.dataset == "dtd" and m.splits == "official"]
    first.write(tmp_path / "images")
    told = json.loads(featcache("datasets", "dtd", "--json", "--cache", str(tmp_path)).out)
    where = str(tmp_path / "images/dtd/dtd/images")
    assert told["here"] == {"coop": where, "official": where}
    there = len(first.samples)
    assert told["images_here"]["official"] == there
    head, *rows = featcache("datasets", "dtd", "--cache", str(tmp_path)).out.splitlines()
    assert head == "data set\tdtd"
    assert f"here, splits official\t{there:,} of 5,640 images in {where}" in rows
    other = tmp_path / "images" / "oxford_pets" / "images" / "n02086646-Blenheim_spaniel"
    other.mkdir(parents=True)
    told = json.loads(featcache("datasets", "pets", "--json", "--cache", str(tmp_path)).out)
    assert told["here"] == {}
    assert "Stanford Dogs" in told["problem"]


def test_descriptions_are_told_with_their_author(featcache: Run, tmp_path: Path) -> None:
    place = ("--cache", str(tmp_path))
    fewest, most = find("eurosat").described.per_class()
    told = featcache("datasets", "eurosat", *place).out
    assert f"{fewest} to {most} a class, by The featcache authors, licence MIT." in told
    told = json.loads(featcache("datasets", "eurosat", "--json", *place).out)["descriptions"]
    assert (told["classes"], told["fewest_per_class"], told["most_per_class"]) == (10, fewest, most)
    assert told["author"] == "The featcache authors"
    told = json.loads(featcache("datasets", "imagenet", "--json", *place).out)
    assert told["descriptions"] is None


def test_an_unknown_one_lists_near_names(featcache: Run) -> None:
    failed = featcache("datasets", "eurosatt")
    assert "did you mean 'eurosat'" in failed.err


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", ["oxford_pets", "gtsrb", "cifar10"])
def test_files_are_decoded_whatever_their_suffix_says(
    featcache: Run, tmp_path: Path, name: str
) -> None:
    mini = next(m for m in MINIATURES if m.dataset == name)
    mini.write(tmp_path / "images")
    place = ("--cache", str(tmp_path))
    alias = find(name).aliases[0] if find(name).aliases else name
    done = featcache("extract", "--dataset", alias, "--backbone", "tiny", "--patches", "none",
                     *place)  # fmt: skip
    assert done.code == 0, done.err
    told = json.loads(featcache("info", alias, "--json", *place).out)
    assert told["unreadable"] == {}
    assert sum(told["splits"].values()) == len(mini.samples)


@pytest.mark.slow
def test_a_named_set_is_extracted_with_other_splits_and_words(
    featcache: Run, tmp_path: Path
) -> None:
    (mini,) = [m for m in MINIATURES if m.dataset == "dtd" and m.splits == "official"]
    mini.write(tmp_path / "images")
    place = ("--cache", str(tmp_path))
    featcache("extract", "--dataset", "textures", "--backbone", "tiny", *place, "--splits",
              "official", "--words", "openai", "--patches", "none")  # fmt: skip
    told = json.loads(featcache("info", "dtd", "--json", *place).out)
    assert told["splits"] == {"train": 1, "val": 1, "test": 1}
    assert told["texts"]["template"] == 47 * 8

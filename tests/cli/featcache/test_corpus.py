"""`featcache corpus`: build, list, describe and remove corpora; what is said, and in what form."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from featcache.store.cache import Cache
from featcache.store.corpora import corpus_names, corpus_path
from tests.featcache.retrieval.corpora.worlds import target_in, wild_in

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("caches")
    target_in(root)
    wild_in(root)
    return root


@pytest.fixture
def root(caches: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEATCACHE_HOME", str(caches))
    return caches


def build(featcache: Run, *more: str, name: str = "more") -> Any:
    return featcache("corpus", "build", name, "--for", "toys", "--from", "wild", *more)


def test_build_list_describe_and_remove(featcache: Run, root: Path) -> None:
    made = build(featcache, "--k", "5", "--again")
    assert made.code == 0
    head, *rows = [line.split("\t") for line in made.out.splitlines()]
    assert head == ["class", "rows", "min", "median", "max", "own median"]
    assert [row[0] for row in rows] == ["ant", "bee", "cat"]
    assert all(0 < float(row[2]) <= float(row[3]) <= float(row[4]) <= 1 for row in rows)
    assert "near-duplicates" in made.err
    assert "views.rrc50-2" in made.err
    assert re.search(r"lower in \d of 3 classes\. .*--min-cosine", made.err)
    again = build(featcache, "--k", "5")
    assert "nothing changed" in again.err

    listed = featcache("corpus", "ls", "--for", "toys")
    (line,) = [row.split("\t") for row in listed.out.splitlines()[1:]]
    assert line[:6] == ["more", "toys", "15", "class", "global", "wild"]
    (entry,) = map(json.loads, featcache("corpus", "ls", "--json").out.splitlines())
    assert (entry["corpus"], entry["rows"], entry["leaks"]) == ("more", 15, False)

    told = featcache("corpus", "info", "more")
    assert told.out == made.out
    value = json.loads(featcache("corpus", "info", "more", "--json").out)
    assert value["digest"] == entry["digest"]
    assert value["facts"]["threshold"]["backbone"] == "toy"
    assert value["changes"] == []

    assert "15 global vectors of wild by class" in featcache("info", "toys").out
    assert json.loads(featcache("info", "toys", "--json").out)["corpora"][0]["rows"] == 15
    assert featcache("verify", "toys").code == 0

    asked = featcache("corpus", "rm", "more")
    assert (asked.code, "--yes" in asked.err) == (2, True)
    gone = json.loads(featcache("corpus", "rm", "more", "--yes", "--json").out)
    assert gone["removed"] == "more"
    assert featcache("corpus", "ls").out == ""


def test_json_is_the_report(featcache: Run, root: Path) -> None:
    value = json.loads(build(featcache, "--by", "image", "--shots", "2", "--json").out)
    assert value["by"] == "image"
    assert value["facts"]["shots"] == 2
    assert sum(c["rows"] for c in value["per_class"]) == value["rows"]
    assert value["short"] == [c["name"] for c in value["per_class"] if c["rows"] < 64]
    featcache("corpus", "rm", "more", "--yes")


def test_classes_without_vectors_are_named(featcache: Run, root: Path) -> None:
    def table(made: Any) -> dict[str, list[str]]:
        return {row[0]: row for row in (line.split("\t") for line in made.out.splitlines()[1:])}

    highest = sorted(float(row[4]) for row in table(build(featcache, "--k", "5")).values())
    bound = f"{(highest[0] + highest[1]) / 2:.4f}"  # one class has no vector that is nearer
    made = build(featcache, "--k", "5", "--min-cosine", bound, "--again")
    rows = {name: int(row[1]) for name, row in table(made).items()}
    none = [name for name, count in rows.items() if not count]
    few = [name for name, count in rows.items() if 0 < count < 5]
    assert f"1 class has no vector: {none[0]}.\n" in made.err
    assert ("some, but fewer than 5" in made.err) == bool(few)
    value = json.loads(featcache("corpus", "info", "more", "--json").out)
    assert value["empty"] == none
    assert set(value["short"]) == {*none, *few}
    featcache("corpus", "rm", "more", "--yes")


def test_without_views_the_extraction_that_adds_them_is_named(
    featcache: Run, tmp_path: Path
) -> None:
    target_in(tmp_path, with_views=False)
    wild_in(tmp_path)
    made = build(featcache, "--k", "2", "--by", "image", "--cache", str(tmp_path))
    call = f"featcache extract --dataset toys --backbone toy --cache {tmp_path} --views 2"
    assert f"`{call}` adds them." in made.err
    assert "own median" not in made.out.lower() + made.err.lower()


def test_a_leak_is_refused_and_then_marked(featcache: Run, root: Path) -> None:
    arguments = ["corpus", "build", "leak", "--for", "toys", "--from", "toys", "--k", "3"]
    refused = featcache(*arguments)
    assert refused.code == 2
    assert "toys:train" in refused.err
    assert "--allow-leak" in refused.err
    forced = featcache(*arguments, "--allow-leak")
    assert "LEAKS" in forced.err
    assert featcache("corpus", "ls").out.rstrip().endswith("leaks")
    featcache("corpus", "rm", "leak", "--yes")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--from", "wlid"], "wild"),
        (["--from", "wild:tset"], "tset"),
        (["--from", "wild:"], "NAME:SPLIT"),
        (["--by", "clas"], "class"),
        (["--k", "1000"], "k=1000"),
        (["--text", "cupl"], "--text KIND"),
        (["--key", "fff"], "fff"),
        (["--shots", "all"], "--shots"),
    ],
)
def test_wrong_input_is_one_sentence(
    featcache: Run, root: Path, words: list[str], says: str
) -> None:
    given = ["corpus", "build", "wrong", "--for", "toys"]
    given += [] if "--from" in words else ["--from", "wild"]
    answer = featcache(*given, *words)
    assert answer.code in (1, 2)
    assert answer.out == ""
    assert re.search(re.escape(says), answer.err), answer.err
    assert answer.err.count("\n") == 1


def test_damage_and_changed_sources_are_told(featcache: Run, tmp_path: Path) -> None:
    home = ("--cache", str(tmp_path))
    target, wild = target_in(tmp_path), wild_in(tmp_path)
    assert build(featcache, "--k", "5", *home).code == 0
    listing = Cache.open(wild.path).listing()
    assert listing is not None
    grown = replace(listing, splits={"train": listing.splits["train"][:-1]})
    Cache.open(wild.path).put_listing(grown)
    assert "wild has changed" in featcache("corpus", "info", "more", *home).err
    assert featcache("rm", "wild", "--yes", *home).code == 0
    assert "wild" in featcache("corpus", "info", "more", *home).err
    assert "is gone" in featcache("corpus", "info", "more", *home).err

    path = corpus_path(target.path, "more")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "not what was written" in featcache("corpus", "info", "more", *home).err
    broken = featcache("verify", "toys", *home)
    assert broken.code == 1
    assert "featcache corpus build --again" in broken.out
    assert "corpora/more.safetensors" in featcache("repair", "toys", *home, "--quiet").out
    assert corpus_names(target.path) == []

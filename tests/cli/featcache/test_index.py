"""`featcache index`: an index over a cache, from building to removal."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.featcache import index

pytest.importorskip("faiss")

Run = Callable[..., Any]


def test_an_index_from_building_to_removal(featcache: Run, home: Path) -> None:
    built = featcache("index", "build", "--quiet")
    assert built.code == 0, built.err
    assert built.out.startswith("blobs-tiny-global: added 30; flat, 30 vectors of 128")
    assert "no copy" in built.err
    assert "up to date" in featcache("index", "build", "--quiet").out
    lists = ("--of", "views", "--kind", "ivf", "--name", "lists", "--set", "lists=2")
    made = json.loads(featcache("index", "build", *lists, "--json", "--quiet").out)
    assert (made["added"], made["vectors"], made["parameters"]["lists"]) == (30, 30, 2)
    assert made["recall"]["value"] > 0.5
    listed = [json.loads(line) for line in featcache("index", "ls", "--json").out.splitlines()]
    assert [(i["name"], i["state"]) for i in listed] == [
        ("blobs-tiny-global", "fresh"),
        ("lists", "fresh"),
    ]
    table = featcache("index", "ls").out.splitlines()
    assert "exact" in table[1]
    assert "up to date" in featcache("index", "add", "lists", "--quiet").out
    assert "recall at 10" in featcache("index", "build", "--name", "lists", "--quiet").out
    assert featcache("index", "verify", "--quiet").out == (
        "sound: blobs-tiny-global\nsound: lists\n"
    )
    (codes,) = home.glob(".indexes/lists/*/codes.bin")
    codes.write_bytes(bytes(len(codes.read_bytes())))
    damaged = featcache("index", "verify", "lists", "--quiet")
    assert (damaged.code, damaged.out.split(":")[0]) == (1, "DAMAGED")
    for unknown in (("verify", "list", "--quiet"), ("verify", "list", "--json"), ("rm", "list")):
        answer = featcache("index", *unknown)
        assert (answer.code, answer.out) == (2, "")
        assert "Unknown index 'list'; did you mean 'lists'?" in answer.err
    for name in ("blobs-tiny-global", "lists"):
        assert f"Removed the index {name}" in featcache("index", "rm", name).out
    assert "makes one" in featcache("index", "ls").err


def test_a_low_recall_comes_with_what_raises_it(
    featcache: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = ("--of", "views", "--kind", "ivf", "--name", "few", "--set", "lists=8", "--quiet")
    assert "is low" not in featcache("index", "build", *lists).err
    monkeypatch.setattr(index, "LOW", 1.01)
    again = featcache("index", "build", "--name", "few", "--quiet")
    assert "Larger values of probes (now 1) find more and take longer" in again.err
    assert "`featcache index rm few`, then build it with --set probes=4." in again.err
    assert featcache("index", "rm", "few").code == 0


def test_removing_a_cache_names_its_indexes(featcache: Run, empty_home: Path, photos: Path) -> None:
    tiny = ("--backbone", "tiny", "--weights", "random", "--dataset", f"folder:{photos}")
    featcache("extract", *tiny, "--quiet", "--limit", "6")
    featcache("index", "build", "--name", "mine", "--quiet")
    assert "featcache index rm mine" in featcache("rm", "blobs", "--yes").err
    assert "is gone" in featcache("index", "ls").err
    refused = featcache("index", "add", "mine")
    assert (refused.code, "is gone" in refused.err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["build", "--kind", "ivff"], 2, "did you mean 'ivf'"),
        (["build", "--of", "patchs"], 2, "did you mean 'patches'"),
        (["build", "--of", "crops"], 1, "no crops"),
        (["build", "--caches", "blob"], 2, "did you mean 'blobs'"),
        (["build", "--caches", "blobs,"], 2, "between commas"),
        (["build", "--caches", "blobs,blobs"], 2, "each cache once"),
        (["build", "--set", "lists"], 2, "key=value"),
        (["build", "--kind", "ivf", "--set", "lists=99"], 2, "--set lists of an index takes"),
        (["build", "--kind", "ivf", "--set", "list=9"], 2, "did you mean 'lists'"),
        (["build", "--kind", "ivfpq"], 2, "--kind flat"),
        (["build", "--name", "../out"], 2, "name of an index"),
        (["add", "x"], 1, "featcache index build"),
        (["rm", "x"], 1, "featcache index build"),
        (["verify"], 1, "featcache index build"),
        (["verify", "x"], 1, "is no index 'x'"),
        (["buld"], 2, "buld"),
    ],
)
def test_wrong_input_is_one_sentence(
    featcache: Run, home: Path, arguments: list[str], code: int, says: str
) -> None:
    answer = featcache("index", *arguments)
    assert answer.code == code, answer
    assert says in answer.err
    assert answer.out == ""


def test_an_existing_name_is_built_again_as_it_was(featcache: Run, home: Path) -> None:
    featcache("index", "build", "--name", "it", "--quiet")
    refused = featcache("index", "build", "--name", "it", "--kind", "ivf")
    assert (refused.code, "featcache index rm it" in refused.err) == (2, True)
    assert featcache("index", "rm", "it", "--json").out.startswith('{"removed": "it"')

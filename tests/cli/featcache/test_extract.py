"""`featcache extract`: what it encodes, says and writes."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Run = Callable[..., Any]
TINY = ("--backbone", "tiny", "--weights", "random")


def test_asking_again_encodes_nothing(featcache: Run, home: Path, photos: Path) -> None:
    answer = featcache("extract", *TINY, "--dataset", f"folder:{photos}", "--views", "2", "--json")
    assert answer.code == 0
    summary = json.loads(answer.out)
    assert summary["encoded"] == {}
    assert summary["complete"]
    assert summary["images"] == 30


def test_dry_run_writes_nothing(featcache: Run, empty_home: Path, photos: Path) -> None:
    answer = featcache("extract", *TINY, "--dataset", f"folder:{photos}", "--dry-run")
    assert answer.code == 0
    assert "\n  global: 30 rows, 7.7 kB\n" in answer.out
    assert not empty_home.exists()


def test_results_go_to_stdout_and_talk_to_stderr(
    featcache: Run, empty_home: Path, photos: Path
) -> None:
    loud = featcache("extract", *TINY, "--dataset", f"folder:{photos}", "--limit", "6")
    assert "To encode: 6 images" in loud.err
    assert loud.out.startswith("Encoded 6 images of blobs")
    quiet = featcache("extract", *TINY, "--dataset", f"folder:{photos}", "--quiet")
    assert quiet.err == ""


def test_further_texts_are_added_without_an_image(
    featcache: Run, heads: Run, empty_home: Path, photos: Path, tmp_path: Path
) -> None:
    command = ("extract", *TINY, "--dataset", f"folder:{photos}", "--quiet")
    featcache(*command)
    words = tmp_path / "words.json"
    for text, code in (("{", 2), ('{"pear": ["x"]}', 2)):
        words.write_text(text)
        refused = featcache(*command, "--cupl", str(words))
        assert refused.code == code
        assert refused.err.count("\n") == 1
    words.write_text('{"plum": ["A plum is round."], "lime": ["Limes"], "rust": ["It is old."]}')
    added = featcache(*command, "--cupl", str(words), "--waffle", "1", "--json")
    assert json.loads(added.out)["encoded"] == {}
    counts = {"template": 3, "cupl": 3, "waffle": 90}
    assert json.loads(featcache("info", "--json").out)["texts"] == counts
    assert "template 3, cupl 3, waffle 90" in featcache("info").out
    for kind in ("cupl", "waffle"):
        answer = heads("train", "zero-shot", "--set", f"text={kind}", "--quiet", "--json")
        assert json.loads(answer.out)["variant"] == f"text={kind}"


@pytest.mark.long
def test_a_profile_names_what_binds_and_goes_with_the_cache(
    featcache: Run, empty_home: Path, photos: Path, tmp_path: Path
) -> None:
    command = ("extract", *TINY, "--dataset", f"folder:{photos}", "--quiet")
    told = featcache(*command, "--profile").out
    (trace,) = empty_home.rglob("*.trace.json")
    assert f"Timeline: {trace}" in told
    assert " binds (" in told or "too short to keep the cores busy" in told
    assert "traceEvents" in json.loads(trace.read_text())
    views = json.loads(
        featcache(*command, "--views", "2", "--profile-to", str(tmp_path / "t.json"), "--json").out
    )
    assert views["profile"] == str(tmp_path / "t.json")
    assert (tmp_path / "t.json").exists()
    assert featcache("ls").code == 0
    assert featcache("verify", "--quiet").code == 0
    assert featcache("rm", "blobs", "--yes").code == 0
    assert not trace.exists()
    assert not trace.parent.exists()


def test_compile_without_a_compiler_stops_before_anything_is_written(
    featcache: Run, empty_home: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)  # as if switched off
    answer = featcache("extract", *TINY, "--dataset", f"folder:{photos}", "--compile")
    assert answer.code == 1
    assert "leave --compile out" in " ".join(answer.err.split())
    assert not list(empty_home.rglob("*.h5"))
    assert not list(empty_home.rglob("key.json"))


def test_a_data_set_without_one_readable_image_fails(
    featcache: Run, empty_home: Path, tmp_path: Path
) -> None:
    for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"):
        (tmp_path / "bad" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bad" / name).write_bytes(b"no picture" + os.urandom(8))
    command = ("extract", "--backbone", "tiny", "--weights", "random", "--quiet")
    for _ in range(2):  # asking again does not make it a success
        answer = featcache(*command, "--dataset", f"folder:{tmp_path / 'bad'}")
        assert answer.code == 1
        assert "None of the 4 images could be read" in answer.err


ADDED = ("--patches", "none", "--tokens", "last-block:int8@test")


def test_a_dry_run_says_what_tokens_take(featcache: Run, empty_home: Path, photos: Path) -> None:
    planned = featcache("extract", *TINY, "--dataset", f"folder:{photos}", *ADDED, "--dry-run")
    assert planned.code == 0
    assert "tokens.last-block.int8 takes 8.6 kB an image (65 tokens of width 128)" in planned.err
    assert not empty_home.exists()


@pytest.mark.long
def test_tokens_come_with_a_block_that_is_verified_and_repaired(
    featcache: Run, empty_home: Path, photos: Path
) -> None:
    command = ("extract", *TINY, "--dataset", f"folder:{photos}", *ADDED)
    made = json.loads(featcache(*command, "--quiet", "--json").out)
    assert 0 < made["encoded"]["tokens.last-block.int8"] < 30
    told = featcache("info").out
    assert "rows of [65, 132]" in told
    assert "last block" in told
    assert featcache("verify", "--quiet").code == 0
    (block,) = empty_home.rglob("last_block.safetensors")
    whole = block.read_bytes()
    block.write_bytes(whole[:-1])
    assert "last_block.safetensors" in featcache("verify", "--quiet").out
    mended = featcache("repair", "--quiet")
    assert mended.code == 0
    assert "weights of the last block" in mended.out
    assert block.read_bytes() == whole


def test_a_wrong_place_of_tokens_names_the_right_one(
    featcache: Run, empty_home: Path, photos: Path
) -> None:
    refused = featcache("extract", "--dataset", f"folder:{photos}", "--tokens", "lastblock")
    assert refused.code == 2
    assert "last-block" in refused.err
    assert refused.err.count("\n") == 1

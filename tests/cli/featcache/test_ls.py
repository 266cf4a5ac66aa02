"""`featcache ls` and `featcache info` say the same of a cache."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]


def test_ls_and_info_tell_the_same(featcache: Run, home: Path) -> None:
    listed = json.loads(featcache("ls", "--json").out)
    shown = json.loads(featcache("info", "--json").out)
    assert (listed["dataset"], listed["backbone"]) == ("blobs", "tiny")
    assert shown["key"] == listed["key"]
    assert sum(shown["splits"].values()) == listed["images"] == 30
    assert shown["classes"] == ["lime", "plum", "rust"]
    assert "blobs" in featcache("ls").out
    assert "preprocessing" in featcache("info", "--dataset", "blobs").out


def test_the_data_set_may_be_named_without_a_flag(featcache: Run, home: Path) -> None:
    for command in ("info", "verify", "repair"):
        assert featcache(command, "blobs").out == featcache(command, "--dataset", "blobs").out != ""
        assert featcache(command, "blob").code == 2
        assert "leave one" in featcache(command, "blobs", "--dataset", "other").err

"""`heads list`: every method, and what it reads."""

import io
import json
import re
import sys
from collections.abc import Callable
from itertools import groupby
from typing import Any

import pytest

from cli.heads.list import list_methods
from heads import registry

Run = Callable[..., Any]


class Window(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_list_names_every_method(heads: Run) -> None:
    listed = [json.loads(line)["name"] for line in heads("list", "--json").out.splitlines()]
    assert {"zero-shot", "linear-probe", "tip-adapter", "tip-adapter-f", "cmm"} <= set(listed)


def test_list_says_what_each_method_reads(heads: Run) -> None:
    listed = {d["name"]: d for d in map(json.loads, heads("list", "--json").out.splitlines())}
    assert listed["zero-shot"]["needs"] == ["query"]
    assert listed["cmm"]["needs"] == ["query", "support", "support views:rrc50?"]
    assert "support view_patches:cdfsl" in listed["cc-cdfsl"]["needs"]
    assert {name for name, item in listed.items() if item["transductive"]} == {
        "dmn",
        "oga",
        "stata",
        "tda",
        "transclip",
    }


def test_list_says_which_methods_take_all_images_unless_told(heads: Run) -> None:
    listed = {d["name"]: d for d in map(json.loads, heads("list", "--json").out.splitlines())}
    assert {name: listed[name]["shots"] for name in ("auto", "cmm", "zero-shot")} == {
        "auto": "all",
        "cmm": 16,
        "zero-shot": None,
    }
    assert heads("list").out.count("support (all images)") == 1


def test_methods_are_listed_group_by_group(heads: Run) -> None:
    listed = [json.loads(line) for line in heads("list", "--json").out.splitlines()]
    groups = {
        group: [item["name"] for item in items]
        for group, items in groupby(listed, key=lambda item: item["group"])
    }
    assert tuple(groups) == registry.GROUPS
    assert sorted(name for names in groups.values() for name in names) == sorted(registry.names())
    assert {"cmm", "gda", "sim"} <= set(groups["shots and texts"])
    assert groups["shots alone"] == ["knn", "linear-probe", "nearest-mean", "ridge"]
    assert groups["no shots"] == ["fair", "lazsl", "sus-x", "zero-shot"]
    assert groups["pooled"] == ["auto", "ensemble"]
    assert groups["transductive"] == ["stata", "transclip"]
    assert groups["online"] == ["dmn", "oga", "tda"]
    rows = [line.split("\t") for line in heads("list").out.splitlines()]
    assert rows[0][:2] == ["group", "method"]
    assert [row[:2] for row in rows[1:]] == [[item["group"], item["name"]] for item in listed]


@pytest.mark.parametrize("width", [80, 100, 200])
def test_groups_and_whole_names_stand_in_every_window(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    window: Any = Window()
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys, "stdout", window)
    list_methods()
    monkeypatch.undo()
    lines = re.sub(r"\x1b\[[0-9;]*m", "", window.getvalue()).splitlines()
    assert max(map(len, lines)) <= width
    stripped = [line.strip() for line in lines]
    places = [stripped.index(group) for group in registry.GROUPS]
    assert places == sorted(places)
    first = [line.split()[0] for line in lines if line.strip() and not line.startswith("  ")]
    assert set(registry.names()) <= set(first)


@pytest.mark.parametrize("width", [80, 100, 140])
def test_words_are_whole_and_a_narrow_window_says_what_it_leaves_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    window: Any = Window()
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys, "stdout", window)
    list_methods()
    monkeypatch.undo()
    shown = set(re.sub(r"\x1b\[[0-9;]*m", "", window.getvalue()).split())
    described = registry.describe()
    assert {word for one in described for word in one.summary.split()} <= shown
    sources = {word for one in described for word in one.source.split()}
    assert (sources <= shown) == (width > 80)
    left_out = "Left out in this narrow window: source.\n" if width == 80 else ""
    assert capsys.readouterr().err == left_out

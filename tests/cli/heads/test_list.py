"""`heads list`: every method, and what it reads."""

import json
from collections.abc import Callable
from typing import Any

Run = Callable[..., Any]


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

"""The descriptions of named data sets: every one is whole, and a bad one says file and key."""

import re
from collections import Counter
from pathlib import Path
from textwrap import dedent

import pytest

from featcache.errors import SourceError, UnknownNameError, UsageError
from featcache.sources.fieldguide.species import PAIRS, WORLDS
from featcache.sources.layouts.named.folders import Folders
from featcache.sources.layouts.named.lines import Lines
from featcache.sources.layouts.named.mat import Mat
from featcache.sources.layouts.named.records import Records
from featcache.sources.layouts.named.split_json import SplitJson
from featcache.sources.layouts.named.table import Table
from featcache.sources.lists import ClassTable
from featcache.sources.named import NamedDataset, datasets, find, read_toml, resolve
from featcache.sources.named_open import open_named
from featcache.text.templates import check_template
from tests.featcache.sources.miniatures import Miniature

ROOT = Path(__file__).parents[3]

LISTED = [data for data in datasets() if data.kind == "listed"]

FIRST_CLASS = [
    "imagenet",
    "imagenet_v2",
    "imagenet_sketch",
    "imagenet_a",
    "imagenet_r",
    "objectnet",
    "caltech101",
    "oxford_pets",
    "stanford_cars",
    "oxford_flowers",
    "food101",
    "fgvc_aircraft",
    "sun397",
    "dtd",
    "eurosat",
    "ucf101",
    "cropdiseases",
    "isic2018",
    "chestx",
    "cub",
    "places365",
    "resisc45",
    "aid",
    "whu_rs19",
    "cifar10",
    "cifar100",
    "gtsrb",
    "country211",
]

COUNTS = {
    "imagenet_v2": (10000,),
    "imagenet_sketch": (50889,),
    "imagenet_a": (7500,),
    "imagenet_r": (30000,),
    "objectnet": (18574,),
    "imagenet": (1281167, 50000),
    "food101": (50500, 20200, 30300),
    "fgvc_aircraft": (3334, 3333, 3333),
    "sun397": (15880, 3970, 19850),
    "stanford_cars": (6509, 1635, 8041),
    "cropdiseases": (43456,),
    "isic2018": (10015,),
    "chestx": (25848,),
    "cub": (5994, 5794),
    "places365": (1803460, 36500),
    "resisc45": (18900, 6300, 6300),
    "aid": (10000,),
    "whu_rs19": (1005,),
    "cifar10": (50000, 10000),
    "cifar100": (50000, 10000),
    "gtsrb": (26640, 12630),
    "country211": (31650, 10550, 21100),
}
"""Images by split, as the field counts them; those of the packaged splits are counted there."""

GOOD = """
title = "Toys"
citation = "nobody"
licence = "MIT"
classes = 3
places = ["toys"]

[splits.official]
counts = { train = 4, test = 2 }

[[splits.official.list]]
kind = "folders"
splits = { train = "train", test = "test" }
"""


def test_all_are_there_and_named_once() -> None:
    assert {d.name for d in datasets()} == {*FIRST_CLASS, *WORLDS, PAIRS}
    names = Counter(n for d in datasets() for n in (d.name, *d.aliases))
    assert [name for name, count in names.items() if count > 1] == []
    assert all(n == n.lower() for n in names)
    assert resolve("fgvc") == "fgvc_aircraft"
    assert resolve("no such") == "no such"


@pytest.mark.parametrize("data", datasets(), ids=lambda data: data.name)
def test_every_one_is_described_in_full(data: NamedDataset) -> None:
    assert data.title
    assert data.licence
    assert data.citation
    assert data.size or data.terms != "auto"
    if data.kind == "drawn":
        return
    assert data.places
    assert data.hint.endswith(".")
    assert data.can_be_fetched == (data.terms == "auto")
    words = {"coop", *(find(data.parent) if data.parent else data).templates}
    assert all(check_template(t) == t for name in words for t in data.texts(name))
    for scheme in data.splits.values():
        assert scheme.list_
        assert scheme.cut == ("pool" in scheme.counts)
        for split, each in scheme.per_class.items():
            assert each * data.classes == scheme.counts[split]
    for archive in data.archive:
        assert all(url.startswith(("https://", "http://")) for url in archive.urls)
        assert archive.published


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_counts_are_those_of_the_field(name: str) -> None:
    assert tuple(find(name).scheme().counts.values()) == COUNTS[name]


def test_every_kind_of_list_is_in_use() -> None:
    used = {type(x) for d in LISTED for s in d.splits.values() for x in s.list_}
    assert used == {SplitJson, Folders, Lines, Table, Mat, Records}


def test_a_shift_set_has_the_templates_of_its_parent() -> None:
    assert find("imagenet_a").texts() == ("a photo of a {}.",)
    assert len(find("imagenet_r").texts("openai")) == 80
    assert len(find("imagenet_v2").texts("openai_7")) == 7
    with pytest.raises(UnknownNameError, match=r"words of aid 'openai'; .*coop"):
        find("aid").texts("openai")


def test_a_good_description_is_read() -> None:
    data = read_toml("toys", GOOD)
    assert (data.name, data.images) == ("toys", 6)
    assert data.scheme("official") is data.scheme()
    with pytest.raises(UnknownNameError, match="splits of toys 'coop'; known: official"):
        data.scheme("coop")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "Toys"', 'titel = "Toys"', r"toys\.toml: unknown key 'titel'; known: .*title"),
        ('title = "Toys"', "", r"toys\.toml: the key 'title' is missing"),
        ("classes = 3", 'classes = "3"', r"toys\.toml: classes: expected int, got '3'"),
        ("classes = 3", "classes = true", r"toys\.toml: classes: expected int, got True"),
        ('["toys"]', '["toys", 1]', r"toys\.toml: places\[1\]: expected str, got 1"),
        ('["toys"]', '"toys"', r"toys\.toml: places: expected .*, got 'toys'"),
        ("train = 4", "train = 4.5", r"toys\.toml: splits\.official: counts\.train: expected int"),
        ('"folders"', '"folder"', r"list\[0\]: expected a kind of split-json, .* got 'folder'"),
        ('kind = "folders"\n', "", r"list\[0\]: expected a kind of .* got None"),
        ("splits = {", "split = {", r"list\[0\]: unknown key 'split'"),
        ("classes = 3", "classes = ", r"toys\.toml is not TOML"),
        ("classes = 3", 'classes = 3\nterms = "free"', r"terms: expected one of auto, click"),
    ],
)
def test_a_bad_description_names_file_and_key(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(SourceError, match=message):
        read_toml("toys", GOOD.replace(old, new, 1))


def test_a_description_needs_splits() -> None:
    head = GOOD.partition("[splits")[0]
    with pytest.raises(SourceError, match="the key 'splits' is missing"):
        read_toml("toys", head)
    with pytest.raises(SourceError, match="at least one scheme"):
        read_toml("toys", head + "[splits]\n")


def test_splits_and_words_are_for_named_data_sets(tmp_path: object) -> None:
    from featcache.sources.registry import open_dataset

    with pytest.raises(UsageError, match="splits is for named data sets"):
        open_dataset("folder:.", root=Path(), splits="coop")
    with pytest.raises(UsageError, match="words is for named data sets"):
        open_dataset("folder:.", root=Path(), words="openai")


def test_the_example_of_contributing_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = dedent((ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    blocks = {kind: dedent(block) for kind, block in re.findall(r"```(\w+)\n(.*?)```", text, re.S)}
    data = read_toml("ponds", blocks["toml"])
    miniature = eval(blocks["python"], {"Miniature": Miniature})  # our own page
    names = ("frog", "newt")
    table = ClassTable(names=names, openai=names, folders=names)
    monkeypatch.setattr(NamedDataset, "table", lambda _: table)
    miniature.write(tmp_path)
    found = open_named(data, tmp_path, download=False)
    assert tuple((s.id, s.label, s.split) for s in found.samples) == miniature.samples

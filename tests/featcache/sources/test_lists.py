"""Packaged class lists and split files: equal to what was published, item for item."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from featcache.sources.layouts.named.split_json import SplitJson
from featcache.sources.lists import class_table, packaged_split
from featcache.sources.named import datasets, find

SHARED = Path(__file__).parents[4] / "shared" / "data"

LISTED = [data for data in datasets() if data.kind == "listed"]


def packaged() -> list[tuple[str, SplitJson]]:
    layouts = [(d.name, layout) for d in LISTED for layout in d.scheme().list_]
    return [(n, x) for n, x in layouts if isinstance(x, SplitJson) and x.packaged]


def published(name: str) -> str:
    """Write a packaged split as CoOp's program wrote its file."""
    names = class_table(name).names
    splits = {
        split: [[path, label, names[label]] for path, label in entries]
        for split, entries in packaged_split(name).items()
    }
    return json.dumps(splits, indent=4)


def facts(name: str) -> Any:
    file = SHARED / "facts" / name
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    return json.loads(file.read_text())


def test_seven_splits_are_packaged() -> None:
    names = {name for name, _ in packaged()}
    wanted = "caltech101 dtd eurosat oxford_flowers oxford_pets stanford_cars ucf101"
    assert names == set(wanted.split())


@pytest.mark.parametrize(("name", "layout"), packaged(), ids=[n for n, _ in packaged()])
def test_a_packaged_split_is_coops_file_byte_for_byte(name: str, layout: SplitJson) -> None:
    assert hashlib.sha256(published(name).encode()).hexdigest() == layout.sha256
    files = facts("split_files.json")["files"]
    stem = layout.file.removeprefix("split_zhou_").removesuffix(".json")
    assert layout.sha256 == files[stem]["sha256"]
    file = SHARED / "splits" / layout.file
    if file.is_file():
        assert json.loads(file.read_text()) == json.loads(published(name))


@pytest.mark.parametrize(("name", "layout"), packaged(), ids=[n for n, _ in packaged()])
def test_counts_are_those_of_the_split(name: str, layout: SplitJson) -> None:
    splits = packaged_split(name)
    assert {s: len(e) for s, e in splits.items()} == find(name).scheme().counts
    per_class = facts("class_counts.json")["counts"][name]
    for split, entries in splits.items():
        labels = [label for _, label in entries]
        assert [labels.count(i) for i in range(len(per_class[split]))] == per_class[split]


@pytest.mark.parametrize("data", LISTED, ids=lambda data: data.name)
def test_every_class_has_one_name_of_each_kind(data: Any) -> None:
    table = data.table()
    assert len(table.names) == len(table.openai) == data.classes
    assert len(table.folders) in (0, data.classes)
    assert len(set(table.folders)) == len(table.folders)
    assert all(name == name.strip() and name for name in (*table.names, *table.openai))


def test_coops_and_openais_names_are_those_of_the_same_label() -> None:
    for name, lists in facts("classes_coop.json")["datasets"].items():
        table = find(name).table()
        assert list(table.names) == lists["coop"], name
        assert list(table.openai) == lists["openai"], name
        assert list(table.folders) == (lists["folder"] or []), name


@pytest.mark.parametrize(
    ("name", "label", "coop", "openai"),
    [
        ("oxford_pets", 1, "american_bulldog", "american bulldog"),
        ("eurosat", 1, "Forest", "forest"),
        ("eurosat", 0, "Annual Crop Land", "annual crop land"),
        ("ucf101", 34, "Hammering", "Hammering"),
        ("ucf101", 35, "Hammer_Throw", "Hammer Throw"),
        ("caltech101", 0, "face", "off-center face"),
        ("oxford_flowers", 92, "ball moss", "air plant"),
        ("sun397", 7, "outdoor apartment_building", "apartment building outdoor"),
    ],
)
def test_openais_lists_are_brought_into_label_order(
    name: str, label: int, coop: str, openai: str
) -> None:
    table = find(name).table()
    at = table.names.index(coop)
    assert table.openai[at] == openai
    if name != "sun397":
        assert at == label


def test_imagenet_has_two_names_twice_and_a_thousand_labels() -> None:
    names = find("imagenet").table().names
    assert len(names) == 1000
    assert len(set(names)) == 998
    assert names[657] == names[744] == "missile"
    assert names[836] == names[837] == "sunglasses"
    assert find("imagenet").table().folders == tuple(sorted(find("imagenet").table().folders))


def test_shift_sets_name_the_labels_of_their_parent() -> None:
    imagenet = find("imagenet").table()
    for name in ("imagenet_a", "imagenet_r"):
        data = find(name)
        labels = [label for (label,) in data.parent_labels()]
        assert labels == sorted(set(labels))
        assert data.table().names == tuple(imagenet.names[i] for i in labels)
        assert data.table().folders == tuple(sorted(data.table().folders))
        assert labels == facts("imagenet_shifts.json")[name]
    both = set(find("imagenet_a").parent_labels()) & set(find("imagenet_r").parent_labels())
    assert len(both) == 86
    assert find("imagenet_v2").parent_labels() == tuple((i,) for i in range(1000))
    objectnet = find("objectnet")
    at = objectnet.table().folders.index("alarm_clock")
    assert objectnet.parent_labels()[at] == (409, 530)
    assert len({i for labels in objectnet.parent_labels() for i in labels}) == 125


def test_names_that_are_no_paths() -> None:
    assert "2012 Ram C/V Cargo Van Minivan" in find("stanford_cars").table().names
    assert {"F-16A/B", "F/A-18"} <= set(find("fgvc_aircraft").table().names)
    assert "Pepper,_bell___healthy" in find("cropdiseases").table().folders
    assert "Black-footed Albatross" in find("cub").table().names


def test_the_lists_are_small(tmp_path: Path) -> None:
    import featcache.sources.lists as lists

    folder = Path(str(lists.__file__)).parent
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.suffix != ".pyc")
    assert size < 1_000_000
    assert (folder / "NOTICE").is_file()


def entries(splits: Mapping[str, Any]) -> list[str]:
    return [path for items in splits.values() for path, _ in items]


@pytest.mark.parametrize(("name", "layout"), packaged(), ids=[n for n, _ in packaged()])
def test_no_image_is_in_two_splits(name: str, layout: SplitJson) -> None:
    paths = entries(packaged_split(name))
    assert len(set(paths)) == len(paths)

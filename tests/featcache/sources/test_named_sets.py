"""Every named data set, read from a miniature in the layout of its archive or of its users."""

from pathlib import Path

import pytest

from featcache.sources.named import datasets, find
from featcache.sources.registry import open_dataset
from featcache.text.templates import clean_name
from tests.featcache.sources.miniatures import MINIATURES, Miniature

IDS = [f"{m.dataset}-{m.splits or 'default'}-{m.layout}" for m in MINIATURES]


def test_every_named_set_has_a_miniature() -> None:
    assert {m.dataset for m in MINIATURES} == {d.name for d in datasets() if d.kind == "listed"}


@pytest.mark.parametrize("miniature", MINIATURES, ids=IDS)
def test_ids_labels_splits_classes_and_notes(miniature: Miniature, tmp_path: Path) -> None:
    miniature.write(tmp_path / "images")
    data = open_dataset(miniature.dataset, root=tmp_path, splits=miniature.splits, download=False)
    spec = find(miniature.dataset)
    assert data.root == (tmp_path / "images" / miniature.root).resolve()
    assert data.name == miniature.dataset
    assert data.classes == tuple(map(clean_name, spec.table().names))
    assert data.templates == spec.texts()
    made_here = miniature.samples[0][2] == "pool"
    if made_here:
        assert sorted((s.id, s.label) for s in data.samples) == sorted(
            (image_id, label) for image_id, label, _ in miniature.samples
        )
        assert {s.split for s in data.samples} <= {"train", "val", "test"}
    else:
        assert tuple((s.id, s.label, s.split) for s in data.samples) == miniature.samples
    for sample in data.samples:
        assert sample.place.container == data.root / sample.id
        assert sample.group == miniature.groups.get(sample.id, sample.group if made_here else "")
    said = " ".join(data.notes)
    assert all(note in said for note in miniature.notes), said


@pytest.mark.parametrize("miniature", MINIATURES, ids=IDS)
def test_the_same_is_read_from_the_folder_that_holds_it(
    miniature: Miniature, tmp_path: Path
) -> None:
    miniature.write(tmp_path / "elsewhere")
    named = tmp_path / "elsewhere"
    usual = open_dataset(
        miniature.dataset,
        root=tmp_path,
        dataset_root=named,
        splits=miniature.splits,
    )
    top = miniature.root.split("/")[0]
    if top and miniature.written and not any("/" not in path for path in miniature.lists):
        inner = open_dataset(
            miniature.dataset,
            root=tmp_path,
            dataset_root=named / top,
            splits=miniature.splits,
        )
        assert [s.id for s in inner.samples] == [s.id for s in usual.samples]
        assert [s.split for s in inner.samples] == [s.split for s in usual.samples]


def test_groups_are_never_divided(tmp_path: Path) -> None:
    for miniature in MINIATURES:
        if miniature.samples[0][2] != "pool" or not miniature.groups:
            continue
        miniature.write(tmp_path / "images")
        data = open_dataset(miniature.dataset, root=tmp_path)
        splits: dict[str, set[str]] = {}
        for sample in data.samples:
            if sample.group:
                splits.setdefault(sample.group, set()).add(sample.split)
        assert len(splits) > 1
        assert all(len(of) == 1 for of in splits.values()), miniature.dataset

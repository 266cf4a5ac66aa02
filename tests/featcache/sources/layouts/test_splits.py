"""Splits made here: shares of each class, and groups that no cut divides."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from featcache.places import FilePlace
from featcache.sources.layouts.splits import Grouped, make_splits, samples
from featcache.sources.trees.base import Entry


def files_of(sizes: dict[str, int]) -> Grouped:
    names = {folder: [f"{folder}/{i}.jpg" for i in range(n)] for folder, n in sizes.items()}
    return {"train": {f: [Entry(i, FilePlace(i), (f,)) for i in ids] for f, ids in names.items()}}


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    groups=st.integers(1, 12),
    seed=st.integers(0, 3),
)
def test_no_group_is_divided_and_no_image_is_lost(sizes: list[int], groups: int, seed: int) -> None:
    files = files_of({f"class {i}": n for i, n in enumerate(sizes)})
    ids = [image.id for images in files["train"].values() for image in images]
    of = {image_id: f"patient {i % groups}" for i, image_id in enumerate(ids) if i % 5}
    (note,) = make_splits(files, seed, of)
    found = list(samples(files, sorted(files["train"]), of))
    assert sorted(s.id for s in found) == sorted(ids)
    assert all(s.id.startswith(f"class {s.label}/") for s in found)
    splits: dict[str, set[str]] = {}
    for sample in found:
        assert sample.group == of.get(sample.id, "")
        if sample.group:
            splits.setdefault(sample.group, set()).add(sample.split)
    assert all(len(where) == 1 for where in splits.values())
    assert ("groups kept whole" in note) == bool(of)


def test_small_groups_leave_the_shares_nearly_exact() -> None:
    files = files_of({"a": 300})
    of = {image.id: f"track {i // 3}" for i, image in enumerate(files["train"]["a"])}
    make_splits(files, 0, of)
    counts = Counter({split: len(by["a"]) for split, by in files.items()})
    assert all(abs(counts[s] - n) <= 3 for s, n in (("train", 150), ("val", 60), ("test", 90)))


def test_groups_of_one_are_cut_as_images_are() -> None:
    """Each group's middle is then the image itself."""
    files = files_of({"a": 31, "b": 8})
    of = {i.id: f"only {i.id}" for images in files["train"].values() for i in images}
    make_splits(files, 0, of)
    plain = files_of({"a": 31, "b": 8})
    make_splits(plain, 0)
    for split in ("train", "val", "test"):
        assert [len(files[split][f]) for f in "ab"] == [len(plain[split][f]) for f in "ab"]

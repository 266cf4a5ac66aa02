"""Few-shot draws: CoOp's lists item for item, stored sets, and classes with too few images."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.draws import cut, draw, few_shot, few_shot_rows, thinned
from featcache.errors import TaskError, UsageError
from featcache.keys import Listing
from featcache.sources.layouts.named.coop import parse_split

SPLITS = Path(__file__).parents[3] / "shared" / "data" / "splits"

CASES = {
    "caltech101": "Caltech101",
    "dtd": "DescribableTextures",
    "eurosat": "EuroSAT",
    "oxford_flowers": "OxfordFlowers",
    "oxford_pets": "OxfordPets",
}


def listing(
    labels: Sequence[int], splits: Mapping[str, Sequence[int]], draws: str = "sampled"
) -> Listing:
    return Listing(
        dataset="toy",
        root="",
        classes=tuple(f"class {i}" for i in range(max(labels) + 1)),
        ids=tuple(map(str, range(len(labels)))),
        hashes=tuple(map(str, range(len(labels)))),
        labels=np.array(labels, dtype=np.int64),
        splits={k: np.array(v, dtype=np.int64) for k, v in splits.items()},
        draws=draws,
    )


@pytest.mark.parametrize("dataset", sorted(CASES))
def test_draws_are_coops_item_for_item(dataset: str) -> None:
    file = SPLITS / f"split_zhou_{CASES[dataset]}.json"
    if not file.exists():
        pytest.skip(f"{file} is not there")
    split = parse_split(file.read_bytes(), str(file))
    entries = [(name, *e) for name, listed in split.splits.items() for e in listed]
    table = listing(
        [label for _, _, label in entries],
        {
            s: [i for i, (name, _, _) in enumerate(entries) if name == s]
            for s in ("train", "val", "test")
        },
    )
    for shots in (1, 2, 4, 8, 16):
        for seed in (1, 2, 3):
            golden = json.loads(
                (SPLITS / "indices" / dataset / f"shot_{shots}-seed_{seed}.json").read_text()
            )
            drawn = few_shot(table, shots, seed)
            for part, rows in (("train", drawn.train_rows), ("val", drawn.val_rows)):
                wanted = [(item["impath"], item["label"]) for item in golden[part]["data"]]
                got = [(entries[r][1], entries[r][2]) for r in rows]
                assert len(got) == len(wanted)
                for (path, label), (image, ours) in zip(wanted, got, strict=True):
                    assert path.endswith(f"/{image}")
                    assert label == ours


def test_the_order_of_a_split_decides_and_not_the_row_number() -> None:
    labels = [0] * 10
    rows = list(range(10))
    shuffled = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    plain = few_shot(listing(labels, {"train": rows}), 3, 1).train_rows
    other = few_shot(listing(labels, {"train": shuffled}), 3, 1).train_rows
    assert [shuffled[i] for i in plain] == other.tolist()


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=40),
    shots=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_each_class_gives_k_or_all_it_has(labels: list[int], shots: int, seed: int) -> None:
    drawn = draw(labels, range(len(labels)), shots, random.Random(seed))
    assert len(set(drawn)) == len(drawn)
    for label in set(labels):
        taken = [r for r in drawn if labels[r] == label]
        assert len(taken) == min(shots, labels.count(label))


def test_short_classes_give_what_they_have() -> None:
    drawn = few_shot(listing([0, 0, 0, 1, 2], {"train": [0, 1, 2, 3], "test": [4]}), 2, 1)
    assert len(drawn.train_rows) == 3
    assert drawn.val_rows.tolist() == []


def test_validation_is_at_most_four_a_class_unless_said() -> None:
    table = listing([0] * 20 + [1] * 20, {"train": [*range(10), *range(20, 30)], "val": [
        *range(10, 20), *range(30, 40)]})  # fmt: skip
    assert [len(few_shot(table, k, 1).val_rows) for k in (1, 2, 16)] == [2, 4, 8]
    assert len(few_shot(table, 8, 1, val_shots=8).val_rows) == 16


def test_all_shots_take_everything_of_train_and_val() -> None:
    table = listing([0, 1, 0, 1, 0], {"train": [0, 1, 2], "val": [3], "test": [4]})
    drawn = few_shot(table, None, 1)
    assert (drawn.train_rows.tolist(), drawn.val_rows.tolist()) == ([0, 1, 2], [3])


def test_an_unusable_image_is_replaced_within_its_class_and_nothing_else_moves() -> None:
    table = listing([0] * 10 + [1] * 10, {"train": range(20)})
    before = few_shot(table, 4, 1).train_rows
    usable = np.ones(20, dtype=bool)
    usable[before[1]] = False
    after = few_shot(table, 4, 1, usable=usable).train_rows
    assert np.flatnonzero(before != after).tolist() == [1]
    assert table.labels[after[1]] == 0
    assert after[1] not in before


def test_a_class_whose_images_are_all_unusable_is_short() -> None:
    table = listing([0, 0, 1, 1], {"train": range(4)})
    usable = np.array([True, True, False, False])
    drawn = few_shot(table, 2, 1, usable=usable)
    assert sorted(drawn.train_rows.tolist()) == [0, 1]
    assert few_shot(table, None, 1, usable=usable).train_rows.tolist() == [0, 1]


def test_unlabelled_images_are_never_drawn() -> None:
    assert few_shot(listing([0, -1, 0], {"train": range(3)}), 2, 1).train_rows.tolist() != []
    assert 1 not in few_shot(listing([0, -1, 0], {"train": range(3)}), 3, 1).train_rows


def test_no_training_images_is_an_error_that_lists_the_splits() -> None:
    with pytest.raises(TaskError, match=r"no labelled training images.*test"):
        few_shot(listing([0, 1], {"test": [0, 1]}), 1, 1)


@pytest.mark.parametrize("shots", [0, -3])
def test_shots_below_one_are_refused(shots: int) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        few_shot(listing([0, 1], {"train": [0, 1]}), shots, 1)


class TestStored:
    LABELS = (0, 0, 0, 0, 1, 1, 1, 1, 0, 1, 0, 1)

    def table(self, **splits: Sequence[int]) -> Listing:
        named = {k.replace("_at_", "@"): v for k, v in splits.items()}
        return listing(self.LABELS, {**named, "val": [8, 9, 10, 11]}, draws="stored")

    def test_the_set_of_that_k(self) -> None:
        table = self.table(train_at_1=[3, 7], train_at_4=range(8))
        assert few_shot(table, 1, 1).train_rows.tolist() == [3, 7]

    def test_first_k_of_the_next_larger(self) -> None:
        table = self.table(train_at_1=[3, 7], train_at_4=range(8))
        assert few_shot(table, 2, 1).train_rows.tolist() == [0, 1, 4, 5]

    def test_largest_there_is_and_all_of_it(self) -> None:
        table = self.table(train_at_1=[3, 7], train_at_4=range(8))
        drawn = few_shot(table, 16, 1)
        assert drawn.train_rows.tolist() == list(range(8))
        assert few_shot(table, None, 1).train_rows.tolist() == list(range(8))

    def test_plain_train_counts_as_a_set(self) -> None:
        table = self.table(train=range(8))
        assert few_shot(table, 2, 1).train_rows.tolist() == [0, 1, 4, 5]

    def test_the_seed_changes_nothing(self) -> None:
        table = self.table(train_at_4=range(8))
        one, two = few_shot(table, 1, 1), few_shot(table, 1, 2)
        assert one.train_rows.tolist() == two.train_rows.tolist()
        assert one.val_rows.tolist() == two.val_rows.tolist() == [8, 9]


def test_rows_for_views_cover_every_smaller_power_of_two() -> None:
    table = listing([0] * 50 + [1] * 50, {"train": range(100)})
    rows = few_shot_rows(table, 16, (1, 2, 3))
    assert rows.tolist() == sorted(set(rows.tolist()))
    for shots in (1, 2, 4, 8, 16):
        for seed in (1, 2, 3):
            assert set(few_shot(table, shots, seed).train_rows) <= set(rows)
    assert few_shot_rows(table, None, (1,)).tolist() == list(range(100))
    assert few_shot_rows(table, 4, ()).tolist() == []


@given(
    st.lists(st.integers(0, 6), min_size=3, max_size=3),
    st.lists(st.integers(0, 6), min_size=3, max_size=3),
    st.integers(0, 5),
)
def test_thinned_draws_are_nested_and_as_large_as_asked(
    one: list[int], other: list[int], seed: int
) -> None:
    labels = [i % 3 for i in range(15)]
    table = listing(labels, {"train": range(15), "val": range(0)})
    whole = few_shot(table, 4, seed)
    smaller = np.minimum(one, other)
    kept = {}
    for name, counts in (("smaller", smaller), ("larger", np.array(one))):
        drawn = thinned(whole, table.labels, counts, seed)
        kept[name] = set(drawn.train_rows.tolist())
        assert kept[name] <= set(whole.train_rows.tolist())
        each = np.bincount(table.labels[drawn.train_rows], minlength=3)
        assert each.tolist() == np.minimum(counts, 4).tolist()
    assert kept["smaller"] <= kept["larger"]


def test_thinned_draws_differ_between_seeds_where_the_draw_does_not() -> None:
    table = listing([i % 2 for i in range(40)], {"train": range(40)})
    everything = few_shot(table, None, 1)
    counts = np.array([5, 5])
    drawn = {thinned(everything, table.labels, counts, s).train_rows.tobytes() for s in range(4)}
    assert len(drawn) == 4
    again = [thinned(everything, table.labels, counts, 1).train_rows.tolist() for _ in range(2)]
    assert again[0] == again[1]


@given(count=st.integers(0, 30), rows=st.integers(0, 30), seed=st.integers(-3, 1000))
def test_a_cut_is_in_two_parts_and_repeats(count: int, rows: int, seed: int) -> None:
    index = np.arange(10, 10 + rows)
    one, other = cut(index, min(count, rows), seed)
    assert len(one) == min(count, rows)
    assert sorted([*one, *other]) == index.tolist()
    again, _ = cut(index[::-1], min(count, rows), seed)  # the order of the rows does not matter
    assert np.array_equal(one, again)


def test_any_row_is_as_likely_in_a_cut() -> None:
    times = np.zeros(10)
    for seed in range(2000):
        times[cut(np.arange(10), 3, seed)[0]] += 1
    assert abs(times - 600).max() < 5 * (2000 * 0.3 * 0.7) ** 0.5

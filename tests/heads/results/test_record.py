import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache.errors import FeatcacheError, ImportedFileError, NewerFormatError
from heads.results.reading import from_json
from heads.results.record import FORMAT, Metric, digest_ids, new_run_id

DOCUMENTED = [
    "method", "variant", "dataset", "backbone", "shots", "seeds", "protocol", "selection",
    "config", "metrics", "zero_shot_top1", "seconds", "run", "key", "versions",
]  # fmt: skip


def test_round_trip_is_exact(record: Any) -> None:
    cases: list[dict[str, Any]] = [
        {},
        {"shots": None},
        {"shots": 0, "zero_shot_top1": None},
        {"r": 3},
    ]
    for fields in cases:
        result = record(**fields)
        text = result.to_json()
        again = from_json(text)
        assert again == result
        assert again.to_json() == text
        assert "\n" not in text


READABLE = st.text(st.characters(exclude_categories=["Cc", "Cs"]))


@settings(deadline=None, max_examples=25)
@given(
    mean=st.floats(0, 1),
    text=READABLE,
    config=st.dictionaries(
        st.text(), st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text()
    ),
)
def test_round_trip_keeps_every_bit(record: Any, mean: float, text: str, config: Any) -> None:
    metric = Metric(mean=mean, ci95=None, values=(mean,))
    result = record(metrics={"top1": metric}, dataset=text, config=config, notes=(text,))
    assert from_json(result.to_json()) == result


def test_record_has_the_documented_fields(record: Any) -> None:
    raw = json.loads(record(shots=None).to_json())
    assert set(DOCUMENTED) <= set(raw)
    assert raw["shots"] == "all"
    assert {"mean", "ci95", "values"} <= set(raw["metrics"]["top1"])
    assert {"fit", "evaluate"} <= set(raw["seconds"])
    assert 0 <= raw["metrics"]["top1"]["mean"] <= 1


def test_later_format_is_refused(record: Any) -> None:
    raw = record().as_dict() | {"format": FORMAT + 1}
    with pytest.raises(NewerFormatError, match="Upgrade featcache"):
        from_json(json.dumps(raw))


@pytest.mark.parametrize("field", [*DOCUMENTED, "format", "classes", "ids", "notes", "chosen"])
@pytest.mark.parametrize("value", [None, [None], {"x": []}, True, -1, 1e999, "../..", 10**400])
def test_foreign_values_are_refused_or_kept(record: Any, field: str, value: object) -> None:
    raw = record().as_dict() | {field: value}
    try:
        result = from_json(json.dumps(raw))
    except FeatcacheError:
        return
    assert from_json(result.to_json()) == result


@pytest.mark.parametrize("field", DOCUMENTED)
def test_missing_fields_are_named(record: Any, field: str) -> None:
    raw = record().as_dict()
    del raw[field]
    if field == "zero_shot_top1":  # unknown and absent are the same
        assert from_json(json.dumps(raw)).zero_shot_top1 is None
        return
    with pytest.raises(ImportedFileError, match=f"'{field}'"):
        from_json(json.dumps(raw))


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '{"a": NaN}', "[" * 100_000, '{"format": 1}', "\ud800", "{" * 9]
)
def test_text_that_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(FeatcacheError):
        from_json(text)


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a" * 500, "a\n"])
def test_names_that_would_leave_the_folder_are_refused(record: Any, name: str) -> None:
    for field in ("run", "method"):
        with pytest.raises(ImportedFileError, match=field):
            from_json(json.dumps(record().as_dict() | {field: name}))


def test_digest_of_ids_sees_order_and_borders() -> None:
    digests = [digest_ids(ids) for ids in (["a", "b"], ["b", "a"], ["ab"], ["a", "b", ""], [])]
    assert len(set(digests)) == 5
    assert digest_ids(iter(["a", "b"])) == digests[0]
    assert digest_ids(["größe", "\udcff.jpg"])


def test_run_ids_sort_by_time_and_differ() -> None:
    early, late = datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 2, 3, tzinfo=UTC)
    assert new_run_id("cmm", early) < new_run_id("cmm", late)
    assert new_run_id("cmm", early) != new_run_id("cmm", early)
    assert new_run_id("tip-adapter-f", early).startswith("20260102T000000-tip-adapter-f-")


def test_oracle_and_repetitions(record: Any) -> None:
    assert record(selection="oracle").oracle
    assert not record().oracle
    assert record(r=3).repetitions == 3


def test_text_that_no_file_can_hold_is_refused(record: Any) -> None:
    for field in ("dataset", "backbone", "variant", "split", "selection"):
        with pytest.raises(ImportedFileError, match=field):
            from_json(json.dumps(record().as_dict() | {field: "\ud800"}))
    with pytest.raises(ImportedFileError, match="notes"):
        from_json(json.dumps(record().as_dict() | {"notes": ["\ud800"]}))


def test_a_record_holds_any_name_that_a_data_set_can_have(record: Any) -> None:
    """What a terminal would obey is escaped where it is printed, not refused after a training."""
    odd = record(dataset="a\nb\x1b[2J", notes=("\x9b31m",))
    assert from_json(odd.to_json()) == odd

"""Rows: what is taken belongs together, whether it lies in memory or is read when gathered."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from heads import registry
from heads.contract.method import AnyMethod, Method
from heads.contract.rows import Kind, LazyRows, Rows, find_kind, gather
from heads.episode import Episode
from heads.reading import MappedRows
from heads.selection.select import select
from heads.training.trainer import train
from tests.heads import toys
from tests.heads.toy_tasks import make_task, rich_world, settings
from tests.tiers import quick

CPU = torch.device("cpu")
FEATURES = rich_world()
ROWS = FEATURES.usable("val")
COMPONENTS = {
    Kind("views", "rrc50"): "views.rrc50-3",
    Kind("patches"): "patches.clearclip",
    Kind("view_patches", "cdfsl"): "view_patches.clearclip.cdfsl-4",
}


def lazy_and_whole(kind: Kind) -> tuple[MappedRows, Tensor]:
    """Return the rows of a kind, mapped and in memory; no two of them are equal."""
    component = COMPONENTS[kind]
    return MappedRows(FEATURES, component, ROWS, CPU), FEATURES.unit(component, ROWS)


@pytest.mark.parametrize("kind", COMPONENTS, ids=str)
@pytest.mark.parametrize(
    "index",
    [[4, 0, 4], [[1, 2, 3], [3, 14, 0]], [[[5]]], []],
    ids=["some", "tasks", "three axes", "none"],
)
def test_mapped_rows_are_gathered_as_tensors_are(kind: Kind, index: Any) -> None:
    lazy, whole = lazy_and_whole(kind)
    assert isinstance(lazy, LazyRows)
    assert not isinstance(lazy, Tensor)
    assert lazy.shape == whole.shape
    at = torch.tensor(index, dtype=torch.int64)
    rng = torch.Generator().manual_seed(0)
    one = torch.randint(whole.shape[1], at.shape, generator=rng)  # [*b]
    several = torch.randint(whole.shape[1], (*at.shape, 2), generator=rng)  # [*b k]
    for pick, expected in (
        (None, whole[at]),
        (one, whole[at, one]),
        (several, whole[at[..., None], several]),
    ):
        for values in (lazy, whole):
            got = gather(values, at, pick)
            assert got.shape == expected.shape
            assert torch.equal(got, expected)


def full_rows(lazy: bool) -> Rows:
    """Return rows with everything that rows can have."""
    n = len(ROWS)
    kinds: dict[Kind, Tensor | LazyRows] = {k: lazy_and_whole(k)[not lazy] for k in COMPONENTS}
    x = FEATURES.unit("global", ROWS)
    return Rows(
        x=x,
        norms=torch.arange(n) + 0.5,
        labels=torch.arange(n),
        weights=torch.arange(n) + 0.25,
        kinds=kinds,
        lengths={Kind("views", "rrc50"): torch.arange(3.0 * n).reshape(n, 3)},
        among=Rows.of(x[:2]),
    )


@pytest.mark.parametrize("lazy", [False, True], ids=["in memory", "mapped"])
@pytest.mark.parametrize(
    "index",
    [slice(None), slice(2, 7), slice(-4, None), slice(1, 12, 3), torch.tensor([9, 0, 9])],
    ids=["all", "a part", "the end", "every third", "with repeats"],
)
def test_taken_rows_keep_what_belongs_to_them(lazy: bool, index: slice | Tensor) -> None:
    rows, whole = full_rows(lazy), full_rows(False)
    taken = rows.take(index)
    at = torch.arange(len(rows))[index]
    assert len(taken) == len(at) > 0
    assert torch.equal(taken.x, rows.x[at])
    assert torch.equal(taken.norms, at + 0.5)
    assert torch.equal(taken.y, at)
    assert taken.weights is not None
    assert torch.equal(taken.weights, at + 0.25)
    assert set(taken.kinds) == set(COMPONENTS)
    for kind, values in whole.kinds.items():
        found = taken.kinds[kind]
        assert isinstance(found, Tensor)  # what was mapped has been read
        assert torch.equal(found, gather(values, at))
    (lengths,) = taken.lengths.values()
    assert torch.equal(lengths[:, 0], 3.0 * at)
    assert taken.among is rows.among


def test_what_rows_lack_is_lacking_of_those_taken() -> None:
    taken = Rows.of(torch.eye(3)).take(slice(1, 3))
    assert taken.labels is taken.weights is None
    assert taken.among is None
    assert taken.kinds == taken.lengths == {}
    with pytest.raises(AssertionError, match="no labels"):
        _ = taken.y


def test_a_kind_without_its_recipe_is_found_where_it_is_the_only_one() -> None:
    weak, strong, patches = Kind("views", "weak"), Kind("views", "strong"), Kind("patches")
    kinds = {weak: 1, patches: 2}
    assert find_kind(kinds, Kind("views")) == find_kind(kinds, weak) == 1
    assert find_kind(kinds, patches) == 2
    assert find_kind(kinds, strong) is find_kind(kinds, Kind("crops")) is None
    assert find_kind({**kinds, strong: 3}, Kind("views")) is None
    rows = full_rows(lazy=True)
    whole = full_rows(lazy=False).kinds[Kind("views", "rrc50")]
    assert isinstance(whole, Tensor)
    for recipe in ("", "rrc50"):
        found = rows.get("views", recipe)
        assert found is not None
        assert torch.equal(found, whole)
    assert rows.get("views", "weak") is None


def test_settings_are_those_in_the_signature_of_prepare() -> None:
    method = Method(
        name="toy", summary="A toy.", source="ours", prepare=toys.prepare, terms=toys.terms
    )
    assert (method.config, method.hyper) == (toys.Config, toys.Hyper)
    wrapped = replace(method, prepare=lambda *given: ({}, {}))
    assert (wrapped.config, wrapped.hyper) == (toys.Config, toys.Hyper)


def test_a_stage_moves_every_parameter_unless_it_names_some() -> None:
    params = {"weight": torch.zeros(1), "bias": torch.zeros(1)}
    (stage,) = toys.one_stage(toys.Config())
    assert list(stage.trained(params)) == ["bias", "weight"]
    assert list(replace(stage, trains=None).trained(params)) == ["bias", "weight"]
    assert list(replace(stage, trains=frozenset({"bias"})).trained(params)) == ["bias"]


def test_fields_that_prepare_reads_are_those_declared(make_toy: Any) -> None:
    method: AnyMethod = make_toy("toy")
    assert method.prepare_fields == ("shift",)


@pytest.mark.parametrize("name", quick(registry.names(), 8))
def test_terms_never_see_labels_or_weights(name: str) -> None:
    """Neither those of the rows that are answered nor those of the queries beside them."""
    plain = registry.get(name)
    seen: list[Rows] = []

    def noted(params: Any, fixed: Any, rows: Rows, config: Any, hyper: Any) -> Any:
        seen.append(rows)
        return plain.terms(params, fixed, rows, config, hyper)

    method = replace(plain, terms=noted)
    task = _weighted(make_task(FEATURES, method, class_weights="balanced"))
    made = settings(method)
    select(method, made, [task], "few-shot-val")
    if any(need.role == "support" for need in method.needs(made.config)):  # whose rows have weights
        select(method, made, [task], "cv")
    (run,) = train(method, made.config, [task.view], [made.hyper])
    run.head.predict(task.query)
    assert seen
    for rows in seen:
        beside = rows if rows.among is None else rows.among
        assert rows.labels is rows.weights is beside.labels is beside.weights is None
    assert any(rows.among is not None for rows in seen) == method.transductive


def _weighted(task: Episode) -> Episode:
    assert task.val is not None
    val, query = (replace(r, weights=torch.ones(len(r))) for r in (task.val, task.query))
    return replace(task.with_query(query), val=val)

"""Episodes: the draw, the list on disk, every few-shot method in it, and pairing."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.errors import (
    ImportedFileError,
    MissingComponentError,
    NewerFormatError,
    TaskError,
    TrainingError,
    UnknownNameError,
    UsageError,
)
from featcache.types import FeatureSet
from heads import registry
from heads.protocols import episodes as lists
from heads.protocols import episodic
from heads.results import statistics, store
from heads.results.compare import compare as comparison
from heads.results.compare.pairing import difference_to_zero_shot, paired_difference
from heads.results.reading import from_json
from heads.results.record import Result
from heads.results.render.markdown import to_markdown
from heads.selection.select import select

World = Callable[..., FeatureSet]
SMALL: dict[str, Any] = {"ways": 3, "shots": 2, "queries": 4, "episodes": 6, "split": "test"}
ALSO = {
    "views.cdfsl-2": (2,),
    "patches.clearclip": (5,),
    "view_patches.clearclip.cdfsl-2": (2, 5),
    "crops.lazsl-3": (3,),
}


def run(features: FeatureSet, method: str = "tip-adapter", **more: Any) -> Result:
    return episodic.run(method, features=features, **{**SMALL, **more})


def draw(features: FeatureSet, **more: Any) -> lists.Episodes:
    return lists.draw(features, **{**SMALL, "seed": 1, **more})


def by_hand(features: FeatureSet) -> dict[str, Any]:
    """A list as somebody may write one: of format 1, without a seal."""
    raw: dict[str, Any] = json.loads(draw(features).to_json(features.listing))
    del raw["crc"]
    return raw | {"format": 1}


def test_a_list_that_nobody_could_keep_is_refused_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = world()
    with pytest.raises(UsageError, match=r"^episodes must be at most 100,000"):
        draw(features, episodes=10**14)
    for seed in (2**63, -(2**63), 10**30):
        with pytest.raises(UsageError, match=r"^seed must be less"):
            draw(features, seed=seed)
    with pytest.raises(TaskError, match="need as many"):
        draw(features, queries=10**9)
    monkeypatch.setattr(lists, "ANSWERED", 6 * 3 * (2 + 4) - 1)
    with pytest.raises(UsageError, match=r"are 108; a list holds at most 107. Lower episodes"):
        draw(features)


def test_support_and_query_share_nothing_and_have_the_right_classes(world: World) -> None:
    features = world()
    drawn = draw(features, episodes=30)
    test = set(features.usable("test").tolist())
    for e in range(30):
        support, query = drawn.support(e), drawn.query(e)
        assert len({*support.tolist(), *query.tolist()}) == 3 * (2 + 4)
        assert {*support.tolist(), *query.tolist()} <= test
        assert features.labels[support].tolist() == drawn.classes[e].repeat(2).tolist()
        assert features.labels[query].tolist() == drawn.classes[e].repeat(4).tolist()
        assert len(set(drawn.classes[e].tolist())) == 3
    assert len({tuple(c) for c in drawn.classes.tolist()}) > 5


def test_the_draw_follows_the_seed_and_grows_at_its_end(world: World) -> None:
    features = world()
    few, many = draw(features), draw(features, episodes=9)
    assert np.array_equal(few.rows, many.rows[:6])
    assert not np.array_equal(few.rows, draw(features, seed=2).rows)
    assert draw(features).digest(features.listing) == few.digest(features.listing)
    assert many.digest(features.listing) != few.digest(features.listing)


def test_unreadable_and_unlabelled_images_are_in_no_episode(world: World) -> None:
    features = world()
    rows = features.usable("test")
    ok, labels = features.ok.copy(), features.labels.copy()
    ok[rows[0]], labels[rows[11]] = False, -1
    features = replace(features, ok=ok, listing=replace(features.listing, labels=labels))
    drawn = draw(features, episodes=60)
    assert not {int(rows[0]), int(rows[11])} & set(drawn.rows.flatten().tolist())


def test_the_record(world: World) -> None:
    features = world(text_noise=1.0)
    result = run(features)
    assert (result.protocol, result.selection, result.shots) == ("episodic", "none", 2)
    assert (result.seeds, result.ways, result.variant) == ((1,), 3, "")
    assert (result.repetitions, result.queries, result.classes) == (6, 12, 5)
    top1 = result.metrics["top1"]
    assert top1.interval == "episodes"
    over_episodes = statistics.of_draws(np.array(top1.values), size=6.0 * 12)
    assert top1.ci95 == pytest.approx(float(over_episodes.half))
    assert any("defaults" in note for note in result.notes)
    assert len(result.chosen) == 1
    assert from_json(result.to_json()) == result
    kept, drawn = result.predictions, draw(features)
    assert kept is not None
    assert np.array_equal(
        kept.labels, np.stack([features.labels[drawn.query(e)] for e in range(6)])
    )
    for e in range(6):
        assert set(kept.predicted[e].tolist()) <= set(drawn.classes[e].tolist())


def test_zero_shot_answers_each_episode_among_its_classes(world: World) -> None:
    features = world(text_noise=1.0)
    result = run(features, "zero-shot")
    assert (result.shots, result.selection) == (0, "none")
    assert features.text is not None
    assert result.predictions is not None
    anchors, drawn = features.text.anchors(), draw(features)
    for e in range(6):
        x = features.unit("global", drawn.query(e))
        best = (x @ anchors[drawn.classes[e].tolist()].T).argmax(1).tolist()
        assert result.predictions.predicted[e].tolist() == drawn.classes[e][best].tolist()
    assert result.predictions.zero_shot is not None
    assert np.array_equal(result.predictions.predicted, result.predictions.zero_shot)
    assert result.zero_shot_top1 == result.metrics["top1"].mean


ELSEWHERE = ("fair", "sus-x", "neural-priming")
"""Methods that learn from what an episode does not have."""


@pytest.mark.parametrize("method", [m for m in registry.names() if m not in ELSEWHERE])
def test_every_other_method_runs(world: World, method: str) -> None:
    features = world(also=ALSO, views=2, descriptions=True)
    short = {"steps": 3, "epochs": 2, "steps_text": 2}
    settings = {k: v for k, v in short.items() if hasattr(registry.get(method).config(), k)}
    result = run(features, method, settings=settings, episodes=3)
    learns = any(n.role == "support" for n in registry.get(method).needs(
        registry.get(method).config()))  # fmt: skip
    assert result.shots == (2 if learns else 0)
    assert len(result.metrics["top1"].values) == 3
    assert result.metrics["top1"].mean > 0.5


@pytest.mark.parametrize("method", ELSEWHERE)
def test_a_pool_or_a_corpus_is_refused(world: World, method: str) -> None:
    with pytest.raises(UsageError, match="without protocol='episodic'"):
        run(world(), method)


def test_blocks_change_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(world(), "tip-adapter-f")
    monkeypatch.setattr(episodic, "BLOCK", 4)
    told: list[tuple[str, int, int]] = []
    parts = run(world(), "tip-adapter-f", progress=lambda *t: told.append(t))
    assert whole.predictions is not None
    assert parts.predictions is not None
    assert np.array_equal(whole.predictions.predicted, parts.predictions.predicted)
    assert [d for _, d, _ in told] == sorted(d for _, d, _ in told)
    assert told[-1][1:] == (6, 6)


def test_each_episode_has_batches_of_its_own(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def look(method: Any, settings: Any, tasks: Any, *rest: Any, **more: Any) -> Any:
        seen.extend(task.view.seed for task in tasks)
        return select(method, settings, tasks, *rest, **more)

    monkeypatch.setattr(episodic, "select", look)
    run(world())
    run(world(), seed=2)
    assert len(set(seen)) == 12


def test_the_list_comes_back_from_json(world: World, tmp_path: Path) -> None:
    features = world()
    result = run(features, seed=7)
    folder = store.save(result, tmp_path)
    path = folder / lists.FILE
    again = episodic.run("tip-adapter", features=features, episode_list=path)
    assert again.predictions is not None
    assert result.predictions is not None
    assert np.array_equal(again.predictions.predicted, result.predictions.predicted)
    assert (again.ids, again.seeds, again.ways) == (result.ids, (7,), 3)
    assert again.beside == result.beside
    with pytest.raises(UsageError, match="so ways has no effect"):
        episodic.run("tip-adapter", features=features, episode_list=path, ways=3)
    turned = replace(features.listing, labels=np.roll(features.listing.labels, 10))
    with pytest.raises(ImportedFileError, match="labels"):
        lists.read(path, replace(features, listing=turned))


def test_a_list_survives_a_new_order_of_rows_and_classes(world: World, tmp_path: Path) -> None:
    features = world()
    drawn, old = draw(features), features.listing
    (tmp_path / "list.json").write_text(drawn.to_json(old))
    order = (2, 0, 1, 4, 3)
    rank = np.argsort(order)
    listing = replace(
        old, classes=tuple(old.classes[c] for c in order), labels=rank[old.labels].astype(np.int64)
    )
    again = lists.read(tmp_path / "list.json", replace(features, listing=listing))
    assert np.array_equal(again.rows, drawn.rows)
    assert np.array_equal(again.classes, rank[drawn.classes])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dataset": "other"}, "is for data set 'other'"),
        ({"split": "train"}, "lacks"),
        ({"images": None}, "list of episodes"),
        ({"shots": 3}, "list of episodes"),
        ({"shots": "x"}, "list of episodes"),
        ({"ways": 10**400}, "list of episodes"),
        ({"episodes": []}, "list of episodes"),
        ({"episodes": [{}]}, "list of episodes"),
        ({"classes": ["nobody"] * 5}, "classes that the data set lacks"),
    ],
)
def test_a_wrong_list_is_refused(
    world: World, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    features, path = world(), tmp_path / "list.json"
    raw = by_hand(features) | change
    path.write_text(json.dumps(raw))
    with pytest.raises(ImportedFileError, match=says):
        lists.read(path, features)


def test_a_list_with_a_changed_byte_is_refused(world: World, tmp_path: Path) -> None:
    features, path = world(), tmp_path / "list.json"
    text = draw(features).to_json(features.listing).encode()
    path.write_bytes(text)
    assert lists.read(path, features).digest(features.listing) == draw(features).digest(
        features.listing
    )
    rng = np.random.default_rng(0)
    for place in rng.integers(len(text) - 1, size=60):
        changed = bytearray(text)
        changed[place] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(changed))
        with pytest.raises((ImportedFileError, NewerFormatError)):
            lists.read(path, features)
    path.write_text(json.dumps(by_hand(features)))
    assert len(lists.read(path, features)) == SMALL["episodes"]


def test_a_list_that_leaks_is_refused(world: World, tmp_path: Path) -> None:
    features, path = world(), tmp_path / "list.json"
    raw = by_hand(features)
    raw["episodes"][2]["query"][0][0] = raw["episodes"][2]["support"][0][0]
    path.write_text(json.dumps(raw))
    with pytest.raises(ImportedFileError, match="twice in episode 3"):
        lists.read(path, features)
    path.write_text('{"format": 3}')
    with pytest.raises(NewerFormatError, match="Upgrade"):
        lists.read(path, features)
    for text in ("[1]", "{", "[" * 100_000):
        path.write_text(text)
        with pytest.raises(ImportedFileError):
            lists.read(path, features)
    with pytest.raises(ImportedFileError, match="cannot be read"):
        lists.read(tmp_path / "none.json", features)


def test_runs_are_paired_episode_by_episode(world: World, tmp_path: Path) -> None:
    features = world(text_noise=1.0, noise=0.6)
    tip, probe, zero = (run(features, m) for m in ("tip-adapter", "linear-probe", "zero-shot"))
    a, b = tip.metrics["top1"].values, probe.metrics["top1"].values
    d = paired_difference(tip, probe)
    each = [x - y for x, y in zip(a, b, strict=True)]
    assert d.over == "episodes"
    assert d.mean == pytest.approx(sum(each) / 6)
    over_episodes = statistics.of_draws(
        np.array(each), outcomes=statistics.DIFFERENCES, size=6.0 * 12
    )
    assert d.high - d.mean == pytest.approx(float(over_episodes.half))
    assert difference_to_zero_shot(tip) == paired_difference(tip, zero)
    with pytest.raises(UsageError, match="different queries"):
        paired_difference(tip, run(features, "linear-probe", seed=2))
    for result in (tip, probe, zero, run(features, "linear-probe", seed=2)):
        store.save(result, tmp_path)
    groups = comparison.compare(tmp_path, against="linear-probe").groups
    sizes = {tuple(sorted(r.method for r in g.rows)): g for g in groups}
    group = sizes["linear-probe", "tip-adapter", "zero-shot"]
    assert group.title.startswith("toy, tiny, 3-way 2 shots, test (6 episodes ")
    gains = {r.method: r.gain for r in group.rows}
    assert gains["tip-adapter"] == d
    assert gains["linear-probe"] is None
    assert "over linear-probe" in to_markdown([group])
    with pytest.raises(UnknownNameError, match="run to compare with 'linear-prob'"):
        comparison.compare(tmp_path, against="linear-prob")


def test_folds_of_the_support_may_choose(world: World) -> None:
    settings = {"beta": 5.5, "alpha": [0.1, 3.0]}
    result = run(world(text_noise=1.0), settings=settings, selection="cv", episodes=3)
    assert result.selection == "cv"
    with pytest.raises(UsageError, match="Without validation"):
        run(world(), settings=settings)


def test_folds_choose_for_a_method_that_answers_all_queries_together(world: World) -> None:
    result = run(world(text_noise=1.0), "transclip", selection="cv", episodes=2)
    assert result.selection == "cv"
    assert {c["gamma"] for c in result.chosen} <= {0.002, 0.01, 0.02, 0.2}


def test_missing_view_patches_are_named_with_their_rows(world: World) -> None:
    features = world(also={"patches.clearclip": (5,)})
    with pytest.raises(MissingComponentError) as caught:
        run(features, "cc-cdfsl")
    assert str(caught.value).endswith("view_patches=['4@test'], views=['4:cdfsl@test'])")


def test_errors(world: World) -> None:
    few = r"0 of its 5 classes have them; number 3 by size has 10\. Lower ways"
    with pytest.raises(TaskError, match=few):
        run(world(), shots=7)
    with pytest.raises(TaskError, match=r"of its 5 classes have them\. Lower ways"):
        run(world(), ways=50)
    with pytest.raises(UsageError, match=r"^ways must be at least 2"):
        run(world(), ways=1)
    with pytest.raises(UsageError, match=r"^episodes must be at least 1"):
        run(world(), episodes=0)
    with pytest.raises(UnknownNameError, match=r"selection of episodes 'few-shot-val'"):
        run(world(), selection="few-shot-val")
    with pytest.raises(UnknownNameError, match="Unknown split 'sketsch'"):
        run(world(), split="sketsch")
    with pytest.raises(TrainingError):
        run(world(), "cmm", settings={"lr": 1e30, "steps": 8})


def test_small_classes_are_left_out_and_named(world: World) -> None:
    features = world(counts={"test": (10, 10, 10, 5, 10)})
    assert any("class 3" in note for note in run(features).notes)
    assert 3 not in set(draw(features).classes.flatten().tolist())

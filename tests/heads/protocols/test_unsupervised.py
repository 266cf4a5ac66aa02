"""Unsupervised adaptation, from a cache to the record."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import MissingComponentError, TaskError, UnknownNameError, UsageError
from featcache.types import FeatureSet
from heads.protocols import training
from heads.results.compare.pairing import paired_difference
from heads.results.reading import from_json
from heads.results.record import Result

World = Callable[..., FeatureSet]
ALSO = {"crops.fair-4": (4,), "views.strong-2": (2,), "views.weak-1": (1,)}
QUICK: dict[str, Any] = {"student": "anchors", "epochs": 2, "batch": 16}


def make(world: World, **more: Any) -> FeatureSet:
    return world(**{"also": ALSO, "descriptions": True, **more})


def run(features: FeatureSet, **more: Any) -> Result:
    return training.run("fair", features=features, **{"settings": QUICK, **more})


def test_the_record(world: World) -> None:
    features = make(world)
    result = run(features)
    assert (result.protocol, result.selection, result.shots) == ("unsupervised", "none", 0)
    assert (result.seeds, result.repetitions) == ((1,), 1)
    assert result.metrics["top1"].interval == "queries"
    assert result.notes == ("Trained on 60 images of train, without a look at their labels.",)
    assert from_json(result.to_json()) == result
    start = training.run("zero-shot", features=features, settings={"text": "description"})
    assert paired_difference(result, start).over == "queries"


def test_shots_and_seeds_are_ignored(world: World) -> None:
    features = make(world)
    routed = training.run(
        "fair", features=features, shots=16, seeds=[2, 3], settings=QUICK, strict_shots=True
    )
    assert (routed.protocol, routed.shots, routed.seeds) == ("unsupervised", 0, (2,))
    assert routed.selection == "none"
    direct = run(features, seeds=[2])
    assert routed.predictions is not None
    assert direct.predictions is not None
    assert np.array_equal(routed.predictions.predicted, direct.predictions.predicted)


@pytest.mark.parametrize("settings", [QUICK, {}])
def test_labels_of_the_pool_are_never_read(settings: dict[str, Any], world: World) -> None:
    """Heads are bit-equal, whatever the labels of train are; unlabelled rows count too."""
    features = make(world)
    train = features.usable("train")
    one = training.train("fair", features=features, settings=settings)
    for poison in (np.full(len(train), -1), np.roll(features.labels[train], 7)):
        labels = features.labels.copy()
        labels[train] = poison
        other = training.train(
            "fair",
            features=replace(features, listing=replace(features.listing, labels=labels)),
            settings=settings,
        )
        mine, theirs = (t.heads[0][0].fitted for t in (one, other))
        for name in ("params", "fixed"):
            ours, others = getattr(mine, name), getattr(theirs, name)
            assert ours.keys() == others.keys()
            assert all(torch.equal(ours[n], others[n]) for n in ours)
    start = features.text
    assert start is not None
    if settings:
        assert not torch.equal(mine.params["learned"], start.anchors("description"))
    else:
        assert bool(mine.fixed["weight"].any())


def test_values_to_choose_from_need_something_to_choose_by(world: World) -> None:
    features, grid = make(world), {**QUICK, "lr": [1e-4, 1e-2]}
    with pytest.raises(UsageError, match=r" lr='0.0001,0.01'\).*selection='full-val'"):
        run(features, settings=grid)
    with pytest.raises(UsageError, match="full-val"):
        run(features, settings=grid, selection="few-shot-val")
    assert run(features, settings=grid, selection="full-val").selection == "full-val"
    assert run(features, settings=grid, selection="oracle").oracle
    assert run(features, selection="full-val").selection == "none"
    with pytest.raises(TaskError, match="no labelled val images"):
        run(make(world, counts={"train": 6, "test": 4}), settings=grid, selection="full-val")
    with pytest.raises(UnknownNameError, match="full-vall"):
        run(features, selection="full-vall")


def test_pool_and_query_share_no_image(world: World) -> None:
    with pytest.raises(TaskError, match="in both query and pool"):
        run(make(world), split="train")


def test_images_of_the_pool_among_the_queries_are_told(world: World) -> None:
    features = make(world)
    hashes = list(features.listing.hashes)
    hashes[int(features.usable("test")[0])] = hashes[0]
    twin = replace(features, listing=replace(features.listing, hashes=hashes))
    told = "1 query image is byte for byte an image of the pool; the first is "
    assert any(note.startswith(told) for note in run(twin).notes)


def test_what_lacks_comes_with_its_call(world: World) -> None:
    with pytest.raises(MissingComponentError) as caught:
        run(make(world, also={}))
    assert str(caught.value).endswith("crops=['16:fair'], views=['8:strong'])")
    with pytest.raises(MissingComponentError) as caught:
        run(make(world), settings={**QUICK, "regions": "patches"})
    assert str(caught.value).endswith("patches=['clearclip'])")
    with pytest.raises(MissingComponentError, match="holds no texts of kind 'description'"):
        run(make(world, descriptions=False))


def test_without_weak_views_the_clean_image_stands_in_and_the_record_says_so(
    world: World,
) -> None:
    (_, note) = run(make(world, also={n: s for n, s in ALSO.items() if "weak" not in n})).notes
    assert note.startswith("Trained without views of recipe weak: they are not cached for every po")
    assert note.endswith("--views 1:weak")


def test_patches_are_a_variant(world: World) -> None:
    features = make(world, also=ALSO | {"patches.clearclip": (9,)})
    result = run(features, settings={**QUICK, "regions": "patches", "infer": "las"})
    assert result.variant == "batch=16 epochs=2 infer=las regions=patches student=anchors"


def test_without_images_to_learn_from(world: World) -> None:
    features = make(world)
    ok = features.ok.copy()
    ok[features.usable("train")] = False
    with pytest.raises(TaskError, match="no readable image in 'train'"):
        run(replace(features, ok=ok))
    with pytest.raises(UnknownNameError, match="train"):
        run(make(world, counts={"test": 4}))


def test_imported_features_have_no_pool(world: World) -> None:
    features = make(world, counts={"test": 4})
    imported = replace(features, key=replace(features.key, image_size=0))
    with pytest.raises(MissingComponentError, match=r"imported without.*choose another method"):
        run(imported)

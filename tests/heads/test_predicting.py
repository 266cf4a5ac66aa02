"""Images one by one through a head: as through a cache, whatever is among them."""

import io
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import heads
from featcache.errors import HeadError, SourceError, UnknownNameError, UsageError
from featcache.sources.queries.opening import open_queries
from featcache.types import FeatureSet
from heads.answers import answers_of
from heads.api import fit
from heads.contract.rows import Rows
from heads.estimator import Estimator
from heads.head import Head
from heads.ops.score_names import RULES
from heads.predicted import Prediction
from heads.predicting import BLOCK, NOT_FINITE, Predictor, predict
from tests.heads.photographs import extracted

pytestmark = pytest.mark.long

CLASSES = ("ant", "bee", "fly")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    """Photographs through a real pass with the embedded model, with crops, views and patches."""
    splits = {"train": 2, "val": 1, "test": 9}
    home = tmp_path_factory.mktemp("world")
    parts = {"views": ("4:cdfsl@train",), "view_patches": ("4:cdfsl@train",)}
    return extracted(home, CLASSES, splits, torn=True, crops=("4:lazsl@all",), **parts)


@pytest.fixture(scope="module", params=["ridge", "lazsl", "cc-cdfsl"])
def head(request: pytest.FixtureRequest, cache: FeatureSet) -> Head:
    few: dict[str, Any] = {"steps": 3} if request.param == "cc-cdfsl" else {}
    return fit(request.param, cache, shots=2, selection="none", device="cpu", **few)


@pytest.fixture(scope="module")
def ridge(cache: FeatureSet) -> Head:
    return fit("ridge", cache, shots=2, selection="none", device="cpu")


def files(cache: FeatureSet, split: str = "test") -> list[Path]:
    root = Path(cache.listing.root)
    return [root / cache.listing.ids[row] for row in cache.listing.rows(split)]


def by_image(predictions: Iterator[Prediction]) -> dict[str, Any]:
    """Name of the file -> candidates, every bit of their probabilities."""
    return {
        "/".join(p.id.split("/")[-2:]): [(c.name, c.probability.hex()) for c in p.candidates]
        for p in predictions
    }


def test_a_cache_and_its_files_agree_to_the_last_bit(cache: FeatureSet, head: Head) -> None:
    stored = by_image(predict(head, cache))
    paths = files(cache)
    assert len(stored) == len(paths) == 28
    assert by_image(predict(head, paths)) == stored
    assert by_image(predict(head, paths[::-1])) == stored
    folder = Path(cache.listing.root) / "test"
    assert by_image(predict(head, folder)) == stored


def test_some_of_the_images_get_the_same_answers(cache: FeatureSet, head: Head) -> None:
    every = {Path(p.id).as_posix()[-9:]: p for p in predict(head, cache)}
    for each in predict(head, files(cache)[3:6]):
        stored = every[each.id[-9:]]
        if head.method.name == "lazsl":  # solves images together until all have converged
            pairs = zip(each.candidates, stored.candidates, strict=True)
            assert all(abs(a.probability - b.probability) < 1e-5 for a, b in pairs)
        else:
            assert each.candidates == stored.candidates


def test_it_agrees_with_the_head(cache: FeatureSet, head: Head) -> None:
    found = [p for p in predict(head, cache, top=2) if not p.problem]
    labels = head.predict(cache)
    assert [p.candidates[0].label for p in found] == labels.tolist()
    probabilities = torch.tensor([p.candidates[0].probability for p in found])
    expected = head.probabilities(cache).max(1).values
    assert torch.allclose(probabilities, expected, atol=1e-6)
    assert all(len(p.candidates) == 2 for p in found)


@pytest.mark.parametrize("n", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3])
def test_an_answer_does_not_depend_on_how_many_there_are(
    cache: FeatureSet, ridge: Head, n: int
) -> None:
    """Rows in many blocks: equal photographs get equal bits wherever they are."""
    predictor = Predictor(ridge)
    paths = files(cache)[:5]
    once = predictor.embedder.embed([*paths])
    rows = torch.arange(n) % 5
    many = type(once)(
        key=once.key,
        backbone=once.backbone,
        ids=tuple(map(str, range(n))),
        components={name: values[rows] for name, values in once.components.items()},
        reasons={},
    )
    alone = [predictor.embedded(predictor.embedder.embed([path]))[0] for path in paths]
    for number, each in enumerate(predictor.embedded(many)):
        assert each.candidates == alone[number % 5].candidates


def test_ties_in_probability_are_ranked_by_logits(
    ridge: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor(replace(ridge, temperature=1e-6))
    logits = torch.tensor(
        [[0.0, 1.0, 2.0], [3.0, 3.0, 3.0], [1.0, float("nan"), 2.0], [0.0, float("-inf"), 1.0]]
    )
    monkeypatch.setattr(Head, "logits", lambda *_: logits)
    answers = [[c.name for c in d.candidates] for d in predictor.decide(Rows.of(logits))]
    assert answers == [["fly", "bee", "ant"], ["ant", "bee", "fly"], [], ["fly", "ant", "bee"]]


def test_probabilities_that_are_not_finite_are_no_answer(cache: FeatureSet, ridge: Head) -> None:
    strange = replace(ridge, temperature=5e-324)  # as a file may state it
    usual, found = (list(Predictor(head).cached(cache)) for head in (ridge, strange))
    assert any(answer.candidates for answer in usual)
    assert [answer.problem for answer in found] == [each.problem or NOT_FINITE for each in usual]


@pytest.fixture(scope="module")
def calibrated(cache: FeatureSet) -> Head:
    return fit("gda", cache, shots=2, calibrate_on="folds")


@pytest.mark.parametrize("rule", RULES)
def test_sets_and_rejections_are_those_of_the_head(
    cache: FeatureSet, calibrated: Head, rule: str
) -> None:
    asked: dict[str, Any] = {"coverage": 0.6, "rule": rule, "reject": 0.3}
    every = list(predict(calibrated, cache, top=1, **asked))
    found = [p for p in every if not p.problem]
    expected = answers_of(calibrated, cache, **asked)
    assert expected.sets is not None
    assert expected.rejected is not None
    for p, within, rejected in zip(found, expected.sets, expected.rejected, strict=True):
        assert p.set is not None
        assert {c.label for c in p.set} == set(within.nonzero().flatten().tolist())
        assert sorted(p.set, key=lambda c: -c.probability) == list(p.set)
        assert p.rejected is bool(rejected)
    by_file = [(p.set, p.rejected) for p in predict(calibrated, files(cache), **asked)]
    assert by_file == [(p.set, p.rejected) for p in every]
    assert all((p.set, p.rejected) == (None, None) for p in every if p.problem)
    assert all((p.set, p.rejected) == (None, None) for p in predict(calibrated, cache))


def test_what_a_head_cannot_promise_is_told_before_images_are_read(
    cache: FeatureSet, ridge: Head, calibrated: Head
) -> None:
    with pytest.raises(HeadError, match="calibrate_on='folds'"):
        predict(replace(ridge, calibration=None), ["none.jpg"], coverage=0.9)
    with pytest.raises(HeadError, match=r"6 calibration rows promise at most a coverage of 0\.85"):
        predict(calibrated, ["none.jpg"], coverage=0.9)
    with pytest.raises(UnknownNameError, match="aps"):
        predict(calibrated, ["none.jpg"], coverage=0.6, rule="apps")
    with pytest.raises(UsageError, match="reject must be a number between 0 and 1"):
        predict(calibrated, ["none.jpg"], reject=1.5)


def test_what_cannot_be_used_stops_nothing(cache: FeatureSet, head: Head, tmp_path: Path) -> None:
    good = files(cache)[0]
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.jpg").touch()
    os.mkfifo(tmp_path / "pipe.jpg")
    bomb = tmp_path / "bomb.png"
    Image.new("1", (1 << 15, 1 << 15)).save(bomb)
    big = tmp_path / "big.jpg"
    with big.open("wb") as file:
        file.truncate(3 << 30)
    names = ["none.jpg", "text.jpg", "empty.jpg", "pipe.jpg", "bomb.png", "big.jpg", "x" * 300]
    found = list(predict(head, [good, *(tmp_path / name for name in names), good]))
    assert [bool(p.problem) for p in found] == [False, *[True] * len(names), False]
    assert found[0] == found[-1]
    reasons = dict(zip(names, (p.problem for p in found[1:]), strict=False))
    assert reasons["none.jpg"] == "cannot be read: No such file or directory"
    assert "no image of a known format" in reasons["text.jpg"]
    assert reasons["empty.jpg"] == "is empty"
    assert "no regular file" in reasons["pipe.jpg"]
    assert "limit" in reasons["bomb.png"]
    assert "limit" in reasons["big.jpg"]


def test_labels_go_with_their_images(cache: FeatureSet, ridge: Head) -> None:
    queries = open_queries(f"{cache.listing.root}/test", Path("/nowhere"))
    found = list(Predictor(ridge).images(queries.images))
    assert all(p.label == Path(p.id).parent.name for p in found)
    assert sum(bool(p.problem) for p in found) == 1
    stored = {p.id: p.label for p in predict(ridge, cache)}
    assert stored == {f"test/{p.label}/{Path(p.id).name}": p.label for p in found}


def test_bytes_pillow_images_and_arrays(cache: FeatureSet, ridge: Head) -> None:
    path = files(cache)[0]
    image = Image.open(path).convert("RGB")
    given: list[Any] = [path, path.read_bytes(), image, np.asarray(image)]
    found = list(predict(ridge, given))
    assert all(p.candidates == found[0].candidates for p in found)
    assert [p.id for p in found[1:]] == ["images[1]", "images[2]", "images[3]"]
    (alone,) = predict(ridge, path.read_bytes())
    assert alone.candidates == found[0].candidates
    with pytest.raises(UsageError, match="should be a path"):
        list(predict(ridge, [path, 7]))  # type: ignore[list-item]


def test_a_stream_may_be_endless_and_is_taken_little_ahead(cache: FeatureSet, ridge: Head) -> None:
    data = files(cache)[0].read_bytes()
    taken = count()

    def endless() -> Iterator[bytes]:
        while next(taken) < 5000:
            yield data

    predictor = Predictor(ridge)
    stream = predictor.images(endless())
    assert len(list(islice(stream, 200))) == 200
    stream.close()
    assert next(taken) < 1500


def test_folders_among_files(cache: FeatureSet, ridge: Head, tmp_path: Path) -> None:
    paths = files(cache)
    (tmp_path / "new.csv").write_text(f"path\n{paths[1].name}\n")
    table = f"csv:{tmp_path}/new.csv?root={paths[1].parent}"
    found = list(predict(ridge, [paths[0], table, Path(cache.listing.root) / "val"]))
    assert len(found) == 1 + 1 + 3
    with pytest.raises(SourceError, match="no images"):
        list(predict(ridge, [tmp_path / "new.csv", tmp_path]))


def test_wrong_calls(cache: FeatureSet, ridge: Head) -> None:
    for top in (0, -1):
        with pytest.raises(UsageError, match="top"):
            predict(ridge, cache, top=top)
    with pytest.raises(UsageError, match="split='val' is for a cache"):
        predict(ridge, files(cache), split="val")
    with pytest.raises(UnknownNameError, match="test"):
        list(predict(ridge, cache, split="tset"))
    assert len(next(predict(ridge, cache, top=99)).candidates) == 3


def test_a_head_of_plain_arrays_says_that_it_reads_no_images() -> None:
    rows = np.eye(4, dtype=np.float32)
    head = Estimator("ridge").fit(rows, [0, 0, 1, 1]).head_
    with pytest.raises(HeadError, match="plain arrays"):
        list(heads.predict(head, ["a.jpg"]))


def test_a_description_survives_json(ridge: Head, cache: FeatureSet) -> None:
    buffer = io.StringIO()
    for each in predict(ridge, cache):
        buffer.write(json.dumps(each.to_json(), allow_nan=False) + "\n")
    first = json.loads(buffer.getvalue().splitlines()[0])
    assert list(first) == ["image", "candidates", "label", "problem"]
    assert sum(c["probability"] for c in first["candidates"]) == pytest.approx(1, abs=1e-5)

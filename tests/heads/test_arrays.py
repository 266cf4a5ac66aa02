"""The estimator on plain arrays: scikit-learn's own checks, labels of any kind, honest refusals."""

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score

from featcache.errors import MissingComponentError, UnknownNameError, UsageError
from heads import registry
from heads.arrays import DataConversionWarning, InputError, encode
from heads.estimator import Estimator
from heads.head import Head
from tests.heads.toy_tasks import short

pytestmark = pytest.mark.long

TEXT_FREE = ("gda", "linear-probe", "ridge", "nearest-mean", "knn")
REFUSED = {
    "cc-cdfsl": "patches of every support image",
    "fair": "crops.fair of every pool image",
    "lazsl": "crops.lazsl of every query image",
    **dict.fromkeys(("neural-priming", "sus-x"), "a corpus"),
    **dict.fromkeys(("dmn", "oga", "stata", "tda", "transclip"), "all queries together"),
}
"""What plain arrays cannot hold."""
SKIPPED = {
    "check_array_api_input": "an environment variable of SciPy switches it on",
    "check_classifier_data_not_an_array": "it needs pandas",
}
"""Checks that scikit-learn itself skips."""


def clusters(dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows around three means, their labels and the means."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(3, 16))
    places = np.repeat([0, 1, 2], 8)
    x = means[places] + 0.3 * rng.normal(size=(24, 16))
    return x.astype(dtype), np.array(["ant", "bee", "cat"])[places], means.astype(dtype)


CHECK = """
import json, sys
from sklearn.utils.estimator_checks import check_estimator
from heads import Estimator
for method in sys.argv[1:]:
    done = check_estimator(Estimator(method), on_skip=None, on_fail=None)
    print(json.dumps([(one["check_name"], one["status"], repr(one["exception"])) for one in done]))
"""


def test_it_passes_the_checks_of_scikit_learn() -> None:
    # in a process of its own: the checks set parameters to nonsense, which must not be refused
    # before `fit`, and here annotations are enforced
    done = subprocess.run(
        [sys.executable, "-c", CHECK, *TEXT_FREE],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(TEXT_FREE)
    for line in lines:
        found = json.loads(line)
        assert [one for one in found if one[1] == "failed"] == []
        assert {name for name, status, _ in found if status == "skipped"} <= set(SKIPPED)
        assert sum(status == "passed" for _, status, _ in found) >= 50


@pytest.mark.parametrize("name", registry.names())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_method_takes_arrays_or_says_why_not(name: str, dtype: Any) -> None:
    x, y, anchors = clusters(dtype)
    model = Estimator(name, **short(registry.get(name)))
    if name in REFUSED:
        with pytest.raises(InputError, match=f"^{name} reads {REFUSED[name]}"):
            model.fit(x, y, texts=anchors)
        return
    if name not in (*TEXT_FREE, "auto"):  # auto leaves out the members that read texts
        with pytest.raises(InputError, match=r"reads class texts; give fit\(X, y, texts=...\)"):
            model.fit(x, y)
    model.fit(x, y, texts=anchors)
    assert model.score(x, y) == 1
    assert model.head_.dtype == torch.from_numpy(x).dtype
    assert model.decision_function(x).dtype == dtype


def test_answers_are_those_of_scikit_learn() -> None:
    x, y, _ = clusters()
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    theirs = LogisticRegression(C=3.0, tol=1e-10, max_iter=10_000).fit(unit, y)
    mine = Estimator("linear-probe", C=3.0).fit(x, y)
    assert np.allclose(mine.predict_proba(x), theirs.predict_proba(unit), atol=1e-4)


def test_rows_may_be_numpy_torch_or_lists() -> None:
    x, y, _ = clusters(np.float32)
    expected = Estimator("ridge").fit(x, y).decision_function(x)
    for other in (torch.from_numpy(x), np.asfortranarray(x), x.astype(np.float64).tolist()):
        got = Estimator("ridge").fit(other, list(y)).decision_function(other)
        assert np.allclose(got, expected, atol=1e-5)
    half = torch.from_numpy(x).bfloat16()
    assert Estimator("ridge").fit(half, y).score(half, y) == 1


@pytest.mark.parametrize(
    "names",
    [
        ["b", "a", "c"],
        [30, -1, 7],
        [3.0, 1.0, 2.0],
        [("x", 2), ("x", 1), ("y", 0)],
        ["1", 1, None],
        [True, False, 5],
        [np.str_("q"), "p", "r"],
    ],
)
def test_labels_are_given_back_as_they_came(names: list[Any]) -> None:
    x, _, _ = clusters()
    y = [names[i // 8] for i in range(24)]
    model = Estimator("nearest-mean").fit(x, y)
    assert model.predict(x).tolist() == y
    assert [type(label) for label in model.predict(x).tolist()] == [
        type(label.item() if isinstance(label, np.generic) else label) for label in y
    ] or names == [True, False, 5]
    assert model.score(x, y) == 1
    assert model.head_.classes == tuple(str(label) for label in model.classes_.tolist())


def test_labels_are_sorted_where_they_have_an_order() -> None:
    classes, codes = encode(["b", "a", "b"], 3)
    assert classes.tolist() == ["a", "b"]
    assert codes.tolist() == [1, 0, 1]
    classes, codes = encode([None, "a", None], 3)
    assert classes.tolist() == [None, "a"]
    assert codes.tolist() == [0, 1, 0]
    classes, codes = encode(torch.tensor([5, 2]), 2)
    assert classes.tolist() == [2, 5]


def test_texts_by_label_or_in_the_order_of_the_labels() -> None:
    x, y, anchors = clusters()
    model = Estimator("zero-shot").fit(x, y, texts=anchors)
    named = {"cat": anchors[2], "ant": torch.from_numpy(anchors[0]), "bee": anchors[1].tolist()}
    other = Estimator("zero-shot").fit(x, y, texts=named)
    assert np.array_equal(model.decision_function(x), other.decision_function(x))
    cosines = x[0] @ anchors[1] / np.linalg.norm(x[0]) / np.linalg.norm(anchors[1])
    assert model.decision_function(x)[0, 1] == pytest.approx(100 * cosines)
    with pytest.raises(InputError, match="texts lacks 1 classes of y: bee"):
        Estimator("zero-shot").fit(x, y, texts={"ant": anchors[0], "cat": anchors[2]})
    with pytest.raises(InputError, match=r"texts should be \[3 16\].*got \[2, 16\]"):
        Estimator("zero-shot").fit(x, y, texts=anchors[:2])
    with pytest.raises(MissingComponentError, match="without kinds, and 'template'"):
        Estimator("zero-shot", text="template").fit(x, y, texts=anchors)


def test_selection_by_folds() -> None:
    x, y, _ = (part[:11] for part in clusters())  # eight of one class, three of another
    model = Estimator("knn", selection="cv", T=1000, k=[24, 1]).fit(x, y)
    assert model.hyper_.k == 1  # 24 neighbours are everybody
    assert model.validation_accuracy_ == 1
    again = Estimator("knn", selection="cv", seed=2, T=1000, k=[24, 1]).fit(x, y)
    assert again.head_.about["seed"] == 2
    assert again.head_.about["selection"] == "cv"
    with pytest.raises(InputError, match="selection='full-val' reads validation rows"):
        Estimator("knn", selection="full-val").fit(x, y)
    with pytest.raises(
        UnknownNameError, match=r"setting of knn .*docs/methods/knn\.md explains all"
    ):
        Estimator("knn", neighbours=3).fit(x, y)


def test_the_head_is_a_head(tmp_path: Path) -> None:
    for dtype in (np.float32, np.float64):
        x, y, _ = clusters(dtype)
        model = Estimator("ridge").fit(x, y)
        again = Head.load(model.head_.save(tmp_path / "plain.head"))
        assert again.key is None
        assert again.classes == ("ant", "bee", "cat")
        assert torch.equal(
            again.logits(torch.from_numpy(x)), model.head_.logits(torch.from_numpy(x))
        )
        assert np.array_equal(again.logits(torch.from_numpy(x)).numpy(), model.decision_function(x))
        assert (
            again.predict(torch.from_numpy(x).half()).tolist() == np.repeat([0, 1, 2], 8).tolist()
        )


def test_copies_and_pickles_answer_the_same() -> None:
    x, y, anchors = clusters()
    model = Estimator("tip-adapter", alpha=2.0).fit(x, y, texts=anchors)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert np.array_equal(other.decision_function(x), model.decision_function(x))
        assert other.get_params() == model.get_params()
    assert not hasattr(clone(model), "head_")


def test_tools_of_scikit_learn_take_it() -> None:
    x, y, _ = clusters()
    assert is_classifier(Estimator("ridge"))
    assert cross_val_score(Estimator("ridge"), x, y, cv=4).mean() == 1
    grid = {"k": [24, 1], "T": [1000]}
    search = GridSearchCV(Estimator("knn"), grid, cv=3).fit(x[:11], y[:11])
    assert search.best_params_ == {"k": 1, "T": 1000}


def test_what_cannot_be_meant() -> None:
    x, y, _ = clusters()
    model = Estimator("ridge")
    with pytest.raises(NotFittedError, match="not fitted yet"):
        model.predict(x)
    with pytest.raises(UsageError, match="not fitted yet"):
        model.predict(x)
    with pytest.raises(InputError, match="only one class"):
        model.fit(x, ["a"] * 24)
    with pytest.raises(InputError, match="24 rows and y has 23 labels"):
        model.fit(x, y[:-1])
    with pytest.raises(InputError, match="Unknown label type: continuous"):
        model.fit(x, np.linspace(0, 1, 24))
    with pytest.raises(InputError, match="labels must be hashable"):
        model.fit(x, [{}] * 24)
    with pytest.raises(InputError, match="1d array, got an array of shape"):
        model.fit(x, np.zeros((24, 2)))
    with pytest.raises(InputError, match=r"rows \[n d\] of numbers"):
        model.fit([[1.0], [1.0, 2.0]], ["a", "b"])
    broken = x.copy()
    broken[[3, 9], 0] = np.nan, np.inf
    with pytest.raises(InputError, match=r"^2 of 24 rows of X hold NaN .*\(rows 3, 9\)"):
        model.fit(broken, y)
    model.fit(x, y)
    with pytest.raises(InputError, match="has 15 features, but Estimator is expecting 16"):
        model.predict(x[:, 1:])
    with pytest.raises(InputError, match="24 rows and y has 2 labels"):
        model.score(x, ["ant", "bee"])
    with pytest.warns(DataConversionWarning, match="column-vector"):
        model.fit(x, y[:, None])
    assert model.score(x, y) == 1


def test_two_classes_have_one_column() -> None:
    x, y, _ = clusters()
    model = Estimator("ridge").fit(x[:16], y[:16])
    decision = model.decision_function(x)
    assert decision.shape == (24,)
    assert model.predict_proba(x).shape == (24, 2)
    assert ((decision > 0) == (model.predict(x) == "bee")).all()

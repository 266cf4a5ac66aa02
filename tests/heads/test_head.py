"""Kept heads: the same answers in another process, and nothing believed that is not checked."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from featcache.errors import FeatcacheError, HeadError, UsageError
from featcache.keys import FeatureKey
from featcache.types import FeatureSet
from heads import kept, registry
from heads.contract.rows import Rows
from heads.head import Head
from heads.head_file import pack, unpack
from heads.protocols import obtain, training
from heads.protocols.plan import Request
from heads.reading import read_rows
from heads.results import named, store
from tests.heads.toy_tasks import ALSO, short

ANSWER = """
import sys, torch
from heads.head import Head
from heads.contract.rows import Kind, Rows
for name in sys.argv[2:]:
    x, norms, kinds = torch.load(f"{sys.argv[1]}/{name}.rows", weights_only=True)
    rows = Rows(x=x, norms=norms, kinds={Kind(*k.split(".")): v for k, v in kinds.items()})
    torch.save(Head.load(f"{sys.argv[1]}/{name}.head").logits(rows), f"{sys.argv[1]}/{name}.out")
"""

KEY = FeatureKey(
    architecture="tiny", weights="0" * 64, activation="gelu", image_size=96, preprocessing="any"
)


@pytest.fixture(scope="module")
def features(world: Callable[..., FeatureSet]) -> FeatureSet:
    counts = {"train": 6, "val": 3, "test": 4, "sketch": 4}
    return world(counts=counts, views=3, also=ALSO, descriptions=True)


def trained(features: FeatureSet, name: str, **wanted: Any) -> tuple[Head, ...]:
    method = registry.get(name)
    settings = short(method) | wanted.pop("settings", {})
    wanted = {"selection": "none", "shots": 4, "seeds": (1,), **wanted}
    return training.train(name, features=features, settings=settings, **wanted).heads[0]


@pytest.fixture(scope="module")
def heads_(features: FeatureSet) -> dict[str, Head]:
    """Return a head of every inductive method."""
    names = [
        name
        for name, method in ((name, registry.get(name)) for name in registry.names())
        if not method.transductive
        and not any(need.role == "corpus" for need in method.needs(method.config()))
    ]
    assert {"cmm", "tip-adapter", "zero-shot"} <= set(names)
    return {name: trained(features, name, shots=5)[0] for name in names}


def rows_of(features: FeatureSet, head: Head, split: str = "test") -> Rows:
    needs = head.method.needs(head.fitted.config)
    rows = read_rows(features, features.usable(split), "query", needs, torch.device("cpu"))
    return rows.take(slice(0, len(rows)))


def test_a_head_is_shown_in_a_line(features: FeatureSet) -> None:
    head = replace(trained(features, "nearest-mean")[0], dataset="pets", classes=("cat", "dog"))
    assert repr(head) == "<Head: nearest-mean on pets (tiny), 2 classes>"
    arrays = replace(head, dataset="", backbone="", classes=("cat",))
    assert repr(arrays) == "<Head: nearest-mean, 1 class>"


@pytest.mark.long
def test_every_inductive_method_answers_the_same_in_another_process(
    features: FeatureSet, heads_: dict[str, Head], tmp_path: Path
) -> None:
    expected = {}
    for name, head in heads_.items():
        rows = rows_of(features, head)
        expected[name] = head.logits(rows)
        head.save(tmp_path / f"{name}.head")
        kinds = {str(kind): values for kind, values in rows.kinds.items()}
        torch.save((rows.x, rows.norms, kinds), tmp_path / f"{name}.rows")
    command = [sys.executable, "-c", ANSWER, str(tmp_path), *heads_]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
    for name, logits in expected.items():
        answered = torch.load(tmp_path / f"{name}.out", weights_only=True)
        assert torch.equal(answered, logits), name


def test_a_kept_head_lacks_what_no_answer_reads(heads_: dict[str, Head]) -> None:
    for name, head in heads_.items():
        assert not set(registry.get(name).training_only) & set(head.fitted.fixed), name


def test_a_head_that_holds_training_features_says_so(heads_: dict[str, Head]) -> None:
    """No tensor of another head has the rows of training images (25, or 75 views) in it."""
    for name, head in heads_.items():
        tensors = {**head.fitted.params, **head.fitted.fixed}
        images = {n for n, t in tensors.items() if t.dim() == 2 and t.shape[1] == 16}
        images = {n for n in images if tensors[n].shape[0] in (25, 75)}
        assert images <= set(head.holds), name
        description = pack(head).replace(b'\\"', b'"')
        assert (b'"holds_training_features":[]' in description) == (not head.holds), name


def test_a_transductive_method_keeps_none(features: FeatureSet) -> None:
    (head,) = trained(features, "transclip")
    with pytest.raises(HeadError, match="answers all queries together"):
        pack(head)


def test_features_of_another_kind_are_refused(features: FeatureSet) -> None:
    (head,) = trained(features, "ridge")
    other = replace(features.key, weights="1" * 64)
    with pytest.raises(HeadError, match=rf"{features.key.digest()}.*{other.digest()}.*weights"):
        head.check_key(other, "the cache")
    head.check_key(features.key, "the cache")


def test_rows_that_do_not_fit_are_refused(features: FeatureSet) -> None:
    (ridge,), (lazsl,) = trained(features, "ridge"), trained(features, "lazsl")
    with pytest.raises(HeadError, match=r"answers rows .n, 16., got .3, 8."):
        ridge.logits(torch.ones(3, 8))
    with pytest.raises(UsageError, match=r"1 of 2 rows hold NaN or infinite values .rows 1."):
        ridge.logits(torch.tensor([[1.0] * 16, [float("nan")] * 16]))
    with pytest.raises(HeadError, match=r"reads crops.lazsl of every image"):
        lazsl.logits(torch.ones(3, 16))


@pytest.mark.parametrize("name", ["gda", "tip-adapter", "zero-shot"])
def test_a_head_of_float64_answers_a_cache(features: FeatureSet, name: str) -> None:
    (head,) = trained(features, name)
    finer = replace(
        head,
        fitted=replace(
            head.fitted,
            params={n: t.double() for n, t in head.fitted.params.items()},
            fixed={
                n: t.double() if t.is_floating_point() else t for n, t in head.fitted.fixed.items()
            },
        ),
    )
    assert finer.logits(features).dtype == torch.float64
    assert torch.allclose(finer.logits(features).float(), head.logits(features), atol=1e-3)


def test_probabilities_and_the_temperature(features: FeatureSet) -> None:
    (head,) = trained(features, "zero-shot")
    rows = rows_of(features, head)
    assert torch.allclose(head.probabilities(rows).sum(1), torch.ones(len(rows)))
    warm = unpack(pack(replace(head, temperature=4.0)), "it")
    assert torch.equal(warm.probabilities(rows), torch.softmax(head.logits(rows) / 4, dim=-1))
    assert torch.equal(warm.predict(rows), head.predict(rows))


def test_other_classes_by_their_texts(features: FeatureSet) -> None:
    assert features.text is not None
    some = torch.tensor([3, 1])
    text, classes = features.text.of_classes(some), ("class 3", "class 1")
    alone = {"lazsl": {"select": "paper"}}  # by confidence, crops are weighed by all classes
    for name in ("zero-shot", "lazsl", "clip-adapter", "regularized-linear"):
        (head,) = trained(features, name, settings=alone.get(name, {}))
        rows = rows_of(features, head)
        bound = head.rebind(text, classes)
        assert bound.logits(rows).shape == (len(rows), 2)
        assert torch.allclose(bound.logits(rows), head.logits(rows)[:, some], atol=1e-4), name
    (head,) = trained(features, "lazsl", settings={"sharpness": 0.0})
    (other,) = trained(features, "lazsl", settings={"select": "all"})
    rows = rows_of(features, head)
    bound = head.rebind(text, classes)
    assert torch.allclose(bound.logits(rows), other.logits(rows)[:, some], atol=1e-4)
    (head,) = trained(features, "taskres")
    with pytest.raises(HeadError, match="specific to its 5 classes"):
        head.rebind(text, classes)


@pytest.fixture
def packed(features: FeatureSet) -> bytes:
    return pack(trained(features, "nearest-mean")[0])


def test_every_changed_byte_shows(packed: bytes) -> None:
    for place in range(len(packed)):
        damaged = bytearray(packed)
        damaged[place] ^= 0x20
        with pytest.raises(HeadError):
            unpack(bytes(damaged), "it")


@pytest.mark.parametrize("length", [0, 7, 8, 100, -1])
def test_a_file_cut_short_is_refused(packed: bytes, length: int) -> None:
    with pytest.raises(HeadError):
        unpack(packed[:length], "it")


@pytest.mark.parametrize(
    "change",
    [
        {"method": "no-such-method"},
        {"version": 2},
        {"version": 0},
        {"classes": []},
        {"classes": ["one"]},
        {"params": ["nowhere"]},
        {"fixed": []},
        {"config": {"distance": "cosine", "more": 1}},
        {"config": {"distance": "taxicab"}},
        {"config": None},
        {"key": {"architecture": "x"}},
        {"key": [1]},
        {"key": {**asdict(KEY), "image_size": "96"}},
        {"key": {**asdict(KEY), "weights": None}},
        {"about": 7},
        {"about": {"width": 3}},
        {"about": {"width": 128, "weights": 5}},
        {"reads": 3},
    ],
)
def test_a_description_that_lies_is_refused(packed: bytes, change: dict[str, Any]) -> None:
    with pytest.raises(FeatcacheError):
        unpack(rewritten(packed, lambda d: d["sections"]["classifier"].update(change)), "it")


@pytest.mark.parametrize("value", [0.0, -1.0, "warm", None, 1e400, 10**400])
def test_a_temperature_out_of_range_is_refused(packed: bytes, value: object) -> None:
    def change(description: dict[str, Any]) -> None:
        description["sections"]["temperature"]["value"] = value

    if value == float("inf"):
        return  # no JSON of ours holds it
    with pytest.raises(HeadError):
        unpack(rewritten(packed, change), "it")


@pytest.mark.parametrize("name", ["\x1b[2J", "\ud800", "two\nlines"])
def test_a_class_whose_name_does_not_print_is_refused(packed: bytes, name: str) -> None:
    def change(description: dict[str, Any]) -> None:
        description["sections"]["classifier"]["classes"][0] = name

    with pytest.raises(HeadError, match="does not print"):
        unpack(rewritten(packed, change), "it")


def test_sections_of_later_versions(packed: bytes) -> None:
    later = rewritten(packed, lambda d: d["sections"].update({"prediction_sets": {"level": 0.9}}))
    assert unpack(later, "it").classes
    needed = rewritten(packed, lambda d: d["sections"].update({"rejection": {"required": True}}))
    with pytest.raises(HeadError, match=r"'rejection'.*Upgrade"):
        unpack(needed, "it")
    newer = rewritten(packed, lambda d: d.update({"format": 2}))
    with pytest.raises(HeadError, match=r"format 2.*Upgrade"):
        unpack(newer, "it")


def rewritten(packed: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """Change the description of a head's file and seal it again."""
    from featcache.store.format.seal import seal, unseal
    from heads.results.overview import METADATA

    length = int.from_bytes(packed[:8], "little")
    sealed = json.loads(packed[8 : 8 + length])["__metadata__"][METADATA]
    description, _ = unseal(sealed.encode())
    description.pop("crc", None)
    change(description)
    text = seal(description)[0].decode().rstrip("\n")
    return safetensors.torch.save(safetensors.torch.load(packed), metadata={METADATA: text})


def test_a_table_with_numbers_that_are_none_is_refused(packed: bytes) -> None:
    length = int.from_bytes(packed[:8], "little")
    header = packed[8 : 8 + length].rstrip()[:-1] + b',"x":NaN}'
    with pytest.raises(HeadError):
        unpack(len(header).to_bytes(8, "little") + header + packed[8 + length :], "it")


def test_equal_names_of_classes_are_two_classes(features: FeatureSet) -> None:
    names = ("crane", "crane", *features.classes[2:])
    twice = replace(features, listing=replace(features.listing, classes=names))
    assert features.text is not None
    twice = replace(twice, text=replace(features.text, classes=names))
    for name in ("zero-shot", "lp++", "cmm", "ridge", "lazsl"):
        (head,) = trained(twice, name)
        (plain,) = trained(features, name)
        assert head.classes == names
        if name not in ("lp++",):
            rows = rows_of(features, plain)
            assert torch.equal(head.logits(rows), plain.logits(rows)), name


def test_heads_beside_their_run(features: FeatureSet, tmp_path: Path) -> None:
    def get(*splits: str, seeds: tuple[int, ...] = (1, 2), **wanted: Any) -> list[obtain.Obtained]:
        request = Request(
            method="ridge", features=features, shots=2, seeds=seeds, splits=splits, selection="none"
        )
        made = obtain.obtain(training.plan(request), tmp_path, **wanted)
        for one in made:
            obtain.save(one, tmp_path)
        return made

    (one,) = get("test")
    assert one.trained
    run = one.result.run
    with pytest.raises(UsageError, match=f"2 heads; name one of {run}@1, {run}@2"):
        kept.load(tmp_path, run)
    with pytest.raises(UsageError, match=f"no head of seed '7'; name one of {run}@1, {run}@2"):
        kept.load(tmp_path, f"{run}@7")
    head = kept.load(tmp_path, f"{run}@2")
    assert head.about["seed"] == 2
    assert head.about["run"] == run
    rows = rows_of(features, head)
    loaded = store.load(store.find(tmp_path, run))
    assert loaded.predictions is not None
    assert head.predict(rows).tolist() == loaded.predictions.predicted[1].tolist()

    again, other = get("test", "sketch")
    assert not again.trained
    assert not again.is_new
    assert again.result.run == run
    assert not other.trained  # answered by the heads that were kept
    assert other.is_new
    (fresh,) = get("sketch", again=True)
    assert fresh.trained
    assert fresh.result.metrics == other.result.metrics
    assert fresh.result.notes == other.result.notes
    assert fresh.result.chosen == other.result.chosen
    assert kept.load(tmp_path, f"{other.result.run}@1").about["seed"] == 1

    (single,) = get("test", seeds=(5,), keep_heads=False)
    with pytest.raises(HeadError, match="keeps no head"):
        kept.load(tmp_path, single.result.run)


def test_a_damaged_head_is_trained_again(features: FeatureSet, tmp_path: Path) -> None:
    request = Request(method="ridge", features=features, shots=2, seeds=(1,), selection="none")
    plan = training.plan(request)
    (one,) = obtain.obtain(plan, tmp_path)
    file = obtain.save(one, tmp_path) / named.file_of(1)
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(HeadError, match="not what was written"):
        kept.load(tmp_path, f"{one.result.run}@1")
    (other,) = obtain.obtain(plan.on(["sketch"]), tmp_path)
    assert other.trained

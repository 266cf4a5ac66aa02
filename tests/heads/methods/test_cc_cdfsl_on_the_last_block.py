"""CC-CDFSL with LoRA of the last block: against loops, and as a kept head."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from featcache.errors import HeadError, MissingComponentError, UsageError
from featcache.store.format.tensors import compose, describe, load
from featcache.types import FeatureSet
from heads.contract.facts import bind
from heads.contract.rows import Rows, TaskView, Tensors
from heads.episode import Episode
from heads.exporting.refusals import check_exportable
from heads.fitted import Fitted
from heads.head import Head, fitted_head
from heads.head_file import pack, unpack
from heads.methods import cc_cdfsl as cc
from heads.ops.cycles import image_cycle, text_cycle
from heads.predicting import predict
from heads.protocols import training
from heads.results.overview import METADATA
from heads.training.batches import as_batch
from heads.training.samplers import Drawer
from heads.training.trainer import train
from tests.heads.conftest import make_world
from tests.heads.photographs import extracted
from tests.heads.toy_tasks import make_task, rich_world

LORA = cc.Config(adapter="lora", steps=4, batch=5)


@pytest.fixture(scope="module")
def episode() -> Episode:
    return make_task(rich_world(), cc.METHOD, LORA)


@pytest.fixture(scope="module")
def task(episode: Episode) -> TaskView:
    return episode.view


def moved(task: TaskView, config: Any, hyper: cc.Hyper) -> tuple[Tensors, Tensors]:
    """Return parameters away from their start, and what is fixed."""
    params, fixed = cc.prepare(task, config, hyper)
    rng = torch.Generator().manual_seed(1)
    return {n: p + 0.2 * torch.randn(p.shape, generator=rng) for n, p in params.items()}, fixed


def tokens_of(rows: Rows) -> Tensor:
    found = rows.get("tokens", "last-block")
    assert found is not None
    return found


def naive_block(task: TaskView, params: Tensors | None, scale: float, tokens: Tensor) -> Tensor:
    """Return all output rows [n t d], the class token first, a token and a head at a time."""
    assert task.last_block is not None
    block = task.last_block()
    p = {name: t.double() for name, t in block.tensors.items()}
    w, e = block.width, block.width // block.heads
    parts = list(torch.split(p["attn.in_proj_weight"], w))
    if params is not None:
        for m in range(3):
            parts[m] = (
                parts[m] + scale * params["lora_b"][m].double() @ params["lora_a"][m].double()
            )
    biases = torch.split(p["attn.in_proj_bias"], w)

    def norm(name: str, x: Tensor) -> Tensor:
        deviation = ((x - x.mean()) ** 2).mean() + block.eps
        return (x - x.mean()) / deviation.sqrt() * p[f"{name}.weight"] + p[f"{name}.bias"]

    images = []
    for image in tokens.double():
        q, k, v = (
            [part @ norm("ln_1", h) + bias for h in image]
            for part, bias in zip(parts, biases, strict=True)
        )
        rows = []
        for at, h in enumerate(image):
            seen = []
            for start in range(0, w, e):
                scores = [float(q[at][start : start + e] @ o[start : start + e]) for o in k]
                each = [math.exp(s / math.sqrt(e)) for s in scores]
                mixed = sum(a * o[start : start + e] for a, o in zip(each, v, strict=True))
                seen.append(torch.as_tensor(mixed) / sum(each))
            z = h + p["attn.out_proj.weight"] @ torch.cat(seen) + p["attn.out_proj.bias"]
            hidden = p["mlp.c_fc.weight"] @ norm("ln_2", z) + p["mlp.c_fc.bias"]
            hidden = hidden / (1 + torch.exp(-1.702 * hidden))  # quick gelu
            z = z + p["mlp.c_proj.weight"] @ hidden + p["mlp.c_proj.bias"]
            out = norm("ln_post", z) @ p["proj"]
            rows.append(out / out.norm())
        images.append(torch.stack(rows))
    return torch.stack(images)


def unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=-1)


@pytest.mark.parametrize("control", ["none", "augment-only"])
@pytest.mark.parametrize("patch_map", ["none", "ridge"])
@pytest.mark.parametrize("shrink", [True, False])
def test_loss_equals_naive_loops(
    task: TaskView, control: Any, patch_map: Any, shrink: bool
) -> None:
    config = replace(LORA, control=control, patch_map=patch_map, shrink=shrink, k=2, rivals=1)
    bound = bind(cc.METHOD, config, [task])
    hyper = cc.Hyper(lam_text=0.7, lam_image=1.3, identity=0.4, lora_scale=0.8, tau=0.3)
    params, fixed = moved(task, bound, hyper)
    (stage,) = cc.METHOD.stages(bound)
    drawer = Drawer(stage.batches, task.support, 0, 0, fixed)
    batch = as_batch(drawer.gather(drawer.draw(0), 0, None), torch.tensor(0), torch.tensor(0))
    got, state = cc.loss(params, fixed, cc.start(params, fixed, bound, hyper), batch, bound, hyper)

    tokens, y = tokens_of(task.support)[batch.index], batch.y
    now = naive_block(task, params, 0.8, tokens)
    before = naive_block(task, None, 0.8, tokens)
    texts, anchors = unit(params["text"].double()), fixed["anchors"].double()
    p, p_before = now[:, 1:], before[:, 1:]
    if patch_map == "ridge":
        change = fixed["change"].double()
        p, p_before = unit(p + p @ change), unit(p_before + p_before @ change)
    kept = torch.ones(p.shape[:2], dtype=torch.float64)
    if shrink:
        kept = torch.zeros_like(kept)
        for i, own in enumerate(y.tolist()):
            near = (now[i, 0] @ texts.T).tolist()
            rival = max((c for c in range(5) if c != own), key=near.__getitem__)
            for c in (own, rival):
                kept[i, (p[i] @ texts[c]).topk(2).indices] = 1
    logits = fixed["scale"] * now[:, 0] @ texts.T + fixed["bias"]
    expected = torch.nn.functional.cross_entropy(logits, y)
    drifts = (1 - (p * p_before).sum(-1))[kept > 0]
    drift = (1 - (now[:, 0] * before[:, 0]).sum(-1)).mean() + drifts.mean()
    expected = expected + 0.4 * (drift + (1 - (texts * anchors).sum(-1)).mean())
    cosine = p @ texts.T
    how: Any = {"cycle": "soft", "tau": 0.3, "tau_back": hyper.tau_back}
    told, closed = text_cycle(texts, p, cosine, kept, **how)
    if control == "none":
        view = torch.zeros(p.shape[1], dtype=torch.int64)
        shown = image_cycle(texts, p, cosine, kept, view, retrieval="intra-image", **how)
        expected = expected + 0.7 * told + 1.3 * shown
    assert float(got) == pytest.approx(float(expected), rel=2e-4)
    assert float(state["closed_before"]) == pytest.approx(float(closed))


def test_the_map_is_learned_from_the_patches_of_the_start(task: TaskView) -> None:
    bound = bind(cc.METHOD, LORA, [task])
    _, fixed = cc.prepare(task, bound, cc.Hyper(ridge=0.3))
    assert task.last_block is not None
    p = task.last_block().with_patches(tokens_of(task.support))[1].double()
    own = fixed["anchors"].double()[task.support.y][:, None]
    moments = torch.einsum("npi,npj->ij", p, p)
    cross = torch.einsum("npi,npj->ij", p, own.expand_as(p)) - moments
    penalty = 0.3 * p.shape[0] * p.shape[1] / p.shape[2] * torch.eye(p.shape[2])
    change = torch.linalg.solve(moments + penalty, cross)
    torch.testing.assert_close(fixed["change"].double(), change, rtol=0, atol=1e-4)


def fitted(task: TaskView, config: cc.Config = LORA, **hyper: float) -> Fitted:
    (run,) = train(cc.METHOD, config, [task], [cc.Hyper(**hyper)])
    return run.head


def test_an_untrained_head_is_the_backbone_at_zero_shot(episode: Episode) -> None:
    head = fitted(episode.view, replace(LORA, steps=0))
    text, rows = episode.view.text, episode.query
    assert text is not None
    assert episode.view.last_block is not None
    x = episode.view.last_block().forward(tokens_of(rows))
    expected = text.logit_scale * x @ text.anchors().T + text.logit_bias
    torch.testing.assert_close(head.logits(rows), expected, rtol=0, atol=1e-4)


def test_what_was_learned_is_in_the_block_that_answers(episode: Episode) -> None:
    head = fitted(episode.view, lr=0.05)
    x = naive_block(episode.view, head.params, 1.0, tokens_of(episode.query))[:, 0]
    logits = head.fixed["scale"] * x @ unit(head.params["text"].double()).T + head.fixed["bias"]
    torch.testing.assert_close(head.logits(episode.query).double(), logits, rtol=0, atol=2e-3)
    plain = fitted(episode.view, replace(LORA, steps=0))
    assert float((head.logits(episode.query) - plain.logits(episode.query)).abs().max()) > 0.1


def test_lambdas_of_zero_are_the_control_to_the_last_bit(task: TaskView) -> None:
    control = fitted(task, replace(LORA, control="augment-only")).params
    for other, same in (({"lam_text": 0.0, "lam_image": 0.0}, True), ({}, False)):
        params = fitted(task, LORA, **other).params
        assert all(torch.equal(params[n], control[n]) for n in control) == same


def kept(task: TaskView) -> Head:
    return fitted_head(fitted(task), task.classes, width=16, reads=("tokens.last-block",))


def test_a_kept_head_holds_its_block_and_answers_the_same(episode: Episode) -> None:
    head = kept(episode.view)
    assert not {"change", "anchors"} & head.fitted.fixed.keys()
    again = unpack(pack(head), "a file")
    assert again.fitted.config == head.fitted.config
    assert again.fitted.config.heads == 2
    rows = replace(episode.query, labels=None)
    assert torch.equal(again.logits(rows), head.logits(rows))
    assert pack(again) == pack(head)
    with pytest.raises(HeadError, match=r"reads tokens\.last-block of every image"):
        head.logits(episode.query.x)
    with pytest.raises(HeadError, match=r"tokens\.last-block of every image; an exported"):
        check_exportable(head)


@pytest.mark.parametrize(
    ("name", "value"),
    [("heads", 0), ("heads", 2.0), ("activation", "relu"), ("eps", 2.0), ("pool", []), ("x", 1)],
)
def test_a_file_with_facts_of_no_block_is_refused(task: TaskView, name: str, value: Any) -> None:
    data = pack(kept(task))
    description, _ = describe(data, METADATA)
    description["sections"]["classifier"]["facts"][name] = value
    with pytest.raises(HeadError, match="is no head of this program"):
        unpack(compose(load(data), METADATA, description), "a file")


def test_a_block_that_does_not_fit_is_refused_where_it_answers(episode: Episode) -> None:
    head = kept(episode.view)
    fixed = {**head.fitted.fixed, "block.proj": torch.zeros(3, 16)}
    broken = replace(head, fitted=replace(head.fitted, fixed=fixed))
    with pytest.raises(HeadError, match="The last block of this head"):
        broken.logits(episode.query)


def bent(head: Head, name: str, value: Tensor | None) -> Head:
    """Return a head read from a file in which one tensor is another, or is missing."""
    data = pack(head)
    (description, _), tensors = describe(data, METADATA), load(data)
    section = description["sections"]["classifier"]
    part = "params" if name in section["params"] else "fixed"
    if value is None:
        section[part].remove(name)
    else:
        tensors[f"classifier/{part}/{name}"] = value
    return unpack(compose(tensors, METADATA, description), "a file")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text", torch.ones(7)),
        ("text", torch.ones(2, 16).double()),
        ("scale", torch.ones(3)),
        ("scale", None),
    ],
)
def test_tensors_of_a_file_that_do_not_fit_are_refused_where_they_answer(
    episode: Episode, name: str, value: Tensor | None
) -> None:
    broken = bent(kept(episode.view), name, value)
    with pytest.raises(HeadError, match="tensors that do not fit together"):
        broken.logits(episode.query)
    with pytest.raises(HeadError, match="tensors that do not fit together"):
        broken.predict(episode.query)


def test_a_file_that_names_other_classes_than_it_answers_is_refused(episode: Episode) -> None:
    head = kept(episode.view)
    fewer = bent(head, "text", head.fitted.params["text"][:-1].clone())
    for answer in (fewer.logits, fewer.predict):
        with pytest.raises(HeadError, match=f"and names {len(head.classes)} classes"):
            answer(episode.query)


def test_a_file_without_the_facts_of_its_block_is_refused(episode: Episode) -> None:
    data = pack(kept(episode.view))
    description, _ = describe(data, METADATA)
    del description["sections"]["classifier"]["facts"]
    head = unpack(compose(load(data), METADATA, description), "a file")
    with pytest.raises(HeadError, match="tensors that do not fit together"):
        head.logits(episode.query)


def test_want_of_memory_is_not_told_as_a_damaged_head(
    episode: Episode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    head = unpack(pack(kept(episode.view)), "a file")
    monkeypatch.setattr(cc, "global_features", fail)
    with pytest.raises(torch.OutOfMemoryError):
        head.logits(episode.query)


def test_a_corpus_is_refused(task: TaskView) -> None:
    with pytest.raises(UsageError, match="moves the patches"):
        fitted(task, replace(LORA, anchors="corpus"))


def test_a_cache_without_tokens_is_told_how_to_get_them() -> None:
    world = make_world()
    with pytest.raises(MissingComponentError, match="tokens") as caught:
        training.train("cc-cdfsl", features=world, shots=2, settings={"adapter": "lora"})
    assert caught.value.suggestion is not None
    assert "last-block@few-shot" in caught.value.suggestion.arguments["tokens"]


def test_rows_in_no_cache_have_no_block(task: TaskView) -> None:
    with pytest.raises(MissingComponentError, match="these rows are in no"):
        fitted(replace(task, last_block=None))


def test_it_is_no_member_of_an_ensemble() -> None:
    with pytest.raises(UsageError, match="only a head of its own can hold"):
        training.train(
            "ensemble",
            features=rich_world(),
            shots=2,
            selection="none",
            settings={"members": "cc-cdfsl:adapter=lora,ridge"},
        )


ELSEWHERE = """
import sys
import featcache, heads
from pathlib import Path
home, file = sys.argv[1:]
cache = featcache.open("zoo", "tiny", root=home)
for p in heads.predict(heads.Head.load(file), cache):
    print(Path(p.id).parent.name, Path(p.id).name, *(c.probability.hex() for c in p.candidates))
"""


@pytest.mark.long
def test_other_processes_and_image_files_get_the_same_bits(tmp_path: Path) -> None:
    cache: FeatureSet = extracted(
        tmp_path,
        ("ant", "bee", "fly"),
        {"train": 2, "test": 5},
        tokens=("last-block@all",),
    )
    made = training.train(
        "cc-cdfsl",
        features=cache,
        shots=2,
        seeds=(1,),
        selection="none",
        settings={"adapter": "lora", "steps": 3},
    )
    head = made.heads[0][0]

    def said(images: Any) -> list[str]:
        return [
            " ".join([*Path(p.id).parts[-2:], *(c.probability.hex() for c in p.candidates)])
            for p in predict(head, images)
        ]

    here = said(cache)
    assert len(here) == 15
    root = Path(cache.listing.root)
    assert said([root / cache.listing.ids[r] for r in cache.listing.rows("test")]) == here
    file = head.save(tmp_path / "lora.head")
    command = [sys.executable, "-c", ELSEWHERE, str(cache.path.parents[1]), str(file)]
    there = subprocess.run(command, check=True, capture_output=True, text=True)
    assert there.stdout.splitlines() == here

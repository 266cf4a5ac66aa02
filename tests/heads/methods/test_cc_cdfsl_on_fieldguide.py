"""The streamed choice of CC-CDFSL's corpus on fieldguide, against all cosines at once."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import featcache
from featcache.sources.fieldguide import world
from featcache.types import FeatureSet
from heads import patch_corpus
from heads.contract.rows import TaskView
from heads.methods import cc_cdfsl as cc
from heads.protocols import training
from heads.protocols.builder import EpisodeBuilder
from heads.protocols.plan import Request, splits_of

pytestmark = pytest.mark.long

COUNTS = {"train": 12, "val": 4, "test": 2}
"""Images of each species; drawing and encoding all takes a minute more."""
DRAW = "few-shot(2,seeds=1)"
CLOSE = 1e-5
"""Float32 cosines of one patch that are computed in other blocks differ by less."""
MAPPED = 1e-4
"""The same of mapped patches: their map is rounded to float32."""


@pytest.fixture(scope="module")
def fieldguide(tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "open_world", partial(world.open_world, counts=COUNTS))
        return featcache.extract(
            "fieldguide",
            "tiny",
            patches=["clearclip@train"],
            views=[f"4:cdfsl@{DRAW}"],
            view_patches=[f"4:cdfsl@{DRAW}"],
            root=tmp_path_factory.mktemp("fieldguide"),
        )


def task(features: FeatureSet, anchors: str) -> tuple[TaskView, Any, Any]:
    """Return what training sees at two shots, and the rows of support and pool."""
    request = Request(
        method="cc-cdfsl", features=features, shots=2, seeds=(1,), settings={"anchors": anchors}
    )
    plan = training.plan(request)
    builder = EpisodeBuilder(
        features=features,
        needs=plan.run.needs,
        device=torch.device("cpu"),
        splits=splits_of(features, plan.splits),
        scopes=plan.scopes,
    )
    (episode,) = plan.episodes(builder)
    ((support, pool),) = plan.learned_rows
    return episode.view, support, pool


def unit(features: FeatureSet, component: str, rows: Any) -> Tensor:
    values = features.rows(component, np.asarray(rows)).double()
    return F.normalize(values, dim=-1)


@pytest.mark.parametrize("anchors", ["corpus", "corpus-with-pool"])
@pytest.mark.parametrize(
    ("k", "patch_map"), [(1, "none"), (10, "none"), (300, "none"), (10, "ridge")]
)
def test_the_streamed_choice_is_the_naive_one(
    fieldguide: FeatureSet,
    anchors: Any,
    k: int,
    patch_map: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    view, support, pool = task(fieldguide, anchors)
    monkeypatch.setattr(patch_corpus, "READ_BYTES", 2**20)  # a few images at a time
    _, fixed = cc.prepare(view, cc.Config(anchors=anchors, k=k, patch_map=patch_map), cc.Hyper())

    clean = unit(fieldguide, "patches.clearclip", support)[:, None]
    views = unit(fieldguide, "view_patches.clearclip.cdfsl-4", support)
    every = torch.cat([clean, views], dim=1)  # [n v p d]
    n, v, p, d = every.shape
    image = torch.arange(n).repeat_interleave(v * p)
    seen = torch.arange(v).repeat_interleave(p).repeat(n)
    rows = every.reshape(-1, d)
    if anchors == "corpus-with-pool":
        more = unit(fieldguide, "patches.clearclip", pool)
        image = torch.cat([image, n + torch.arange(len(more)).repeat_interleave(p)])
        seen = torch.cat([seen, torch.zeros(len(more) * p, dtype=torch.int64)])
        rows = torch.cat([rows, more.reshape(-1, d)])
    bank = fieldguide.text
    assert bank is not None
    close = CLOSE if patch_map == "none" else MAPPED
    if patch_map == "ridge":
        x, t = every.reshape(-1, d), bank.anchors()[view.support.y].double()
        onto = t.repeat_interleave(v * p, dim=0)
        eye = torch.eye(d, dtype=torch.float64)
        penalty = cc.Hyper().ridge * len(x) / d * eye
        rows = F.normalize(rows @ (eye + torch.linalg.solve(x.mT @ x + penalty, x.mT @ (onto - x))))
    cosines = bank.anchors().double() @ rows.mT  # [c m]
    best, at = cosines.sort(dim=1, descending=True, stable=True)

    claimed: dict[int, tuple[float, int]] = {}
    for c in range(len(cosines)):
        for cosine, place in zip(best[c, :k].tolist(), at[c, :k].tolist(), strict=True):
            if place not in claimed or cosine > claimed[place][0]:
                claimed[place] = cosine, c
        found = fixed["pool"][c].double()
        # the same patches in the same order, but for cosines that float32 cannot tell apart
        same = (fixed["image"][c] == image[at[c, :k]]) & (fixed["view"][c] == seen[at[c, :k]])
        equal_rows = (found - rows[at[c, :k]]).abs().amax(1) < close
        gaps = best[c, :-1] - best[c, 1:]
        clear = (gaps[:k] > close) & torch.cat([torch.tensor([True]), gaps[: k - 1] > close])
        assert bool((same & equal_rows)[clear].all())
        torch.testing.assert_close(
            found @ bank.anchors()[c].double(), best[c, :k], rtol=0, atol=close
        )
    assert int(fixed["kept"].sum()) == len(claimed)
    owners = torch.tensor([c for _, c in claimed.values()])
    assert fixed["kept"].sum(1).long().tolist() == owners.bincount(minlength=len(cosines)).tolist()

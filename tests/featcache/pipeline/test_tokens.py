"""Tokens before the last block: stored, resumed, checked, repaired, read by their block."""

import doctest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from featcache.backbones.base import Backbone
from featcache.backbones.registry import load_backbone
from featcache.embedding import embed
from featcache.errors import CorruptCacheError, UnknownNameError, UsageError
from featcache.last_block import LastBlock
from featcache.pipeline import extraction
from featcache.pipeline import repair as mending
from featcache.pipeline.run import Request, Summary, extract
from featcache.store.cache import Cache
from featcache.store.repair.glance import glance
from featcache.store.repair.verify import repair, verify
from featcache.wording import in_python

TOKENS, BLOCK = "tokens.last-block", "last_block.safetensors"
WIDE = 65 * 128 * 2
"""Bytes of the tokens of one image with `tiny`."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, eight images, in train, val and test."""
    root = tmp_path_factory.mktemp("data") / "pond"
    rng = np.random.default_rng(0)
    for split, each in (("train", 3), ("test", 1)):
        for name in ("carp", "duck"):
            (root / split / name).mkdir(parents=True)
            for i in range(each):
                coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
                picture = Image.fromarray(coarse).resize((70, 66), Image.Resampling.BICUBIC)
                picture.save(root / split / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    return load_backbone("tiny", device="cpu", compute="fp32")


Ask = Callable[..., Summary]


@pytest.fixture(scope="module")
def ask(images: Path, tiny: Backbone) -> Any:
    """Extract the images with `tiny`, loaded once."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (extraction, mending):
            patch.setattr(module, "load_backbone", lambda *_, **__: tiny)

        def call(root: Path, say: Callable[[str], None] | None = None, **more: Any) -> Summary:
            request = Request(
                **{"dataset": f"folder:{images}", "backbone": "tiny", "patches": ["none"], **more},
                root=root,
                micro_batch=4,
            )
            return extract(request, say=None if say is None else lambda p: say(in_python([p])))

        yield call


@pytest.fixture(scope="module")
def whole(ask: Ask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache made in one pass; tests do not change it."""
    root = tmp_path_factory.mktemp("whole")
    return ask(root, tokens=["last-block", "last-block:int8@train"], patches=["vanilla"]).path


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy of that cache, to be damaged."""
    import shutil

    path = tmp_path / "cache" / whole.parent.name / whole.name
    shutil.copytree(whole, path)
    return path


def shards(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in sorted(path.glob("*/*.h5"))}


def test_the_stored_block_makes_the_stored_features_of_the_stored_tokens(
    whole: Path, tiny: Backbone
) -> None:
    cache = Cache.open(whole).feature_set()
    rows = np.arange(8)
    tokens = cache.rows(TOKENS, rows)
    assert (tokens.dtype, tuple(tokens.shape)) == (torch.float16, (8, 65, 128))
    block = cache.last_block()
    assert block.digest == tiny.last_block().digest
    assert block.settings() == tiny.last_block().settings()
    stored = cache.rows("global", rows).float()
    torch.testing.assert_close(block.encode(tokens.float()), stored, atol=5e-3, rtol=5e-3)
    assert torch.cosine_similarity(block.encode(tokens.float()), stored).min() > 0.99999
    train = cache.usable("train")
    coarse = cache.rows(f"{TOKENS}.int8", train).float()
    assert not torch.equal(coarse, cache.rows(TOKENS, train).float())
    near = torch.cosine_similarity(block.encode(coarse), cache.rows("global", train).float())
    assert near.min() > 0.999


def test_tokens_added_later_are_those_of_one_pass(ask: Ask, whole: Path, tmp_path: Path) -> None:
    first = ask(tmp_path, patches=["vanilla"])
    assert not (first.path / BLOCK).exists()
    limited = ask(tmp_path, tokens=["last-block"], limit=4)
    assert limited.encoded == {TOKENS: 4}
    assert not limited.complete
    last = ask(tmp_path, tokens=["last-block", "last-block:int8@train"])
    assert last.encoded == {TOKENS: 4, f"{TOKENS}.int8": 4}
    again = ask(tmp_path, tokens=["last-block", "last-block:int8@train"])
    assert again.encoded == {}
    assert (last.path / BLOCK).read_bytes() == (whole / BLOCK).read_bytes()
    one, other = (Cache.open(path).feature_set() for path in (whole, last.path))
    for name in ("global", "patches.vanilla", TOKENS):
        assert torch.equal(one.rows(name, np.arange(8)), other.rows(name, np.arange(8)))
    train = one.usable("train")
    assert torch.equal(one.rows(f"{TOKENS}.int8", train), other.rows(f"{TOKENS}.int8", train))


def test_embedded_images_have_the_tokens_of_the_cache(
    whole: Path, images: Path, tiny: Backbone
) -> None:
    cache = Cache.open(whole).feature_set()
    named = [images / name for name in cache.listing.ids]
    found = embed(named, tiny, tokens=["last-block"], micro_batch=4)
    assert torch.equal(found.rows(TOKENS), cache.rows(TOKENS, np.arange(8)))


def test_the_example_of_a_last_block() -> None:
    (case,) = doctest.DocTestFinder(recurse=False).find(LastBlock, "LastBlock")
    assert case.examples
    said: list[str] = []
    doctest.DocTestRunner().run(case, out=said.append)
    assert said == []


def test_a_dry_run_says_what_tokens_take_and_writes_nothing(ask: Ask, tmp_path: Path) -> None:
    told: list[str] = []
    summary = ask(tmp_path, told.append, tokens=["last-block"], dry_run=True)
    assert summary.component_bytes[TOKENS] == 8 * WIDE
    assert any(
        "takes 16.6 kB an image (65 tokens of width 128), and 859.6 kB once" in t for t in told
    )
    assert f"  {TOKENS}: 8 rows, 133.1 kB" in summary.sentences()
    assert not list(tmp_path.rglob("*.h5"))
    assert not list(tmp_path.rglob(BLOCK))


def test_a_sound_cache_of_tokens_verifies(whole: Path) -> None:
    report = verify(whole, full=True)
    assert (report.problems, report.notes) == ((), ())
    assert not Cache.open(whole).needs_mending()


def damage(path: Path) -> None:
    content = bytearray((path / BLOCK).read_bytes())
    content[-1000] ^= 4
    (path / BLOCK).write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "fault"),
    [
        (damage, "is not what was written"),
        (lambda path: (path / BLOCK).write_bytes(b""), "no header"),
        (lambda path: (path / BLOCK).unlink(), "without the weights of the last block"),
    ],
    ids=["a flipped bit", "empty", "missing"],
)
def test_a_broken_block_is_found_and_taken_from_the_backbone_again(
    ask: Ask, copy: Path, whole: Path, harm: Callable[[Path], object], fault: str
) -> None:
    rows = shards(copy)
    harm(copy)
    (problem,) = verify(copy).problems
    assert fault in str(problem)
    assert "featcache repair" in str(problem)
    if "without" in fault:
        assert len(glance(copy)) == 1
    assert repair(copy).is_sound
    assert Cache.open(copy).needs_mending()
    mended = mending.mend(copy, device="cpu")
    assert mended.last_block
    assert mended.encoded == {}
    assert (copy / BLOCK).read_bytes() == (whole / BLOCK).read_bytes()
    assert verify(copy).problems == ()
    assert shards(copy) == rows


def test_a_damaged_shard_of_tokens_is_encoded_again(ask: Ask, copy: Path, whole: Path) -> None:
    (shard,) = (copy / TOKENS).glob("*.h5")
    content = bytearray(shard.read_bytes())
    content[-500] ^= 1
    shard.write_bytes(content)
    assert TOKENS in str(verify(copy).problems[0])
    repair(copy)
    mended = mending.mend(copy, device="cpu")
    assert (mended.encoded, mended.last_block) == ({TOKENS: 8}, False)
    assert shards(copy) == shards(whole)


def test_a_pass_replaces_a_damaged_block(ask: Ask, copy: Path, whole: Path) -> None:
    damage(copy)
    ask(copy.parent.parent, tokens=["last-block"])
    assert (copy / BLOCK).read_bytes() == (whole / BLOCK).read_bytes()


def test_a_complete_cache_that_cannot_be_written_needs_its_block(
    ask: Ask, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    monkeypatch.setattr(os, "access", lambda *_: False)
    assert ask(copy.parent.parent, tokens=["last-block"]).encoded == {}
    (copy / BLOCK).unlink()
    with pytest.raises(CorruptCacheError, match="featcache repair"):
        ask(copy.parent.parent, tokens=["last-block"])


@pytest.mark.parametrize(
    ("tokens", "error", "says"),
    [
        (["last-blok"], UnknownNameError, "last-block"),
        (["last-block:fp8"], UsageError, "only int8 is allowed"),
        (["last-block@"], UsageError, "no rows behind"),
        (["last-block@nowhere"], UnknownNameError, "nowhere"),
    ],
)
def test_wrong_requests_are_refused(
    ask: Ask, tmp_path: Path, tokens: list[str], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        ask(tmp_path, tokens=tokens)
    assert not list(tmp_path.rglob("*.h5"))

"""What a later pass has to keep of the first: settings, and numbers that agree."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from featcache.errors import BackboneError, CacheError, UsageError
from featcache.imaging import loader
from featcache.imaging.decode import UnreadableImageError, read_image
from featcache.pipeline import compatibility
from featcache.pipeline import repair as mend
from featcache.places import Place
from featcache.store.cache import Cache
from featcache.store.repair.verify import repair
from featcache.wording import Part, in_python


def test_settings_of_the_first_pass_are_kept(ask: Any, backbone: Any) -> None:
    ask(limit=5, micro_batch=None)
    assert set(backbone.batches) == {256}
    with pytest.raises(UsageError, match="begun with micro-batch 256"):
        ask()
    backbone.compute_dtype = torch.bfloat16
    ask(micro_batch=None)
    assert backbone.loaded == "fp32"
    with pytest.raises(UsageError, match="begun in fp32"):
        ask(micro_batch=None, compute="bf16")


def test_other_versions_add_only_equal_numbers(
    ask: Any, backbone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(limit=10)
    monkeypatch.setattr(compatibility, "environment", lambda _: {"torch": "99.0"})
    backbone.wide = backbone.wide.flip(0)
    with pytest.raises(CacheError, match=r"agree with their stored rows to a cosine of .* only"):
        ask()
    backbone.wide = backbone.wide.flip(0)
    assert ask().complete
    backbone.batches.clear()
    ask(views=["1"])
    assert len(backbone.batches) == 4  # thirteen views, and no comparison a second time


def test_an_image_that_went_away_is_no_reason_against_other_versions(
    ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(limit=21)
    monkeypatch.setattr(compatibility, "environment", lambda _: {"torch": "99.0"})
    real = read_image

    asked: list[Place] = []
    calls = itertools.count()

    def refuse_first(place: Place, *arguments: Any, **more: Any) -> Any:
        asked.append(place)
        if next(calls) == 0:  # several threads read
            raise UnreadableImageError("cannot be read: Permission denied")
        return real(place, *arguments, **more)

    monkeypatch.setattr(loader, "read_image", refuse_first)
    assert ask().complete
    assert len(asked) == 8 + 1  # compared, and encoded


def test_without_global_rows_patches_are_compared(
    ask: Any, backbone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache.open(ask().path)
    for line in list(cache.shards["global"]):
        cache.drop("global", line.file)
    monkeypatch.setattr(compatibility, "environment", lambda _: {"torch": "99.0"})
    backbone.narrow = backbone.narrow.flip(0)
    with pytest.raises(CacheError, match="agree with their stored rows"):
        ask()
    backbone.narrow = backbone.narrow.flip(0)
    assert ask().encoded == {"global": 22}


def test_nothing_to_compare_is_said(
    ask: Any, folder: Path, make_picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask()
    for i, path in enumerate(sorted(folder.rglob("*.*g"))):
        make_picture(500 + i).save(path)
    monkeypatch.setattr(compatibility, "environment", lambda _: {"torch": "99.0"})
    said: list[str] = []
    assert ask(say=said.append).encoded["global"] == 22
    assert any("none of its rows could be encoded again" in text for text in said)


def test_a_compiled_tower_adds_only_equal_numbers(ask: Any, backbone: Any) -> None:
    ask(limit=10)
    backbone.compiled = True
    backbone.wide = backbone.wide.flip(0)
    with pytest.raises(CacheError, match="agree with their stored rows"):
        ask()
    backbone.wide = backbone.wide.flip(0)
    cache = Cache.open(ask().path)
    said = [line.provenance.get("compiled") for line in cache.shards["global"]]
    assert said == [None, "inductor"]
    backbone.batches.clear()
    ask(views=["1"])
    assert len(backbone.batches) == 4  # both kinds have written here; nothing is compared


@pytest.mark.parametrize("can_compile", [True, False])
def test_repair_compiles_again_what_was_compiled(
    ask: Any, backbone: Any, monkeypatch: pytest.MonkeyPatch, can_compile: bool
) -> None:
    backbone.compiled = True
    path = ask(patches=["none"], views=["2"]).path
    shard = next((path / "views.rrc50-2").glob("*.h5"))
    whole = shard.read_bytes()
    shard.unlink()
    repair(path)
    asked = []

    def load(*_: object, compiled: bool = False, **__: object) -> Any:
        asked.append(compiled)
        if compiled and not can_compile:
            raise BackboneError("torch.compile cannot build code for cpu here.")
        backbone.compiled = compiled
        return backbone

    monkeypatch.setattr(mend, "load_backbone", load)
    said: list[Part] = []
    mend.mend(path, say=said.append)
    assert asked == ([True] if can_compile else [True, False])
    assert any("these do not" in in_python([part]) for part in said) == (not can_compile)
    newest = Cache.open(path).shards["views.rrc50-2"][-1].provenance
    assert ("compiled" in newest) == can_compile
    if can_compile:
        assert next((path / "views.rrc50-2").glob("*.h5")).read_bytes() == whole

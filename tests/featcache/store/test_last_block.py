"""The file of the last block: every byte is checked, whoever wrote it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from featcache.errors import (
    CacheError,
    CorruptCacheError,
    LinkInCacheError,
    NewerFormatError,
)
from featcache.last_block import LastBlock, shapes
from featcache.store import last_block
from featcache.store.format.seal import seal, unseal
from featcache.store.format.tensors import compose
from featcache.store.last_block import METADATA, read_last_block, write_last_block

FILE = "last_block.safetensors"
KEY = "0123456789ab"


def make(**changes: Any) -> LastBlock:
    generator = torch.Generator().manual_seed(0)
    every, scales = shapes(8, 12, 4)
    tensors = {n: torch.randn(s, generator=generator) for n, s in {**every, **scales}.items()}
    settings = {"heads": 2, "activation": "gelu", "eps": 1e-5, "pool": "tok"}
    return LastBlock(**{**settings, "norm_after_pool": False, "tensors": tensors, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_last_block(tmp_path, make(), KEY)
    return tmp_path


def test_what_was_written_is_read(folder: Path) -> None:
    block, found = make(), read_last_block(folder, KEY)
    assert found.settings() == block.settings()
    assert found.digest == block.digest
    assert all(torch.equal(found.tensors[n], block.tensors[n]) for n in block.tensors)
    tokens = torch.randn(3, 5, 8)
    assert torch.equal(found.forward(tokens), block.forward(tokens))
    before = (folder / FILE).read_bytes()
    write_last_block(folder, make(), KEY)
    assert (folder / FILE).read_bytes() == before


def test_the_digest_tells_blocks_apart() -> None:
    block = make()
    moved = {**block.tensors, "proj": block.tensors["proj"] + 1}
    others = [make(heads=4), make(activation="quick_gelu"), make(tensors=moved)]
    assert len({b.digest for b in (block, *others)}) == 4


def test_a_flipped_bit_anywhere_is_found(folder: Path) -> None:
    data = (folder / FILE).read_bytes()
    for position in range(0, len(data), 97):
        broken = bytearray(data)
        broken[position] ^= 1
        (folder / FILE).write_bytes(broken)
        with pytest.raises(CorruptCacheError, match="featcache repair"):
            read_last_block(folder, KEY)


@pytest.mark.parametrize("size", [0, 7, 8, 100, -1])
def test_a_file_that_was_cut_is_found(folder: Path, size: int) -> None:
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:size])
    with pytest.raises(CorruptCacheError, match="featcache repair"):
        read_last_block(folder, KEY)


def resealed(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the description and seal it again."""
    data = (folder / FILE).read_bytes()
    length = int.from_bytes(data[:8], "little")
    sealed = json.loads(data[8 : 8 + length])["__metadata__"][METADATA]
    description, _ = unseal(sealed.encode())
    description.pop("crc", None)
    change(description)
    text = seal(description)[0].decode().rstrip("\n")
    tensors = safetensors.torch.load(data)
    (folder / FILE).write_bytes(safetensors.torch.save(tensors, metadata={METADATA: text}))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(key="ba9876543210"),
        lambda d: d.update(sha256="0" * 64),
        lambda d: d.update(settings={}),
        lambda d: d.update(settings=[1]),
        lambda d: d["settings"].update(heads=3),
        lambda d: d["settings"].update(heads="2"),
        lambda d: d["settings"].update(heads=True),
        lambda d: d["settings"].update(eps="1e-5"),
        lambda d: d["settings"].update(activation=["gelu"]),
        lambda d: d["settings"].update(activation="__import__"),
        lambda d: d["settings"].update(norm_after_pool=1),
        lambda d: d["settings"].update(tensors={}),
        lambda d: d.pop("key"),
        lambda d: d.pop("format"),
    ],
    ids=range(14),
)
def test_a_sealed_description_is_checked(
    folder: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    resealed(folder, change)
    with pytest.raises(CorruptCacheError, match="featcache repair"):
        read_last_block(folder, KEY)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("proj", torch.zeros(8, 5)),
        ("ln_1.bias", torch.full((8,), torch.nan)),
        ("ln_1.bias", torch.zeros(8, dtype=torch.float64)),
        ("further", torch.zeros(1)),
    ],
    ids=["shape", "NaN", "type", "another"],
)
def test_tensors_are_checked_whatever_the_seal_says(
    folder: Path, name: str, values: torch.Tensor
) -> None:
    block = make()
    description = {"format": 1, "key": KEY, "settings": block.settings(), "sha256": block.digest}
    (folder / FILE).write_bytes(compose({**block.tensors, name: values}, METADATA, description))
    with pytest.raises(CorruptCacheError, match="featcache repair"):
        read_last_block(folder, KEY)


def test_a_later_format_is_named(folder: Path) -> None:
    resealed(folder, lambda d: d.update(format=2))
    with pytest.raises(NewerFormatError, match=r"format 2.*Upgrade featcache"):
        read_last_block(folder, KEY)


def test_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (folder / FILE).rename(tmp_path / "elsewhere")
    (folder / FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LinkInCacheError):
        read_last_block(folder, KEY)


def test_a_file_that_is_too_large_is_not_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATCACHE_MAX_METADATA", "1000")
    monkeypatch.setattr(last_block, "describe", lambda *_: pytest.fail("it was read"))
    with pytest.raises(CacheError, match="FEATCACHE_MAX_METADATA"):
        read_last_block(folder, KEY)

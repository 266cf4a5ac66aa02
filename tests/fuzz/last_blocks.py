"""Files of last blocks for the fuzzer: what is read is a block that answers, or is refused."""

from pathlib import Path

import torch

from featcache.errors import FeatcacheError
from tests.fuzz.cases import Case
from tests.fuzz.guard import Target

FILE, KEY = "last_block.safetensors", "0123456789ab"


def _block(folder: Path) -> None:
    from featcache.store.last_block import read_last_block

    try:
        block = read_last_block(folder, KEY)
    except FeatcacheError:
        return
    assert block.forward(torch.ones(2, 3, block.width)).shape == (2, block.dim)


def _seeds(folder: Path) -> list[Case]:
    from featcache.last_block import LastBlock, shapes
    from featcache.store.last_block import write_last_block

    every, scales = shapes(4, 6, 2)
    tensors = {name: torch.ones(shape) for name, shape in {**every, **scales}.items()}
    block = LastBlock(
        heads=2, activation="gelu", eps=1e-5, pool="tok", norm_after_pool=False, tensors=tensors
    )
    write_last_block(folder, block, KEY)
    return [{FILE: (folder / FILE).read_bytes()}]


BLOCK_TARGETS = (Target(name="last-block", run=_block, seeds=_seeds),)

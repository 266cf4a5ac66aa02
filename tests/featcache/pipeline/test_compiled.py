"""Compiled passes of `tiny`: near to others, and equal bytes whatever happens between."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import config

from featcache.backbones.registry import load_backbone
from featcache.encoding.encoder import Encoder
from featcache.pipeline import extraction, plan
from featcache.store.cache import Cache

pytestmark = pytest.mark.slow

load = partial(load_backbone, "tiny", weights="random", device="cpu", compute="fp32")

ELSEWHERE = """
    import sys
    import numpy as np
    from featcache.backbones.registry import load_backbone
    from featcache.encoding.encoder import Encoder

    backbone = load_backbone("tiny", weights="random", device="cpu", compute="fp32", compiled=True)
    side = backbone.image_size
    pictures = np.random.default_rng(0).integers(0, 256, (4, side, side, 3), dtype=np.uint8)
    np.save(sys.argv[1], Encoder(backbone, 4).start(list(pictures), ()).wait()["global"])
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Any]]:
    """Four pictures as a second process encodes them, which finds nothing compiled before."""
    folder = tmp_path_factory.mktemp("elsewhere")
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(ELSEWHERE), str(folder / "rows.npy")],
        env=os.environ
        | {
            "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
            "TORCHINDUCTOR_VEC_ISA_OK": "1",  # believe what the processor says of itself: faster
        },
    )

    def rows() -> Any:
        assert process.wait(120) == 0
        return np.load(folder / "rows.npy")

    yield rows
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def tiny() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "jaxtyping_disable", True)
        return load(compiled=True)


@pytest.fixture(autouse=True)
def _unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shape checks of a test run are no code that can be compiled."""
    monkeypatch.setattr(config, "jaxtyping_disable", True)


def pictures_for(backbone: Any) -> Any:
    side = backbone.image_size
    return np.random.default_rng(0).integers(0, 256, (4, side, side, 3), dtype=np.uint8)


@pytest.mark.long
def test_another_process_with_empty_caches_computes_the_same_bytes(
    elsewhere: Callable[[], Any], tiny: Any
) -> None:
    rows = Encoder(tiny, 4).start(list(pictures_for(tiny)), ()).wait()["global"]
    np.testing.assert_array_equal(rows, elsewhere())


@pytest.mark.long
def test_only_the_image_tower_is_compiled_and_nothing_is_changed(tiny: Any) -> None:
    eager: Any = load()
    rows, near = (
        Encoder(b, 4).start(list(pictures_for(b)), ()).wait()["global"].astype(np.float64)
        for b in (eager, tiny)
    )
    cosine = (rows * near).sum(1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(near, axis=1)
    assert cosine.min() >= 0.99999
    weights = tiny._model.state_dict()
    assert all(torch.equal(weights[k], v) for k, v in eager._model.state_dict().items())
    assert torch.equal(tiny.encode_texts(["a moth"]), eager.encode_texts(["a moth"]))
    assert tiny.key == eager.key
    assert (tiny.compiled, eager.compiled) == (True, False)


@pytest.mark.parametrize("at", [1, 7])
@pytest.mark.long
def test_an_interrupted_compiled_pass_goes_on_and_leaves_the_same_bytes(
    ask: Any,
    ask_twice: Any,
    shards: Any,
    tiny: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
) -> None:
    asked: list[bool] = []

    def loaded(*_: object, compiled: bool, **__: object) -> Any:
        asked.append(compiled)
        return tiny

    monkeypatch.setattr(extraction, "load_backbone", loaded)
    monkeypatch.setattr(plan, "shard_rows_for", lambda *_: 4)
    request = {"backbone": "tiny", "patches": ["none"], "views": ["3"], "compiled": True}
    said: list[str] = []
    whole = ask(root=tmp_path / "whole", say=said.append, **request)
    assert any("compiled at its first batch" in text for text in said)
    resumed = ask_twice(tiny, at, **request)
    assert all(asked)
    assert shards(resumed.path) == shards(whole.path)
    lines = [line for part in Cache.open(whole.path).shards.values() for line in part]
    assert {line.provenance["compiled"] for line in lines} == {"inductor"}

"""A named data set whose files were moved with all others, or only copied."""

from pathlib import Path
from typing import Any

import pytest

from featcache.errors import SourceError
from featcache.pipeline.repair import mend
from featcache.store.repair.verify import repair
from tests.featcache.sources.miniatures import MINIATURES

PETS = next(m for m in MINIATURES if m.dataset == "oxford_pets" and m.splits is None)


def test_a_named_data_set_follows_the_data_root(
    ask: Any, backbone: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featcache.pipeline.repair.load_backbone", lambda *_, **__: backbone)
    old, new = tmp_path / "old", tmp_path / "new"
    PETS.write(old)
    wanted: dict[str, Any] = {"dataset": "oxford_pets", "patches": ["none"]}
    first = ask(**wanted, data_root=old)
    assert first.encoded == {"global": len(PETS.samples)}
    old.rename(new)
    assert ask(**wanted, data_root=new).encoded == {}
    new.rename(old)
    shard = next((first.path / "global").glob("*.h5"))
    monkeypatch.setenv("FEATCACHE_DATA", str(old))
    shard.unlink()
    repair(first.path)
    assert mend(first.path).encoded == {"global": len(PETS.samples)}
    assert shard.exists()


def test_two_copies_of_a_named_data_set_need_consent(ask: Any, tmp_path: Path) -> None:
    wanted: dict[str, Any] = {"dataset": "oxford_pets", "patches": ["none"]}
    for copy in ("one", "other"):
        PETS.write(tmp_path / copy)
    ask(**wanted, data_root=tmp_path / "one")
    with pytest.raises(SourceError, match=r"is another place\. Add moved"):
        ask(**wanted, data_root=tmp_path / "other")
    assert ask(**wanted, data_root=tmp_path / "other", moved=True).encoded == {}

"""Further sets of texts on disk: kept beside the descriptions, absent in older caches."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from featcache.errors import CorruptCacheError
from featcache.store.cache import Cache
from featcache.store.format.files import canonical
from featcache.store.format.records import TextLine
from featcache.store.text import read_text, text_component, write_text
from featcache.types import TextBank, TextSet

HERE = {"featcache": "0", "device": "cpu"}


@pytest.fixture
def full(bank: TextBank) -> TextBank:
    rows = torch.linspace(-3, 5, 6 * 8).reshape(6, 8)

    def texts(start: int, *owner: int) -> TextSet:
        stop = start + len(owner)
        words = tuple(f"text {i}" for i in range(start, stop))
        return TextSet(texts=words, rows=rows[start:stop], owner=torch.tensor(owner))

    # In another order than that of the kinds.
    sets = {"waffle": texts(0, 1, 0), "prompt": texts(4, -1, -1), "cupl": texts(2, 1)}
    return replace(bank, sets=sets | {"dclip": texts(3, 0)})


def test_every_set_comes_back(cache: Cache, full: TextBank) -> None:
    cache.put_text(full, HERE)
    found = Cache.open(cache.path).text()
    assert found is not None
    assert set(found.sets) == set(full.sets)
    for kind, held in full.owned().items():
        back = found.owned()[kind]
        assert back.texts == held.texts
        assert torch.equal(back.rows, held.rows)
        assert torch.equal(back.owner, held.owner)


def test_texts_without_further_sets_keep_name_and_bytes(
    tmp_path: Path, bank: TextBank, full: TextBank
) -> None:
    """Caches of before there were any stay readable, and their texts current."""
    assert text_component(bank) == "text.f167717d66e7"
    assert text_component(full) != text_component(bank)
    write_text(tmp_path, bank, "0" * 12, HERE)
    assert "sets" not in json.loads((tmp_path / "strings.json").read_bytes())


Bend = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    "bend",
    [
        lambda v: v["sets"].update(platypus=v["sets"].pop("cupl")),
        lambda v: v["sets"]["cupl"].update(texts="t"),
        lambda v: v["sets"]["cupl"].update(texts=[1]),
        lambda v: v["sets"]["cupl"].update(owner=[2]),
        lambda v: v["sets"]["cupl"].update(owner=[-1]),
        lambda v: v["sets"]["cupl"].update(owner=[True]),
        lambda v: v["sets"]["cupl"].update(owner=[0, 1]),
        lambda v: v["sets"]["cupl"].update(texts=["a", "b"], owner=[0, 1]),
        lambda v: v["sets"]["cupl"].pop("owner"),
        lambda v: v["sets"]["prompt"].update(owner=[-1]),
        lambda v: v["sets"]["prompt"].update(owner=[-1, 0]),
        lambda v: v["sets"]["prompt"].update(owner=[-1, -1.0]),
        lambda v: v["sets"]["prompt"].update(owner=-1),
        lambda v: v["sets"].update(cupl=[]),
        lambda v: v.update(sets=["cupl"]),
        lambda v: v.update(sets=3),
        lambda v: v.pop("sets"),
        lambda v: v.update(classes="ab"),
        lambda v: v.update(owner={"0": 1}),
    ],
)
def test_strings_that_do_not_fit_are_refused(tmp_path: Path, full: TextBank, bend: Bend) -> None:
    """Even under checksums that are right, as a stranger's are."""
    line = write_text(tmp_path, full, "0" * 12, HERE)
    assert read_text(tmp_path, line).sets["waffle"].texts == ("text 0", "text 1")
    path = tmp_path / "strings.json"
    value = json.loads(path.read_bytes())
    bend(value)
    with pytest.raises(CorruptCacheError, match=r"strings\.json cannot be parsed"):
        read_text(tmp_path, sealed(path, canonical(value), line))


def sealed(path: Path, data: bytes, line: TextLine) -> TextLine:
    from hashlib import sha256

    path.write_bytes(data)
    return replace(line, strings_bytes=len(data), strings_sha256=sha256(data).hexdigest())

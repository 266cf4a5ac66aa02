"""What fuzzing found, each with its smallest input: it must be refused in a sentence."""

import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.backbones.weights import read_weights
from featcache.errors import (
    LONGEST,
    BackboneError,
    FeatcacheError,
    ImportedFileError,
    SourceError,
    UsageError,
)
from featcache.importers.table import read_table
from featcache.places import FilePlace
from featcache.sources.base import Sample
from featcache.sources.hashing import hash_files
from featcache.sources.layouts.named.coop import parse_split
from featcache.text.descriptions import read_descriptions
from featcache.text.templates import read_templates
from heads.registry import get
from heads.results import store
from heads.results.reading import from_json
from heads.results.sealing import sealed
from heads.selection.settings import configure
from tests.fuzz.run_targets import toy_run
from tests.fuzz.targets import arrays

HEADERS = {
    "TokenError": "{'descr': '<i4', 'fortran_order': False, 'shape': (2, 4",
    "SyntaxError": "{'descr': ',', 'fortran_order': False, 'shape': (2, 4)}",
    "IndexError": "{'descr': ('<i4',), 'fortran_order': False, 'shape': (2, 4)}",
    "RecursionError": f"{{'descr': {'-' * 9000}1, 'fortran_order': False, 'shape': (2, 4)}}",
}


def _npy(header: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + b"\0" * 32


def _zip(path: Path, members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_headers_that_numpy_parses_as_python(tmp_path: Path, header: str) -> None:
    path = _zip(tmp_path / "a.npz", {"train_features.npy": _npy(header)})
    with pytest.raises(ImportedFileError, match="is not a sound"):
        read_table(path)
    run = toy_run("cmm", "one")
    folder = store.save(run, tmp_path / "runs")
    bent = _zip(folder / store.ANSWERS, {"predicted.npy": _npy(header)}).read_bytes()
    (folder / store.RECORD).write_bytes(sealed(run, {store.ANSWERS: bent}))
    with pytest.raises(ImportedFileError, match="does not hold the answers"):
        store.load(folder)


@pytest.mark.parametrize("code", [0x01000069, 0xD800, 0x1B])
def test_texts_of_an_npz_that_are_no_characters(tmp_path: Path, code: int) -> None:
    content = arrays()
    paths = content["train_paths"].copy()
    paths.view(np.uint32)[3] = code
    np.savez(tmp_path / "a.npz", **content | {"train_paths": paths})
    with pytest.raises(ImportedFileError, match=r"no characters|control characters"):
        read_table(tmp_path / "a.npz")


STRANGE: dict[str, Any] = {
    "meta": lambda: torch.empty(2, device="meta"),
    "sparse": lambda: torch.eye(2).to_sparse(),
    "terabytes of four bytes": lambda: torch.ones(1).expand(10**13),
    "8 bits": lambda: torch.ones(2).to(torch.float8_e4m3fn),
}


@pytest.mark.parametrize("make", STRANGE.values(), ids=STRANGE)
def test_tensors_whose_numbers_cannot_be_looked_at(tmp_path: Path, make: Any) -> None:
    torch.save({"a": make()}, tmp_path / "w.pt")
    with pytest.raises(BackboneError, match="'a' without all of its numbers"):
        read_weights(tmp_path / "w.pt")


def test_views_of_a_tensor_are_weights_all_the_same(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.ones(4)[::2]}, tmp_path / "w.pt")
    assert set(read_weights(tmp_path / "w.pt").tensors) == {"a", "b"}


def test_weights_that_unpack_to_far_more_than_their_size(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    bomb = _zip(tmp_path / "bomb.pt", members, zipfile.ZIP_DEFLATED)
    with pytest.raises(BackboneError, match="unpacks to"):
        read_weights(bomb)


@pytest.mark.parametrize("strange", ["\ud800", "\x1b[2J", "a\x00b"])
def test_words_that_no_file_or_terminal_can_take(tmp_path: Path, strange: str) -> None:
    path = tmp_path / "a.json"
    for words in ({"ant": [strange]}, {f"ant{strange}": ["red"]}):
        path.write_text(json.dumps(words))
        with pytest.raises(UsageError, match="control characters"):
            read_descriptions(path)
    path.write_text(json.dumps({"train": [["a.jpg", 0, strange]]}))
    with pytest.raises(SourceError, match="control characters"):
        parse_split(path.read_bytes(), str(path))
    path.write_text(f"a {{}} {strange}", errors="surrogatepass")
    with pytest.raises(UsageError, match=r"control characters|could not be read"):
        read_templates(path)


def test_spaces_in_descriptions_become_single(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"ant": [" six\n legs\t", "six legs"]}))
    assert read_descriptions(tmp_path / "a.json") == {"ant": ("six legs",)}


def test_a_setting_of_hundreds_of_digits() -> None:
    with pytest.raises(UsageError, match="whole number"):
        configure(get("tip-adapter-f"), {"epochs": "9" * 400})


@pytest.mark.parametrize("field", ["config", "versions", "chosen", "seconds"])
def test_a_record_with_half_characters(field: str) -> None:
    raw = json.loads(toy_run("cmm", "one").to_json())
    raw[field] = [{"\udcff": 1.0}] if field == "chosen" else {"\udcff": 1.0}
    with pytest.raises(ImportedFileError, match="lone surrogates"):
        from_json(json.dumps(raw))


def test_a_run_that_leads_elsewhere(tmp_path: Path) -> None:
    folder = store.save(toy_run("cmm", "one"), tmp_path / "runs")
    (folder / store.RECORD).rename(tmp_path / "elsewhere.json")
    (folder / store.RECORD).symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(ImportedFileError, match="is not a file"):
        store.load(folder)
    (tmp_path / "elsewhere.json").replace(folder / store.RECORD)
    (folder.parent / "two").symlink_to(folder)
    with pytest.raises(ImportedFileError, match="is a link"):
        store.load(folder.parent / "two")


def test_a_remembered_size_of_thousands_of_digits(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    known = tmp_path / "hashes.tsv"
    lines = [f"root\t{str(tmp_path)!a}", f"{'0' * 64}\t{'9' * 5000}\t1\t1\t1\ta.jpg"]
    known.write_bytes(b"".join(b"%08x\t%s\n" % (zlib.crc32(s.encode()), s.encode()) for s in lines))
    sample = Sample("a.jpg", FilePlace(tmp_path / "a.jpg"), 0, "train")
    hashes, unreadable = hash_files([sample], tmp_path, known, None, 1)
    assert (len(hashes[0]), unreadable) == (64, [])


def test_messages_show_what_strangers_wrote_without_obeying_it() -> None:
    text = str(FeatcacheError("Class '\x1b[2J\udcff' in " + "x" * 10_000 + " is bad."))
    assert "\\x1b[2J\\udcff" in text
    assert text.endswith("is bad.")
    assert len(text) < LONGEST + 50
    assert str(FeatcacheError("Größe „klein“ 日本")) == "Größe „klein“ 日本"
    text.encode()

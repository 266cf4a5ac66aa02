"""Torch files of strangers: what is read equals torch's own reading, and nothing is ever run."""

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache.errors import ImportedFileError
from featcache.importers.torch_files import read_torch

REAL = Path(__file__).parents[4] / "shared" / "data" / "raw_caches"
TYPES = (
    *(torch.float16, torch.float32, torch.float64, torch.bfloat16),
    *(torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool),
)


def bent(path: Path, change: Any, **more: bytes) -> Path:
    """Write a file again with another index, as torch would pack it."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, change(data) if name.endswith("data.pkl") else data)
        for name, data in more.items():
            archive.writestr(f"{next(iter(members)).partition('/')[0]}/{name}", data)
    return path


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_tensors_of_every_type_equal_torchs(tmp_path: Path, dtype: Any) -> None:
    base = torch.arange(24).reshape(2, 3, 4).to(dtype)
    for value in (base, base.transpose(0, 2), base[:, 1:], base[0, 0, 0], base[:0]):
        torch.save(value, tmp_path / "x.pt")
        found = read_torch(tmp_path / "x.pt")
        wanted = value.float() if dtype == torch.bfloat16 else value
        assert found.shape == tuple(value.shape)
        assert found.dtype == wanted.numpy().dtype
        np.testing.assert_array_equal(found, wanted.numpy())


def test_dicts_lists_and_parameters_come_as_they_are(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    value = {
        "train": {"features": shared.view(2, 3), "again": shared[2:], "paths": ["ä.jpg", "b"]},
        "plain": (1, 2.5, None, True, -(2**40)),
        "ordered": OrderedDict(weight=torch.nn.Parameter(torch.ones(2))),
        3: "c",
    }
    torch.save(value, tmp_path / "x.pt")
    found = read_torch(tmp_path / "x.pt")
    assert found["plain"] == value["plain"]
    assert found["train"]["paths"] == ["ä.jpg", "b"]
    assert found["train"]["features"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found["train"]["again"].tolist() == [2, 3, 4, 5]
    assert found["ordered"]["weight"].tolist() == [1, 1]
    assert found[3] == "c"


class Harm:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_file_that_would_run_code_runs_none(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "touched"
    torch.save({"a": Harm(mark)}, tmp_path / "zip.pt", pickle_protocol=protocol)
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Harm(mark), protocol=protocol))
    for name, why in (("zip.pt", "nothing of it was run"), ("plain.pt", "run code")):
        with pytest.raises(ImportedFileError, match=why):
            read_torch(tmp_path / name)
    assert not mark.exists()
    torch.load(tmp_path / "zip.pt", weights_only=False)
    assert mark.exists()  # so the test would notice


def test_a_pickled_model_is_refused_with_what_to_do(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "encoder.pth")
    with pytest.raises(ImportedFileError, match=r"encoder\.pth.*give the features that it made"):
        read_torch(tmp_path / "encoder.pth")


def test_a_pickled_draw_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "shot_16-seed_1.pkl").write_bytes(pickle.dumps({"train": [1]}))
    with pytest.raises(ImportedFileError, match="the same seeds draw the same images"):
        read_torch(tmp_path / "shot_16-seed_1.pkl")


def test_a_tensor_that_claims_more_than_is_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save(torch.zeros(1).expand(1 << 30, 1 << 30), path)
    assert path.stat().st_size < 2000
    with pytest.raises(ImportedFileError, match="does not lie in its 1 numbers"):
        read_torch(path)
    torch.save(torch.zeros(4), path)
    with pytest.raises(ImportedFileError, match="claims 100 numbers of 4 bytes and has 16"):
        read_torch(bent(path, lambda data: data.replace(b"K\x04", b"K\x64")))
    torch.save(torch.zeros(4), path)  # size and stride apart from the storage
    with pytest.raises(ImportedFileError, match="does not lie"):
        read_torch(bent(path, lambda data: data.replace(b"K\x04\x85", b"K\x05\x85")))
    torch.save(torch.zeros(4)[1:], path)
    with pytest.raises(ImportedFileError, match=r"negative|does not lie"):
        read_torch(bent(path, lambda data: data.replace(b"QK\x01", b"QJ\xff\xff\xff\xff")))


def test_an_index_that_asks_for_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save(torch.zeros(4), path)
    huge = b"\x80\x02K\x01r" + (2**32 - 1).to_bytes(4, "little") + b"."
    with pytest.raises(ImportedFileError, match="asks for 4294967295 places"):
        read_torch(bent(path, lambda _: huge))


def test_packed_and_doubled_members_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}.")
        archive.writestr("x/data/0", bytes(1 << 20))
    with pytest.raises(ImportedFileError, match="not compressed"):
        read_torch(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}.")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("x/data.pkl", b"\x80\x02}.")
    with pytest.raises(ImportedFileError, match="once"):
        read_torch(path)


def test_a_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save(torch.zeros(4), path)
    with pytest.raises(ImportedFileError, match="TorchScript program"):
        read_torch(bent(path, lambda data: data, **{"code/__torch__.py": b"x"}))


def test_a_file_larger_than_the_limit_is_refused(tmp_path: Path) -> None:
    torch.save(torch.zeros(1000), tmp_path / "x.pt")
    with pytest.raises(ImportedFileError, match="FEATCACHE_MAX_ARRAYS"):
        read_torch(tmp_path / "x.pt", limit=2000)


@pytest.mark.parametrize("part", [0, 1, 3, 10, 200, 500, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, part: int) -> None:
    buffer = io.BytesIO()
    torch.save(torch.zeros(1000), buffer)
    (tmp_path / "x.pt").write_bytes(buffer.getvalue()[:part])
    with pytest.raises(ImportedFileError, match=r"x\.pt"):
        read_torch(tmp_path / "x.pt")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "folder.pt").mkdir()
    for name in ("pipe.pt", "folder.pt", "none.pt"):
        with pytest.raises(ImportedFileError, match=name):
            read_torch(tmp_path / name)


def test_the_format_before_1_6_is_refused(tmp_path: Path) -> None:
    torch.save(torch.zeros(4), tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ImportedFileError, match=r"save them again with torch\.save"):
        read_torch(tmp_path / "x.pt")


@settings(max_examples=150)
@given(place=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_changed_byte_gives_tensors_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, place: int, byte: int
) -> None:
    buffer = io.BytesIO()
    torch.save({"features": torch.zeros(3, 4), "paths": ["a"]}, buffer)
    data = bytearray(buffer.getvalue())
    data[place % len(data)] = byte
    path = tmp_path_factory.mktemp("bent") / "x.pt"
    path.write_bytes(data)
    try:
        read_torch(path)
    except ImportedFileError:
        return


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real caches in {REAL}")
def test_real_caches_equal_torchs_reading() -> None:
    files = sorted(REAL.glob("*/*.pt"))
    assert len(files) == 28
    for path in files:
        wanted = torch.load(path, map_location="cpu", weights_only=True).numpy()
        found = read_torch(path)
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("way", ["one", "several", "memoized"])
def test_a_key_that_takes_forever_to_hash_is_refused(tmp_path: Path, way: str) -> None:
    code = b"\x80\x04)q\x00"
    for i in range(60):  # each tuple holds the one before twice: 2^60 steps for its hash
        code += b"h%ch%c\x86q%c" % (i, i, i + 1)
    code += {"one": b"}h\x3cNs.", "several": b"}(N\x88h\x3cNu.", "memoized": b"\x94}h\x3dNs."}[way]
    torch.save(torch.ones(1), tmp_path / "x.pt")
    with pytest.raises(ImportedFileError, match="neither a text nor a number"):
        read_torch(bent(tmp_path / "x.pt", lambda _: code))

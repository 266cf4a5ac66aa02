"""MATLAB files: numbers as scipy wrote them, and files of strangers."""

import random
import struct
import time
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.io import savemat

from featcache.errors import SourceError
from featcache.limits import ROWS, WORDS
from featcache.sources.layouts.named.mat_file import read_whole_numbers
from featcache.sources.registry import open_dataset
from tests.featcache.sources.miniatures.base import encoded
from tests.featcache.sources.miniatures.coop import mat_file

WHOLE = st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "i8", "u8", "f4", "f8"])


def saved(compressed: bool = False, **values: Any) -> bytes:
    out = BytesIO()
    savemat(out, values, do_compression=compressed)
    return out.getvalue()


@given(
    values=WHOLE.flatmap(
        lambda kind: arrays(
            np.dtype(kind), array_shapes(min_dims=2, max_dims=3), elements=st.integers(0, 100)
        )
    ),
    compressed=st.booleans(),
)
def test_numbers_are_those_that_scipy_wrote(values: np.ndarray, compressed: bool) -> None:
    found = read_whole_numbers(saved(compressed, first=values, other=[[7]]), "x.mat")
    assert found["first"].tolist() == values.flatten(order="F").tolist()
    assert found["other"].tolist() == [7]


def test_what_is_no_whole_number_is_left_out() -> None:
    data = saved(
        text="words",
        struct={"a": 1},
        cells=np.array([1, "b"], object),
        halves=[0.5],
        complex=[1j],
        lost=[np.nan, np.inf],
        huge=np.array([2**60], np.uint64),
        kept=[[1, 2]],
    )
    assert {k: v.tolist() for k, v in read_whole_numbers(data, "x.mat").items()} == {"kept": [1, 2]}


def test_files_in_the_other_order_of_bytes_are_read() -> None:
    matrix = b"".join(
        struct.pack(">II", kind, len(data)) + data.ljust(-(-len(data) // 8) * 8, b"\0")
        for kind, data in (
            (6, struct.pack(">II", 11, 0)),
            (5, struct.pack(">ii", 1, 3)),
            (1, b"ids"),
            (4, struct.pack(">3H", 1, 258, 3)),
        )
    )
    data = b" " * 124 + b"\x01\x00MI" + struct.pack(">II", 14, len(matrix)) + matrix
    assert read_whole_numbers(data, "x.mat")["ids"].tolist() == [1, 258, 3]


@pytest.mark.parametrize("compressed", [False, True])
def test_no_damage_is_worse_than_an_error(compressed: bool) -> None:
    whole = saved(compressed, trnid=np.arange(40, dtype=np.uint16), other=[[1.0, 2.0]])
    rng = random.Random(0)
    for _ in range(1000):
        data = bytearray(whole[: rng.randint(0, len(whole))] if rng.random() < 0.3 else whole)
        for _ in range(rng.randint(0, 3)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        with suppress(SourceError):
            read_whole_numbers(bytes(data), "x.mat")


def test_a_bomb_is_refused_before_it_unpacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORDS.variable, "100000")
    packed = zlib.compress(bytes(10_000_000))
    data = saved(a=[1])[:128] + struct.pack("<II", 15, len(packed)) + packed
    with pytest.raises(SourceError, match=f"more than 100000 bytes; {WORDS.variable} raises"):
        read_whole_numbers(data, "x.mat")
    small = zlib.compress(bytes(60_000))
    twice = (struct.pack("<II", 15, len(small)) + small) * 2
    with pytest.raises(SourceError, match="more than 100000 bytes"):
        read_whole_numbers(saved(a=[1])[:128] + twice, "x.mat")


def test_an_array_longer_than_any_listing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ROWS.variable, "100")
    data = saved(True, ids=np.zeros(101, np.uint8))
    with pytest.raises(SourceError, match=f"array of 101 numbers, more .* {ROWS.variable}"):
        read_whole_numbers(data, "x.mat")


def element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data.ljust(-(-len(data) // 8) * 8, b"\0")


def by_hand(
    flags: bytes = element(6, struct.pack("<II", 6, 0)),
    shape: bytes = element(5, struct.pack("<ii", 1, 3)),
) -> bytes:
    """Return a file with one array, as no program would write it."""
    rest = element(1, b"ids") + element(9, struct.pack("<3d", 1, 2, 3))
    return saved(a=[1])[:128] + element(14, flags + shape + rest)


@pytest.mark.parametrize(
    "wrong",
    [
        {"flags": element(9, struct.pack("<d", float("nan")))},
        {"shape": element(9, struct.pack("<2d", float("nan"), 1))},
        {"shape": element(7, struct.pack("<2f", float("inf"), 1))},
        {"shape": element(5, struct.pack("<2i", -1, -3))},
        {"shape": element(5, np.full(200_000, 2**31 - 1, "<i4").tobytes())},
        {"shape": element(5, np.ones(200_000, "<i4").tobytes())},
    ],
    ids=["flags-nan", "shape-nan", "shape-inf", "shape-negative", "shape-endless", "shape-ones"],
)
def test_flags_and_shapes_that_are_none_are_refused_at_once(wrong: dict[str, bytes]) -> None:
    assert read_whole_numbers(by_hand(), "x.mat")["ids"].tolist() == [1, 2, 3]
    start = time.process_time()
    with pytest.raises(SourceError, match=r"x\.mat has an array .* Get a whole copy"):
        read_whole_numbers(by_hand(**wrong), "x.mat")
    assert time.process_time() - start < 5


def test_files_of_other_versions_are_told() -> None:
    for data in (b"", b"MATLAB 5.0", b"\x89HDF\r\n\x1a\n" * 40):
        with pytest.raises(SourceError, match=r"x\.mat is no MATLAB file of version 5"):
            read_whole_numbers(data, "x.mat")


@pytest.mark.parametrize(
    ("ids", "labels", "message"),
    [
        ({"trnid": [1], "valid": [2]}, {"labels": [1, 2]}, "setid.mat has no array .* 'tstid'"),
        ({"trnid": [1], "valid": [2], "tstid": [3]}, {"labels": [1, 2]}, "image 3 has no label"),
        ({"trnid": [1], "valid": [0], "tstid": [2]}, {"labels": [1, 2]}, "image 0 has no label"),
        ({"trnid": [1], "valid": [2], "tstid": [1]}, {"labels": [1, 2]}, "image 1 stands in trnid"),
        ({"trnid": [1, 1], "valid": [2], "tstid": []}, {"labels": [1, 2]}, "image 1 stands in tr"),
        ({"trnid": [1], "valid": [2], "tstid": []}, {"labels": [1, 103]}, "image 2: 103 is no cla"),
        ({"trnid": [1], "valid": [2], "tstid": []}, {"label": [1, 2]}, "imagelabels.mat has no ar"),
    ],
)
def test_lists_that_do_not_fit_are_told(
    tmp_path: Path, ids: dict[str, list[int]], labels: dict[str, list[int]], message: str
) -> None:
    place = tmp_path / "images" / "oxford_flowers"
    (place / "jpg").mkdir(parents=True)
    (place / "jpg" / "image_00001.jpg").write_bytes(encoded("x.jpg"))
    (place / "setid.mat").write_bytes(mat_file(**ids))
    (place / "imagelabels.mat").write_bytes(mat_file(**labels))
    with pytest.raises(SourceError, match=message):
        open_dataset("oxford_flowers", root=tmp_path, splits="official", download=False)


def test_without_its_files_the_official_splits_name_them(tmp_path: Path) -> None:
    place = tmp_path / "images" / "oxford_flowers" / "jpg"
    place.mkdir(parents=True)
    (place / "image_06749.jpg").write_bytes(encoded("x.jpg"))
    with pytest.raises(SourceError, match=r"need setid\.mat, imagelabels\.mat beside"):
        open_dataset("oxford_flowers", root=tmp_path, splits="official", download=False)

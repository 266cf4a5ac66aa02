"""Small files that unpack to gigabytes: refused within the memory that their readers may take."""

import io
import os
import resource
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featcache.errors import FeatcacheError
from featcache.limits import IMAGE_FILE
from featcache.sources.registry import open_dataset

MEMORY, ADDRESSES = 256 << 20, 3 << 30
"""Bytes that a reader may add to what is in use, and that it can."""
SECONDS = 60


def header(shape: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    value = {"shape": shape, "fortran_order": False, "descr": "|u1"}
    np.lib.format.write_array_header_1_0(out, value)
    return out.getvalue()


def outcome(run: Callable[[], object]) -> str:
    """Run in a process of bounded memory and time; return what came of it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said, before = b"read", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            size = pages * resource.getpagesize() + ADDRESSES
            resource.setrlimit(resource.RLIMIT_AS, (size, size))
            signal.alarm(SECONDS)
            run()
        except (FeatcacheError, OSError):
            said = b"refused"
        except BaseException as error:
            said = f"{type(error).__name__}".encode()
        finally:
            if (more := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 > MEMORY:
                said += b", with %d MiB" % (more >> 10)
            os.write(writer, said)
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    found = os.read(reader, 100).decode()
    os.close(reader)
    return found or "killed"


def first(spec: str) -> Callable[[], object]:
    return lambda: open_dataset(spec, root=Path("/")).samples[0].place.read(IMAGE_FILE)


@pytest.mark.long
def test_an_npz_packed_by_bzip2_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.npz", "w", zipfile.ZIP_BZIP2) as archive:
        with archive.open("train_images.npy", "w", force_zip64=True) as file:
            file.write(header((2, 4, 4)) + bytes(32))
            for _ in range(400):
                file.write(bytes(1 << 20))
        archive.writestr("train_labels.npy", header((2,)) + bytes([0, 1]))
    assert (tmp_path / "p.npz").stat().st_size < 10_000
    assert outcome(first(f"npz:{tmp_path}/p.npz")) == "refused"


@pytest.mark.parametrize("shape", [(-1, 4, 4), pytest.param((2, -4, -4), marks=pytest.mark.long)])
@pytest.mark.long
def test_an_npz_with_negative_sizes_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with zipfile.ZipFile(tmp_path / "p.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train_images.npy", header(shape) + bytes(32))
        with archive.open("train_labels.npy", "w", force_zip64=True) as file:
            file.write(header(shape[:1]) + bytes([0, 1]))
            for _ in range(400 if shape[0] < 0 else 0):
                file.write(bytes(1 << 20))
    assert outcome(first(f"npz:{tmp_path}/p.npz")) == "refused"


@pytest.mark.parametrize("column", ["label", "image"])
def test_a_parquet_file_that_repeats_one_long_value_is_refused(tmp_path: Path, column: str) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    rows = 100 if column == "label" else 4
    size = {"label": 4 << 20, "image": 100 << 20}
    long = pa.array([bytes(size[column])]) if column == "image" else pa.array(["a" * size[column]])
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), long)
    table = {
        "image": repeated if column == "image" else pa.array([b"x"] * rows),
        "label": repeated if column == "label" else pa.array([0, 1] * (rows // 2)),
    }
    pq.write_table(pa.table(table), tmp_path / "p.parquet", compression="zstd", store_schema=False)
    assert (tmp_path / "p.parquet").stat().st_size < 100_000
    assert outcome(first(f"hf:{tmp_path}/p.parquet")) == "refused"


HEADERS = (
    "{'descr': '|u1', 'fortran_order': False, 'shape': (",
    "{'descr': (), 'fortran_order': False, 'shape': (1,)}",
)


@pytest.mark.parametrize("text", HEADERS)
def test_an_npz_whose_header_cannot_be_parsed_is_refused(tmp_path: Path, text: str) -> None:
    head = text.encode().ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "p.npz", "w") as archive:
        start = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little")
        archive.writestr("train_images.npy", start + head)
    assert outcome(first(f"npz:{tmp_path}/p.npz")) == "refused"

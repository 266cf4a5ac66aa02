"""Runs on disk: one folder a run, put in place in one step, read back with suspicion.

    <runs root>/<data set>/<backbone>-<key>/<run>/result.json        the record
                                                  predictions.npz    labels and answers, int32
                                                  episodes.json      of episodes: their list

A run's files may come from somebody else. Nothing in them is executed or unpickled, sizes are
checked against the record before anything is read, and what does not fit is refused.
"""

import io
import os
import re
import secrets
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from featcache.errors import CacheError, FeatcacheError, ImportedFileError, UnknownNameError
from featcache.paths import open_descriptor
from heads.results.record import Predictions, Result

RECORD, ANSWERS = "result.json", "predictions.npz"
RECORD_BYTES = 16 * 2**20
"""A record is kilobytes; what is larger than this is none."""
_HEADER_BYTES = 4096
_UNREADABLE = (
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,  # compressions and versions nobody here writes
    RuntimeError,  # a member that asks for a password
    OSError,
)


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """All runs under a root."""

    results: tuple[Result, ...]
    """Oldest first, without predictions."""
    folders: Mapping[str, Path]
    """Run -> where it lies."""
    problems: tuple[str, ...]
    """One sentence for each run that could not be read."""


def runs_root(option: Path | None = None) -> Path:
    """Return the folder of all runs: --runs, else $FEATCACHE_HOME/runs, else the user's data."""
    if option is not None:
        return option.expanduser()
    if home := os.environ.get("FEATCACHE_HOME"):
        return Path(home).expanduser() / "runs"
    if sys.platform == "darwin":
        data = Path.home() / "Library" / "Application Support"
    elif sys.platform == "win32":
        data = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return data / "featcache" / "runs"


def check_writable(root: Path) -> None:
    """Make the folder of all runs and try it, before hours go into a run that cannot be stored.

    Raises:
        CacheError: If nothing can be written there.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise _unwritable(root, error) from error


def folder_of(result: Result, root: Path) -> Path:
    """Name the folder of a run."""
    cache = f"{_plain(result.backbone)}-{_plain(result.key)}"
    return root / _plain(result.dataset) / cache / _plain(result.run)


def save(result: Result, root: Path) -> Path:
    """Store a run and return its folder; a reader sees all of it or nothing.

    Raises:
        CacheError: If the folder cannot be written or a run of that name is there.
    """
    final = folder_of(result, root)
    temporary = final.with_name(f".{final.name}.tmp-{secrets.token_hex(4)}")
    try:
        temporary.mkdir(parents=True)
        try:
            _write(temporary / RECORD, (result.to_json() + "\n").encode())
            if result.predictions is not None:
                _write(temporary / ANSWERS, _packed(result.predictions))
            for name, text in result.beside.items():
                _write(temporary / name, text.encode())
            if final.exists():
                raise FileExistsError(17, "a run of that name exists", str(final))
            temporary.rename(final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise _unwritable(final, error) from error
    return final


def _unwritable(place: Path, error: OSError) -> CacheError:
    return CacheError(
        f"Runs cannot be stored in {place} ({error.strerror or error}). "
        f"Make room or make it writable, or choose another folder with --runs."
    )


def find(root: Path, run: str) -> Path:
    """Return the folder of a run by its name.

    Raises:
        UnknownNameError: If there is no such run.
    """
    folders = {folder.name: folder for folder in _folders(root)}
    if run not in folders:
        raise UnknownNameError("run", run, folders, f"Runs are looked for in {root}.")
    return folders[run]


def load(folder: Path, *, predictions: bool = True) -> Result:
    """Read one run.

    Args:
        folder: The run's folder.
        predictions: Read the per-query answers too, where they were stored.

    Raises:
        ImportedFileError: If a file is not what the program writes.
        NewerFormatError: If a later version wrote it.
    """
    if link := next(
        (p for p in (folder, folder.parent, folder.parent.parent) if p.is_symlink()), 0
    ):
        raise ImportedFileError(
            f"{link} is a link; a run is only read where it lies. Put the folder itself there."
        )
    path = folder / RECORD
    text = _read(path, RECORD_BYTES)
    try:
        result = Result.from_json(text.decode(), where=str(path))
    except UnicodeDecodeError as error:
        raise ImportedFileError(f"{path} is not UTF-8 text; delete that run.") from error
    answers = folder / ANSWERS
    if not predictions or not answers.is_file():
        return result
    return replace(result, predictions=_unpacked(answers, result))


def load_all(root: Path) -> Shelf:
    """Read every record under a root; what cannot be read is reported, not fatal."""
    results, folders, problems = [], {}, []
    for folder in _folders(root):
        try:
            results.append(load(folder, predictions=False))
            folders[results[-1].run] = folder
        except FeatcacheError as error:
            problems.append(str(error))
    results.sort(key=lambda r: (r.created, r.run))
    return Shelf(results=tuple(results), folders=folders, problems=tuple(problems))


def _folders(root: Path) -> Iterator[Path]:
    for record in sorted(root.glob(f"*/*/*/{RECORD}")):
        if not record.parent.name.startswith("."):
            yield record.parent


def _plain(name: str) -> str:
    """Make one harmless path component of any name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "unnamed"


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path, limit: int) -> bytes:
    try:
        if path.is_symlink() or not path.is_file():
            raise ImportedFileError(f"{path} is not a file; delete that run or restore it.")
        with os.fdopen(open_descriptor(path, links=False), "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise ImportedFileError(f"{path} cannot be read ({error.strerror or error}).") from error
    if len(data) > limit:
        raise ImportedFileError(
            f"{path} is larger than {limit} bytes, which no run of this program writes; "
            f"delete that run."
        )
    return data


def _packed(kept: Predictions) -> bytes:
    arrays = {"predicted": kept.predicted, "labels": kept.labels}
    if kept.zero_shot is not None:
        arrays["zero_shot"] = kept.zero_shot
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _unpacked(path: Path, result: Result) -> Predictions:
    shape = (result.repetitions, result.queries)
    limit = 4 * shape[0] * shape[1] + _HEADER_BYTES
    data = _read(path, 3 * limit + _HEADER_BYTES)
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                if archive.getinfo(name).file_size > limit:
                    raise ValueError(f"{name} is larger than its record allows")
                arrays[name.removesuffix(".npy")] = _array(archive.read(name), shape)
        for name, array in arrays.items():
            if array.size and not 0 <= array.min() <= array.max() < result.classes:
                raise ValueError(f"{name} names classes that are none")
        return Predictions(
            predicted=arrays["predicted"],
            labels=arrays["labels"],
            zero_shot=arrays.get("zero_shot"),
        )
    except KeyError as error:
        raise ImportedFileError(f"{path} lacks {error}; train that run again.") from error
    except _UNREADABLE as error:
        raise ImportedFileError(
            f"{path} does not hold the answers of its run ({error}); train that run again."
        ) from error


def _array(data: bytes, shape: tuple[int, int]) -> Int32[np.ndarray, "r n"]:
    """Read an .npy member whose shape and type are known beforehand."""
    file = io.BytesIO(data)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("expected an array file of version 1.0")
    try:
        got, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    # numpy parses it as Python: SyntaxError, TokenError, IndexError, RecursionError, MemoryError
    except Exception as error:
        raise ValueError(f"an array's header cannot be parsed: {error}") from error
    if got != shape or fortran or dtype != np.dtype("<i4"):
        raise ValueError(f"expected int32 {list(shape)}, got {dtype} {list(got)}")
    rest = data[file.tell() :]
    if len(rest) != 4 * shape[0] * shape[1]:
        raise ValueError(f"expected {4 * shape[0] * shape[1]} bytes, got {len(rest)}")
    return np.frombuffer(rest, dtype="<i4").reshape(shape).astype(np.int32)

"""Runs on disk: one folder a run, created atomically and checked when read.

    <runs root>/<data set>/<backbone>-<key>/<run>/result.json          the record, sealed
                                                  predictions.npz      labels and answers, int32
                                                  episodes.json        of episodes: their list
                                                  head-1.safetensors   trained heads, by seed

The files of a run may be untrusted. Nothing in them is executed or unpickled; every byte is checked
against the seal and every figure against the answers, and a mismatch is refused.
"""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from featcache import limits
from featcache.errors import CacheError, FeatcacheError, ImportedFileError, UnknownNameError
from featcache.paths import check_folder, expand, open_descriptor
from featcache.scarcity import lacking
from featcache.store.format.files import sync_folder, sync_names
from featcache.wording import Argument
from heads.results import answers, figures, leftovers, reading, sealing
from heads.results.record import Result

RECORD, ANSWERS = "result.json", answers.FILE
RECORD_BYTES = 16 * 2**20
"""Largest size of a record; usual ones are kilobytes."""
FILE_BYTES = 256 * 2**20
"""Largest size of other files, except answers, whose size follows from the record, and heads."""
HEAD = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """All runs under a root."""

    results: tuple[Result, ...]
    """Oldest first, without predictions."""
    folders: Mapping[str, Path]
    """Run -> its folder."""
    problems: tuple[str, ...]
    """One sentence for each run that could not be read."""


RUNS = Argument("root", of="heads")
"""The argument for the folder of all runs, in messages."""


def runs_root(option: Path | None = None) -> Path:
    """Return the folder of all runs: the option, else $FEATCACHE_HOME/runs, else the user's data.

    Raises:
        CacheError: If the given path is no folder.
        UsageError: If it begins with the home folder of an unknown user.
    """
    if option is not None:
        return check_folder(expand(option), RUNS)
    if home := os.environ.get("FEATCACHE_HOME"):
        return check_folder(expand(home), "$FEATCACHE_HOME or ", RUNS) / "runs"
    if sys.platform == "darwin":
        data = Path.home() / "Library" / "Application Support"
    else:
        data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return data / "featcache" / "runs"


def check_writable(root: Path) -> None:
    """Create the folder of all runs and test that it is writable, before a run is trained.

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
    """Store a run atomically and return its folder.

    Temporary folders of interrupted saves under the root are removed.

    Raises:
        CacheError: If the folder cannot be written, a run of that name exists, or the record could
            not be read back.
    """
    final = folder_of(result, root)
    temporary = leftovers.name_for(final)
    files = dict(result.beside)
    if result.predictions is not None:
        files[ANSWERS] = answers.pack(result.predictions)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        leftovers.remove(root)
        with leftovers.writing(root):
            temporary.mkdir()
            try:
                for name, data in files.items():
                    _write(temporary / name, data)
                _write(temporary / RECORD, sealing.sealed(result, files))
                _read_back(temporary)
                sync_folder(temporary)
                if final.exists():
                    raise FileExistsError(17, "a run of that name exists", str(final))
                temporary.rename(final)
                sync_names(final)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise _unwritable(final, error) from error
    return final


def _read_back(folder: Path) -> None:
    """Refuse to store a record that could not be read back."""
    try:
        load(folder, predictions=False)
    except ImportedFileError as error:
        raise CacheError(
            f"The run was not stored, as its record could not be read again ({error})."
        ) from error


def _unwritable(place: Path, error: OSError) -> CacheError:
    hint = ("Make room or make it writable, or choose another folder with ", RUNS, ".")
    what = f"Runs cannot be stored in {place} ({error.strerror or error}). "
    return CacheError(what, lacking(error) or hint)


def find(root: Path, run: str) -> Path:
    """Return the folder of a run by its name.

    Raises:
        UnknownNameError: If there is no such run.
    """
    folders = {folder.name: folder for folder in run_folders(root)}
    if run not in folders:
        raise UnknownNameError(
            "run",
            run,
            folders,
            f"Runs are looked for in {root}.",
            examples=sorted(folders, reverse=True),  # names begin with the time: the newest first
        )
    return folders[run]


def load(
    folder: Path, *, predictions: bool = True, names: bool = True, heads: bool = False
) -> Result:
    """Read one run.

    Args:
        folder: The run's folder.
        predictions: Read the answers too, where they were stored, and check every file and every
            figure. Otherwise only the record is read and checked.
        names: Keep image ids and class names, which a table of many runs does not need.
        heads: Check the files of kept heads too.

    Raises:
        ImportedFileError: If a file is damaged, or was not written by this program.
        NewerFormatError: If a later version wrote it.
    """
    if link := next(
        (p for p in (folder, folder.parent, folder.parent.parent) if p.is_symlink()), 0
    ):
        raise ImportedFileError(
            f"{link} is a link; a run is only read where it lies. Put the folder itself there."
        )
    path = folder / RECORD
    values, stated = sealing.opened(_read(path, RECORD_BYTES), str(path))
    result = replace(reading.from_dict(values, where=str(path)), sealed=stated is not None)
    if not predictions:
        return result
    packed = _checked(folder, stated, result, heads=heads)
    if packed is None:
        return result
    predictions_read = answers.unpack(packed, result, folder / ANSWERS)
    if not names:
        predictions_read = replace(predictions_read, images=None, ids=(), classes=())
    return figures.counted(replace(result, predictions=predictions_read), str(folder))


def load_all(root: Path) -> Shelf:
    """Read every record under a root; unreadable ones are reported as problems."""
    results, folders, problems = [], {}, []
    for folder in run_folders(root):
        try:
            results.append(load(folder, predictions=False))
            folders[results[-1].run] = folder
        except FeatcacheError as error:
            problems.append(str(error))
    results.sort(key=lambda r: (r.created, r.run))
    return Shelf(results=tuple(results), folders=folders, problems=tuple(problems))


def load_records(root: Path, dataset: str, backbone: str, key: str) -> list[tuple[Result, Path]]:
    """Read the records of the runs on one cache, oldest first, without unreadable ones."""
    parent = root / _plain(dataset) / f"{_plain(backbone)}-{_plain(key)}"
    records = []
    for path in parent.glob(f"*/{RECORD}"):
        if not path.parent.name.startswith("."):
            with suppress(FeatcacheError):
                records.append((load(path.parent, predictions=False), path.parent))
    return sorted(records, key=lambda pair: (pair[0].created, pair[0].run))


def run_folders(root: Path) -> Iterator[Path]:
    """List the folders of all runs, including those without a record."""
    folders = {path.parent for name in (RECORD, ANSWERS) for path in root.glob(f"*/*/*/{name}")}
    yield from sorted(folder for folder in folders if not folder.name.startswith("."))


def read_beside(folder: Path, name: str) -> bytes:
    """Read a file beside a record and check it against the record.

    Raises:
        ImportedFileError: If it is not what was written.
    """
    _, stated = sealing.opened(_read(folder / RECORD, RECORD_BYTES), str(folder / RECORD))
    if stated is None or name not in stated:
        raise ImportedFileError(f"The record in {folder} states no file '{name}'.")
    data = _read(folder / name, limits.HEAD.value() if name.endswith(HEAD) else FILE_BYTES)
    sealing.check(data, stated[name], str(folder / name))
    return data


def _checked(
    folder: Path, stated: Mapping[str, sealing.Facts] | None, result: Result, *, heads: bool
) -> bytes | None:
    """Check the files beside a record; return the answers, None where there are none."""
    most = {ANSWERS: answers.most_bytes(result)}
    if stated is None:
        path = folder / ANSWERS
        return _read(path, most[ANSWERS]) if path.is_file() else None
    packed = None
    for name, facts in stated.items():
        is_head = name.endswith(HEAD)
        if is_head and not heads:
            continue
        limit = limits.HEAD.value() if is_head else FILE_BYTES
        data = _read(folder / name, most.get(name, limit))
        sealing.check(data, facts, str(folder / name))
        packed = data if name == ANSWERS else packed
    return packed


def _plain(name: str) -> str:
    """Convert any name to a safe path component."""
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

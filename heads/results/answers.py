"""The answers of a run, image by image: `predictions.npz`, without pickle, checked when read.

Content:

    predicted, labels, zero_shot  int32 [r n]  one row a repetition, positions in `classes`
    images                        int32 [r n]  image of each query, a position in `ids`
                                               -1 in all four behind the end of a smaller batch
    ids.json, classes.json        names, so that a run can be read without its cache
"""

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from featcache.errors import ImportedFileError, UsageError
from heads.results.record import BATCHES, Predictions, Result

FILE = "predictions.npz"
HEADER_BYTES = 4096
NAMES_BYTES = 256 * 2**20
"""Largest total size of names that is stored; 50,000 images take 2 MB."""
RATIO, RATIO_FROM = 200, 16 * 2**20
"""Members above RATIO_FROM bytes are compressed at most RATIO times, so that a file of kilobytes
cannot fill the memory."""
IDS, CLASSES = "ids.json", "classes.json"
ARRAYS = ("predicted", "labels", "zero_shot", "images")
_UNREADABLE = (
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,  # compressions and versions that this program does not write
    RuntimeError,  # an encrypted member; RecursionError of names
    OSError,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """The answers of a run by name; row i, column j is query j of repetition i."""

    ids: tuple[tuple[str, ...], ...]
    """Image ids, [r n]; those of `FeatureSet.listing.ids`. A smaller batch has fewer."""
    classes: tuple[str, ...]
    labels: Int32[np.ndarray, "r n"]
    """Positions in `classes`, as are all that follow."""
    predicted: Int32[np.ndarray, "r n"]
    zero_shot: Int32[np.ndarray, "r n"] | None


def by_name(result: Result) -> Answers:
    """Return the answers of a run with image ids and class names.

    Example:
        answers = by_name(store.load(folder))
        wrong = answers.predicted[0] != answers.labels[0]
        print([id for id, is_wrong in zip(answers.ids[0], wrong) if is_wrong])

    Raises:
        UsageError: If the run keeps no answers, or was stored before ids were kept.
    """
    predictions = result.predictions
    if predictions is None or predictions.images is None:
        what = "no answers" if predictions is None else "no image ids"
        raise UsageError(f"Run {result.run} keeps {what}; train it again.")
    return Answers(
        ids=tuple(
            tuple(predictions.ids[i] for i in row if i >= 0) for row in predictions.images.tolist()
        ),
        classes=predictions.classes,
        labels=predictions.labels,
        predicted=predictions.predicted,
        zero_shot=predictions.zero_shot,
    )


def pack(predictions: Predictions) -> bytes:
    """Write answers as an npz file, the same bytes for the same answers."""
    arrays = {name: getattr(predictions, name) for name in ARRAYS}
    names = {IDS: predictions.ids, CLASSES: predictions.classes}
    texts = {name: json.dumps(list(values)).encode() for name, values in names.items()}
    if predictions.images is None or max(map(len, texts.values())) > NAMES_BYTES:
        texts, arrays = {}, {**arrays, "images": None}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        members = {f"{name}.npy": _npy(a) for name, a in arrays.items() if a is not None} | texts
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, _method(data))
    return buffer.getvalue()


def most_bytes(result: Result) -> int:
    """Return the largest size of the file of answers for such a record."""
    return len(ARRAYS) * (4 * result.repetitions * result.queries + HEADER_BYTES) + 2 * NAMES_BYTES


def unpack(data: bytes, result: Result, where: Path) -> Predictions:
    """Read answers and check them against the shape in the record.

    Args:
        data: Content of the file.
        result: The record of the run.
        where: Path of the file in messages.

    Raises:
        ImportedFileError: If it does not hold the answers of that record.
    """
    shape = (result.repetitions, result.queries)
    limits = dict.fromkeys([f"{name}.npy" for name in ARRAYS], 4 * shape[0] * shape[1])
    limits |= {IDS: NAMES_BYTES, CLASSES: NAMES_BYTES}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {}
            for member in archive.infolist():
                name, size = member.filename, member.file_size
                if name not in limits:
                    raise ValueError(f"{name[:60]!a} is not written by this program")
                if name in members:
                    raise ValueError(f"{name} is there twice")
                if size > limits[name] + HEADER_BYTES:
                    raise ValueError(f"{name} is larger than its record allows")
                if size > max(RATIO_FROM, RATIO * member.compress_size):
                    packed = f"{member.compress_size} to {size} bytes"
                    raise ValueError(f"{name} unpacks from {packed}, as this program packs none")
                members[name] = archive.read(member)
        arrays = {
            name: _array(members[f"{name}.npy"], shape)
            for name in ARRAYS
            if f"{name}.npy" in members
        }
        names = {name: _names(members[name]) for name in (IDS, CLASSES) if name in members}
        _check(arrays, names, result)
        return Predictions(
            predicted=arrays["predicted"],
            labels=arrays["labels"],
            zero_shot=arrays.get("zero_shot"),
            images=arrays.get("images"),
            ids=names.get(IDS, ()),
            classes=names.get(CLASSES, ()),
        )
    except KeyError as error:
        raise ImportedFileError(f"{where} lacks {error}; train that run again.") from error
    except _UNREADABLE as error:
        raise ImportedFileError(
            f"{where} does not hold the answers of its run ({error}); train that run again."
        ) from error


def _check(
    arrays: Mapping[str, Int32[np.ndarray, "r n"]],
    names: Mapping[str, tuple[str, ...]],
    result: Result,
) -> None:
    """Refuse positions outside their list of names.

    A batch may be smaller than the largest; behind its end every array holds -1.
    """
    stops = dict.fromkeys(ARRAYS, result.classes) | {"images": len(names.get(IDS, ()))}
    is_query = arrays["labels"] >= 0
    if result.protocol != BATCHES and not is_query.all():
        raise ValueError("labels holds positions out of range")
    if not is_query.any(axis=1).all():
        raise ValueError("labels has repetitions without a query")
    for name, array in arrays.items():
        positions = array[is_query]
        if positions.size and not 0 <= positions.min() <= positions.max() < stops[name]:
            raise ValueError(f"{name} holds positions out of range")
        if (array[~is_query] != -1).any():
            raise ValueError(f"{name} holds answers behind the end of a batch")
    if len(names.get(CLASSES, ())) not in (0, result.classes):
        raise ValueError(f"{len(names[CLASSES])} class names for {result.classes} classes")


def _method(data: bytes) -> int:
    """Choose the compression of a member: none where deflating would exceed RATIO."""
    if len(data) <= RATIO_FROM:
        return zipfile.ZIP_DEFLATED
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = len(packer.compress(data)) + len(packer.flush())
    return zipfile.ZIP_STORED if len(data) > RATIO * packed else zipfile.ZIP_DEFLATED


def _npy(array: Int32[np.ndarray, "r n"]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array.astype("<i4"), version=(1, 0), allow_pickle=False)
    return file.getvalue()


def _names(data: bytes) -> tuple[str, ...]:
    values = json.loads(data)
    if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
        raise ValueError("expected a list of names")
    return tuple(values)


def _array(data: bytes, shape: tuple[int, int]) -> Int32[np.ndarray, "r n"]:
    """Read an .npy member of a known shape and type."""
    file = io.BytesIO(data)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("expected an array file of version 1.0")
    try:
        actual, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    # numpy parses it as Python: SyntaxError, TokenError, IndexError, RecursionError, MemoryError
    except Exception as error:
        raise ValueError(f"an array's header cannot be parsed: {error}") from error
    if actual != shape or fortran or dtype != np.dtype("<i4"):
        raise ValueError(f"expected int32 {list(shape)}, got {dtype} {list(actual)}")
    rest = data[file.tell() :]
    if len(rest) != 4 * shape[0] * shape[1]:
        raise ValueError(f"expected {4 * shape[0] * shape[1]} bytes, got {len(rest)}")
    return np.frombuffer(rest, dtype="<i4").reshape(shape).astype(np.int32)

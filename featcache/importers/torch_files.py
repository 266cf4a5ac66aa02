"""Tensors of a stranger's torch file, read without torch and without running anything.

A file of torch.save is a zip: one pickle that says which tensors there are, and one member with
the numbers of each storage. `torch.load(weights_only=True)` refuses code, but believes the sizes:
before its latest versions a storage may claim more elements than its member has, which reads
memory that is not its own, and a stride of zero lets two bytes claim to be 2^60 numbers. So the
pickle is read here. Its operations are compared with a list before the first one is carried out,
the names in it stand for nothing but the few shapes of a tensor, and every size is compared with
the bytes that are there.
"""

import pickle
import pickletools
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from featcache.errors import ImportedFileError
from featcache.importers.contents import Array
from featcache.limits import ARRAYS
from featcache.paths import open_regular
from featcache.scarcity import lacking

LONGEST_PICKLE = 64 << 20
"""Bytes of the pickle: it holds names and paths, no numbers."""
MEMBERS = 10_000
MEMO = 1 << 22
"""Largest place in the pickle's memory: an array of this length is made at once."""
DTYPES: Mapping[str, str] = {
    "HalfStorage": "f2",
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "BFloat16Storage": "u2",
    "ByteStorage": "u1",
    "CharStorage": "i1",
    "ShortStorage": "i2",
    "IntStorage": "i4",
    "LongStorage": "i8",
    "BoolStorage": "?",
}
"""Storage of torch -> numpy's type without its byte order; bfloat16 are the upper halves of
float32."""
OPERATIONS = frozenset(
    {
        *("PROTO", "STOP", "FRAME", "MARK", "POP", "NONE", "NEWTRUE", "NEWFALSE"),
        *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("BINUNICODE", "SHORT_BINUNICODE", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS"),
        *("BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET"),
        *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BINPERSID"),
    }
)
"""What torch.save writes for tensors, numbers, texts, lists and dicts of them."""
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    pickle.UnpicklingError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    EOFError,
    OSError,
    RuntimeError,
    MemoryError,
    OverflowError,
    RecursionError,
)
"""What zipfile, pickletools and pickle raise on damaged files."""


def read_torch(path: Path, *, limit: int | None = None) -> Any:
    """Read a file that torch.save wrote: a tensor, or dicts and lists of tensors.

    Args:
        path: The file.
        limit: Bytes that all tensors may take together; None is 16 GiB, or what
            FEATCACHE_MAX_ARRAYS says.

    Returns:
        What was saved, every tensor as a numpy array of its own type, bfloat16 as float32.

    Raises:
        ImportedFileError: If it is none, is damaged or too large, or holds anything but tensors,
            numbers and texts in dicts and lists.
    """
    try:
        with open_regular(path) as file:
            _check_kind(path, file.read(4))
            with zipfile.ZipFile(file) as archive:
                return _read(path, archive, ARRAYS.value() if limit is None else limit)
    except FileNotFoundError as error:
        raise ImportedFileError(f"There is no file {path}; check the path.") from error
    except _BROKEN as error:
        raise ImportedFileError(
            f"{path} is not a sound torch file ({lacking(error) or error}). Copy it again, or save "
            f"it again with torch.save(tensor, FILE)."
        ) from error


def _check_kind(path: Path, start: bytes) -> None:
    if start[:2] == b"PK":
        return
    if start[:1] == pickle.PROTO:
        raise ImportedFileError(
            f"{path} is a Python pickle, which can run code when it is read, and is not opened. "
            f"For a few-shot draw of Dassl (Datum objects), extract the named data set instead: "
            f"the same seeds draw the same images. For tensors, load the file where you trust it "
            f"and save them again with torch.save(tensor, FILE)."
        )
    raise ImportedFileError(
        f"{path} begins like no file of torch.save. Give the file that holds the tensors."
    )


def _read(path: Path, archive: zipfile.ZipFile, limit: int) -> Any:
    members = archive.infolist()
    total = sum(member.file_size for member in members)
    if len(members) > MEMBERS or total > limit:
        raise ImportedFileError(
            f"{path} holds {len(members)} members of {total} bytes together; up to {MEMBERS} of "
            f"{limit} bytes are read. Split it into several files, or raise {ARRAYS.variable}."
        )
    sizes = {member.filename: member.file_size for member in members}
    (twice, times), *_ = Counter(m.filename for m in members).most_common(1) or [("", 1)]
    packed = [m.filename for m in members if m.compress_type != zipfile.ZIP_STORED]
    size = path.stat().st_size
    if times > 1 or packed or total > size:
        what = twice if times > 1 else (packed or [f"{total} bytes in a file of {size}"])[0]
        raise ImportedFileError(
            f"{path} holds '{what}', which is not as torch.save writes it: once, and not "
            f"compressed. Save it again with torch.save(tensor, FILE)."
        )
    if any("/code/" in name or name.endswith("/constants.pkl") for name in sizes):
        raise ImportedFileError(
            f"{path} is a TorchScript program, which is never run. Save its tensors alone, with "
            f"torch.save(tensor, FILE)."
        )
    heads = [name for name in sizes if name.endswith("data.pkl") and name.count("/") <= 1]
    if len(heads) != 1 or sizes[heads[0]] > LONGEST_PICKLE:
        raise ImportedFileError(
            f"{path} holds no index of tensors of up to {LONGEST_PICKLE} bytes (data.pkl), as "
            f"torch.save writes it. Save it again with torch.save(tensor, FILE)."
        )
    folder = heads[0].removesuffix("data.pkl")
    mark = f"{folder}byteorder"
    is_big = mark in sizes and archive.read(mark) == b"big"
    index = archive.read(heads[0])
    _check_operations(path, index)
    return _Index(path, index, _Storages(archive, folder, sizes, is_big)).load()


def _check_operations(path: Path, index: bytes) -> None:
    """Go through the pickle without carrying anything out."""
    for operation, argument, _ in pickletools.genops(index):
        if operation.name not in OPERATIONS:
            raise _objects(path, f"operation {operation.name}")
        if operation.name == "LONG_BINPUT" and int(argument or 0) > MEMO:
            raise ValueError(f"its index asks for {argument} places")
    if not set(_kinds_of_keys(index)) <= {pickletools.pyunicode, pickletools.pyint}:
        raise ValueError("its index has a key that is neither a text nor a number")


def _kinds_of_keys(index: bytes) -> Iterator[pickletools.StackObject]:
    """Yield the kind of each key of a dict: hashing tuples of tuples may take 2^n steps."""
    stack: list[pickletools.StackObject] = []
    memo: dict[int, pickletools.StackObject] = {}
    for operation, argument, _ in pickletools.genops(index):
        if operation.name.endswith(("BINPUT", "MEMOIZE")):
            memo[len(memo) if argument is None else int(argument)] = stack[-1]
            continue
        if operation.name.endswith("BINGET"):
            stack.append(memo[int(argument or 0)])
            continue
        fixed, values = list(operation.stack_before), []
        if pickletools.stackslice in fixed:  # what was pushed since the last mark
            fixed = fixed[:-2]
            while (top := stack.pop()) is not pickletools.markobject:
                values.append(top)
        taken = [stack.pop() for _ in fixed]
        if operation.name in ("SETITEM", "SETITEMS"):
            yield from values[1::2] if values else taken[1:2]
        stack += operation.stack_after


def _objects(path: Path, what: str) -> ImportedFileError:
    return ImportedFileError(
        f"{path} holds more than tensors, numbers and texts ({what[:80]}); nothing of it was run. "
        f"Save the tensors alone, with torch.save(tensor, FILE). A whole model, as encoder.pth, is "
        f"not needed: give the features that it made."
    )


@dataclass(frozen=True)
class _Storages:
    """The members with numbers; each is read once."""

    archive: zipfile.ZipFile
    folder: str
    sizes: Mapping[str, int]
    is_big: bool
    """Whether the first byte of a number is its largest part."""
    read_before: dict[tuple[str, str], Shaped[np.ndarray, " s"]] = field(default_factory=dict)

    def read(self, kind: str, key: str, count: int) -> Shaped[np.ndarray, " s"]:
        """Read one storage.

        Raises:
            ValueError: If it has another number of bytes than its index says.
        """
        name = f"{self.folder}data/{key}"
        dtype = np.dtype((">" if self.is_big else "<") + DTYPES[kind])
        if self.sizes[name] != count * dtype.itemsize:
            raise ValueError(
                f"a storage claims {count} numbers of {dtype.itemsize} bytes and has "
                f"{self.sizes[name]} bytes"
            )
        if (kind, key) not in self.read_before:
            values = np.frombuffer(self.archive.read(name), dtype=dtype)
            if kind == "BFloat16Storage":
                values = (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
            self.read_before[kind, key] = values
        return self.read_before[kind, key]


@dataclass(frozen=True)
class _Name:
    """Stands for a type or function that the index names; calling it runs nothing of theirs."""

    name: str

    def __call__(self, *given: Any) -> Any:
        if self.name == "collections OrderedDict" and not given:
            return {}
        if self.name == "torch._utils _rebuild_tensor_v2":
            return _tensor(*given[:4])
        if self.name == "torch._utils _rebuild_parameter":
            return given[0]
        raise ValueError(f"its index calls {self.name}")


NAMES = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        *(f"torch {kind}" for kind in DTYPES),
    }
)


class _Index(pickle.Unpickler):
    """The pickle of a torch file, of whose names only those of tensors are known."""

    def __init__(self, path: Path, index: bytes, storages: _Storages) -> None:
        super().__init__(BytesIO(index))
        self._path, self._storages = path, storages

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name; nothing is imported."""
        full = f"{module} {name}"
        if full not in NAMES:
            raise _objects(self._path, f"{module}.{name}")
        return _Name(full)

    def persistent_load(self, pid: Any) -> Any:
        """Read a storage: ('storage', its type, its member, its device, how many numbers)."""
        mark, kind, key, _, count = pid
        if mark != "storage" or not isinstance(kind, _Name) or not isinstance(key, str):
            raise ValueError("its index names a storage that is none")
        return self._storages.read(kind.name.removeprefix("torch "), key, int(count))


def _tensor(
    storage: Shaped[np.ndarray, " s"], offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> Array:
    """Return a view of a storage as an array.

    Raises:
        ValueError: If it would reach beyond the storage, or repeat its numbers.
    """
    if not isinstance(storage, np.ndarray) or len(shape) != len(strides) or len(shape) > 32:
        raise ValueError("its index describes a tensor that is none")
    whole = [offset, *shape, *strides]
    if any(type(number) is not int or number < 0 for number in whole):
        raise ValueError("a tensor has a negative shape or stride")
    count = 1
    for side in shape:
        count *= side
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if count > len(storage) or (count and last >= len(storage)):
        raise ValueError(
            f"a tensor of shape {list(shape)[:8]} does not lie in its {len(storage)} numbers"
        )
    if count == 0:
        return np.zeros(shape, dtype=storage.dtype)
    size = storage.dtype.itemsize
    return np.lib.stride_tricks.as_strided(
        storage[offset:], shape=shape, strides=[size * s for s in strides], writeable=False
    )

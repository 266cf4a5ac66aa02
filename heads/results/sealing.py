"""The seal of a run: its record ends with a checksum and lists the checksums of its other files.

    {"backbone": ..., "files": {"predictions.npz": {"bytes", "crc32", "sha256"}}, ..., "crc": ...}

Every changed byte in any file is detected. Records of format 1 have no seal; they are read and
marked as unsealed.
"""

import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from typing import Any, TypeAlias

from featcache.errors import ImportedFileError
from featcache.store.format.seal import seal, split_seal, unseal
from heads.results.fields import Fields
from heads.results.record import FORMAT, Result

Facts: TypeAlias = Mapping[str, object]
"""bytes, crc32 and sha256 of a file."""

MOST_FILES = 100


def sealed(result: Result, files: Mapping[str, bytes]) -> bytes:
    """Return the line of a record over the other files of its run."""
    stated = {name: facts(data) for name, data in files.items()}
    return seal({**result.as_dict(), "files": stated})[0]


def facts(data: bytes) -> Facts:
    """Return size and checksums of a file."""
    return {
        "bytes": len(data),
        "crc32": zlib.crc32(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def opened(data: bytes, where: str) -> tuple[dict[str, Any], Mapping[str, Facts] | None]:
    """Return the values of a record and the facts on its other files, None where unsealed.

    Args:
        data: Content of the record's file.
        where: Name of the file in messages.

    Raises:
        ImportedFileError: If it is not what was written.
    """
    if not data.endswith(b"\n") or not _has_seal(data[:-1]):
        return _unsealed(data, where), None
    try:
        value, _ = unseal(data[:-1])
    except ValueError as error:
        raise _damaged(where) from error
    return value, _stated(Fields(value, where))


def check(data: bytes, stated: Facts, where: str) -> None:
    """Compare a file with its facts in the seal.

    Raises:
        ImportedFileError: If it is not what was written.
    """
    if facts(data) != stated:
        raise _damaged(where)


def _has_seal(line: bytes) -> bool:
    try:
        split_seal(line)
    except ValueError:
        return False
    return True


def _unsealed(data: bytes, where: str) -> dict[str, Any]:
    """Read a record of format 1; one of a later format without a seal is damaged."""
    try:
        value = json.loads(data.decode())
    except UnicodeDecodeError as error:
        raise ImportedFileError(f"{where} is not UTF-8 text; delete that run.") from error
    except (ValueError, RecursionError) as error:
        raise ImportedFileError(
            f"{where} is not JSON ({error}); delete that run and train it again."
        ) from error
    if not isinstance(value, dict):
        raise ImportedFileError(f"{where} should hold a JSON object; delete that run.")
    version = value.get("format")
    of_today = isinstance(version, int) and 1 < version <= FORMAT
    if of_today or "files" in value or "crc" in value:
        raise _damaged(where)
    return value


def _stated(f: Fields) -> dict[str, Facts]:
    stated: dict[str, Facts] = {}
    entries = f.mapping("files")
    if len(entries) > MOST_FILES:
        raise f.wrong("files", f"at most {MOST_FILES} files", len(entries))
    for name, value in entries.items():
        if not re.fullmatch(r"[a-z][a-z0-9_.-]{0,60}", name):
            raise f.wrong("files", "plain names", name)
        inner = f.inside("files", name, value)
        stated[name] = {
            "bytes": inner.integer("bytes", 0),
            "crc32": inner.integer("crc32", 0),
            "sha256": inner.text("sha256"),
        }
    return stated


def _damaged(where: str) -> ImportedFileError:
    return ImportedFileError(
        f"{where} is not what was written (its checksum differs); delete that run and train it "
        f"again."
    )

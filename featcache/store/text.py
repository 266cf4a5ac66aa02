"""Embedded texts on disk: strings in one JSON file, all features in one shard.

text.<digest>/strings.json    classes, templates, descriptions and their classes, sets, scale, bias
text.<digest>/rows.h5         [c names; c*t templates, class by class; m descriptions; sets] x d
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from featcache.errors import CorruptCacheError
from featcache.keys import FURTHER_SETS, PROMPT
from featcache.store.format.files import (
    canonical,
    make_folder,
    read_limited,
    refuse_link,
    unreadable,
    write_atomically,
)
from featcache.store.format.records import TEXT_PREFIX, TEXT_ROWS, TEXT_STRINGS, TextLine
from featcache.store.format.scan import read_rows
from featcache.store.format.shard import write_shard
from featcache.wording import Part

if TYPE_CHECKING:
    import featcache.types

CURE = "Run `featcache repair`, which encodes the texts again."


def text_component(bank: "featcache.types.TextBank") -> str:
    """Return the folder name of texts: text. and a digest of all strings and settings."""
    return TEXT_PREFIX + hashlib.sha256(canonical(_strings(bank))).hexdigest()[:12]


def write_text(
    folder: Path, bank: "featcache.types.TextBank", digest: str, provenance: Mapping[str, str]
) -> TextLine:
    """Write texts and their features; return their record.

    Args:
        folder: Folder named by `text_component`.
        bank: Texts and features.
        digest: Digest of the key of the cache.
        provenance: Versions, device and settings that produced the features.

    Raises:
        CacheError: If a value is not finite, or writing fails.
    """
    strings = canonical(_strings(bank)) + b"\n"
    parts = [
        part.detach().cpu().reshape(-1, part.shape[-1]).numpy()
        for part in (bank.names, bank.template_rows, *(s.rows for s in bank.owned().values()))
        if part is not None
    ]
    make_folder(folder)
    write_atomically(folder / TEXT_STRINGS, strings)
    sha256 = hashlib.sha256(strings).hexdigest()
    facts = write_shard(
        folder / TEXT_ROWS,
        np.concatenate(parts).astype(np.float32),
        about={
            "kind": "text",
            "component": folder.name,
            "key": digest,
            "strings_bytes": len(strings),
            "strings_sha256": sha256,
            "provenance": dict(provenance),
        },
        attributes={"component": folder.name},
    )
    return TextLine(
        component=folder.name,
        strings_bytes=len(strings),
        strings_sha256=sha256,
        facts=facts,
        provenance=provenance,
    )


def read_text(folder: Path, line: TextLine, cure: Part = "") -> "featcache.types.TextBank":
    """Read texts.

    Args:
        folder: Folder of the texts.
        line: Their record.
        cure: Advice for damaged texts; empty for the usual advice to repair.

    Raises:
        CorruptCacheError: If a file is missing or damaged.
    """
    data = read_strings(folder, line, cure)
    return _bank(data, read_rows(folder / TEXT_ROWS, line.facts, cure or CURE))


def read_sentences(folder: Path, line: TextLine, cure: Part = "") -> "featcache.types.TextBank":
    """Read texts without their features: all rows have length zero. Errors as `read_strings`."""
    data = read_strings(folder, line, cure)
    return _bank(data, np.zeros((sum(_counts(data)), 0), dtype=np.float32))


def _bank(data: dict[str, Any], values: Float32[np.ndarray, "n d"]) -> "featcache.types.TextBank":
    import torch

    from featcache.types import TextBank, TextSet

    rows = torch.from_numpy(values)
    c, t, m = len(data["classes"]), len(data["templates"]), len(data["descriptions"])
    d = rows.shape[1]
    names, templates, descriptions, *further = torch.split(rows, _counts(data))
    sets = {
        kind: TextSet(
            texts=tuple(entry["texts"]),
            rows=part,
            owner=torch.tensor(entry["owner"], dtype=torch.int64),
        )
        for (kind, entry), part in zip(_sets(data), further, strict=True)
    }
    return TextBank(
        classes=tuple(data["classes"]),
        names=names if data["has_names"] else None,
        templates=tuple(data["templates"]),
        template_rows=templates.reshape(c, t, d) if data["has_templates"] else None,
        descriptions=tuple(data["descriptions"]),
        description_rows=descriptions if m else None,
        owner=torch.tensor(data["owner"], dtype=torch.int64) if m else None,
        sets=sets,
        logit_scale=float(data["logit_scale"]),
        logit_bias=float(data["logit_bias"]),
        norms=data["norms"],
        tokenizer=data.get("tokenizer", ""),
        default=data["default"],
    )


def read_strings(folder: Path, line: TextLine, cure: Part = "") -> dict[str, Any]:
    """Read the strings and check them against their record and the number of rows.

    Raises:
        CorruptCacheError: If the file is missing or damaged.
        UnreadableCacheError: If it could not be read.
    """
    path = folder / TEXT_STRINGS
    refuse_link(folder)
    try:
        data = read_limited(path)
    except OSError as error:
        raise unreadable(path, error, cure or CURE) from error
    if (len(data), hashlib.sha256(data).hexdigest()) != (line.strings_bytes, line.strings_sha256):
        raise CorruptCacheError(f"{path} is not what was written. ", cure or CURE)
    try:
        value: dict[str, Any] = json.loads(data)
        _check(value, line)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptCacheError(f"{path} cannot be parsed ({error!r}). ", cure or CURE) from error
    return value


def _strings(bank: "featcache.types.TextBank") -> dict[str, Any]:
    owned = {
        kind: {"texts": list(texts.texts), "owner": texts.owner.tolist()}
        for kind, texts in bank.owned().items()
    }
    described = owned.pop("description", {"texts": [], "owner": []})
    return {
        "classes": list(bank.classes),
        "has_names": bank.names is not None,
        "templates": list(bank.templates),
        "has_templates": bank.template_rows is not None,
        "descriptions": described["texts"],
        "owner": described["owner"],
        **({"sets": owned} if owned else {}),  # omitted if empty: keeps older digests
        "logit_scale": bank.logit_scale,
        "logit_bias": bank.logit_bias,
        "norms": bank.norms,
        **({"tokenizer": bank.tokenizer} if bank.tokenizer else {}),
        "default": bank.default,
    }


def _sets(value: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """List the further sets in the order of their rows; older files have none."""
    sets = value.get("sets", {})
    return [(kind, sets[kind]) for kind in FURTHER_SETS if kind in sets]


def _counts(value: dict[str, Any]) -> list[int]:
    c = len(value["classes"])
    return [
        c if value["has_names"] else 0,
        c * len(value["templates"]) if value["has_templates"] else 0,
        len(value["descriptions"]),
        *(len(entry["texts"]) for _, entry in _sets(value)),
    ]


def _check(value: dict[str, Any], line: TextLine) -> None:
    for name in ("classes", "templates", "descriptions"):
        _check_texts(value[name])
    for name in ("norms", "default"):
        if not isinstance(value[name], str):
            raise TypeError(f"{name} is no text")
    if not isinstance(value.get("tokenizer", ""), str):
        raise TypeError("tokenizer is no text")
    for name in ("logit_scale", "logit_bias"):
        if not math.isfinite(value[name]):
            raise ValueError(f"{name} is not finite")
    c = len(value["classes"])
    _check_owner(value["owner"], len(value["descriptions"]), c)
    if not set(value.get("sets", {})) <= set(FURTHER_SETS):
        raise ValueError("it has texts of an unknown kind")
    for kind, entry in _sets(value):
        _check_texts(entry["texts"])
        if kind == PROMPT:
            _check_of_no_class(entry["owner"], len(entry["texts"]))
        else:
            _check_owner(entry["owner"], len(entry["texts"]), c)
    if [sum(_counts(value))] != list(line.facts.shape[:-1]):
        raise ValueError("the number of texts is not the number of rows")


def _check_texts(texts: object) -> None:
    if not isinstance(texts, list) or not all(isinstance(s, str) for s in texts):
        raise TypeError("a list of texts is not one")


def _check_owner(owner: object, texts: int, classes: int) -> None:
    if (
        not isinstance(owner, list)
        or len(owner) != texts
        or not all(type(o) is int and 0 <= o < classes for o in owner)
    ):
        raise ValueError("owner does not name a class for each text")


def _check_of_no_class(owner: object, texts: int) -> None:
    if owner != [-1] * texts or not all(type(o) is int for o in owner):
        raise ValueError("a prompt belongs to a class")

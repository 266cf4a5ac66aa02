"""Inputs of a fuzz target: small trees of files, bent together and made consistent again."""

import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

from featcache.store.format.files import canonical
from featcache.text.templates import is_plain
from tests.fuzz.bending import bend_file, nodes_of, seal_again, to_text

Case = dict[str, bytes]
"""Path below the folder of the case -> content."""
LINK, FIFO = b"\0link:", b"\0fifo"
"""Content that stands for a symbolic link to what follows, and for a pipe."""
OUTSIDE = "../outside"
"""Beside the folder of every case: nothing there may be opened, changed or removed."""


def write_case(case: Case, folder: Path) -> None:
    """Lay the files of a case out below a folder; what no file system can hold is left out."""
    for name, data in case.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if data.startswith(LINK):
                path.symlink_to(os.fsdecode(data.removeprefix(LINK)))
            elif data == FIFO:
                os.mkfifo(path)
            else:
                path.write_bytes(data)
        except (OSError, ValueError):
            continue


def read_case(folder: Path) -> Case:
    """Read a folder that `write_case` could have laid out."""
    case: Case = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            case[name] = LINK + os.fsencode(path.readlink())
        elif path.is_fifo():
            case[name] = FIFO
        elif path.is_file():
            case[name] = path.read_bytes()
    return case


def bend(case: Case, rng: Random, *, is_folder: bool, depth: int = 0) -> Case:
    """Change a case in one to four places and, mostly, make its checksums right again.

    Args:
        case: What to start from; stays as it is.
        rng: The stream.
        is_folder: Whether the target reads a folder, where files may be missing, links or pipes.
        depth: Folders at the top that stay as they are.
    """
    out = dict(case)
    bent: set[str] = set()
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        name = rng.choice(sorted(out))
        if is_folder and rng.random() < 0.12:
            _bend_tree(out, name, rng, depth)
        elif not out[name].startswith((LINK, FIFO)):
            out[name] = bend_file(out[name], rng)
            bent.add(name)
        if not out:
            return dict(case)
    if is_folder and rng.random() < 0.9:
        make_right(out, bent, rng)
    return out


def make_right(case: Case, bent: set[str], rng: Random) -> None:
    """Make sizes, checksums, digests and seals fit again, so that what lies behind them is met."""
    pointers = [n for n, d in case.items() if n.endswith((".json", ".jsonl")) and _is_json(d)]
    renamed = _renamed_digests(case, bent) if rng.random() < 0.7 else {}
    for name in pointers:
        lines = []
        for line in case[name].splitlines():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                lines.append(line)
                continue
            if name not in bent and isinstance(value, dict):
                _restate(value, name, case)
                line = to_text(value, is_canonical=True)
            lines.append(line)
        data = b"\n".join(lines) + b"\n" if len(lines) > 1 or name not in bent else case[name]
        for old, new in renamed.items():
            data = data.replace(old, new)
        case[name] = seal_again(data) if b'"crc":"' in data else data


def _is_json(data: bytes) -> bool:
    return data[:1] in (b"{", b"[")


def _bend_tree(case: Case, name: str, rng: Random, depth: int) -> None:
    """Change what there is instead of what is in it."""
    match rng.randrange(6):
        case 0:
            del case[name]
        case 1:
            other = rng.choice(sorted(case))
            case[name], case[other] = case[other], case[name]
        case 2:
            up = "../" * name.count("/") + OUTSIDE + "/"
            case[name] = LINK + (up + rng.choice((Path(name).name, "secret.json"))).encode()
        case 3:
            case[name] = FIFO
        case 4:  # a folder where a file should be
            case[f"{name}/x"] = case.pop(name)
        case _:  # a whole folder that leads elsewhere
            parent = Path(name).parent.as_posix()
            inside = [n for n in case if n.startswith(f"{parent}/")]
            if parent != "." and parent.count("/") >= depth and inside:
                for one in inside:
                    del case[one]
                up = "../" * parent.count("/") + OUTSIDE
                case[parent] = LINK + up.encode()


def _restate(value: Any, name: str, case: Case) -> None:
    """Bring size and checksums of other files up to date, wherever an object states them."""
    folder = Path(name).parent
    for entry in [value, *(p[k] for p, k in nodes_of(value) if isinstance(p[k], dict))]:
        component = str(entry.get("component", ""))
        facts = entry.get("facts")
        if isinstance(facts, dict) and "sha256" in facts:
            file = str(entry.get("file", "rows.h5"))
            _state(facts, case.get((folder / component / file).as_posix()))
        if "strings_sha256" in entry:
            strings = case.get((folder / component / "strings.json").as_posix())
            if strings is not None:
                entry["strings_bytes"] = len(strings)
                entry["strings_sha256"] = hashlib.sha256(strings).hexdigest()
        for key, inner in entry.items():
            if isinstance(inner, dict) and "crc32" in inner and "." in key:
                places = [
                    n for n in sorted(case) if n.startswith(f"{folder}/") and n.endswith(f"/{key}")
                ]
                _state(inner, case[places[0]] if places else None)


def _state(facts: dict[str, Any], data: bytes | None) -> None:
    if data is None:
        return
    facts["bytes"], facts["crc32"] = len(data), zlib.crc32(data)
    if "sha256" in facts:
        facts["sha256"] = hashlib.sha256(data).hexdigest()


def _renamed_digests(case: Case, bent: set[str]) -> dict[bytes, bytes]:
    """Find keys that were bent; the digest that they were known by -> the one they have now."""
    found: dict[bytes, bytes] = {}
    for name in bent:
        if not name.endswith("key.json"):
            continue
        try:
            value = json.loads(case.get(name, b""))
            new = hashlib.sha256(canonical(value["key"])).hexdigest()[:12]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        old = Path(name).parent.name.rpartition("-")[2]
        if re.fullmatch(r"[0-9a-f]{12}", old):
            found[old.encode()] = new.encode()
    return found


def writable(texts: Iterable[str]) -> None:
    """What was accepted can be stored and shown: no half characters, nothing a terminal obeys."""
    for text in texts:
        text.encode()
        assert is_plain(text), f"a text that does not print was accepted: {text!a}"

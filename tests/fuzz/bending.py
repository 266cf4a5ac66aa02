"""Bends one file: its bytes, or the structure that they carry.

Raw flips alone stop at the first checksum. So JSON is parsed, bent and sealed again, arrays keep a
header of the right length, archives are packed anew and PNG chunks get their checksum.
"""

import io
import json
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

from featcache.store.format.seal import checksum

SEALED = re.compile(rb',"crc":"[0-9a-f]{8}"\}$')
DEEP, HUGE = "@deep@", "@huge@"
NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 127, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32, 2**40, 2**53, 2**63 - 1),
    *(2**63, 2**64, 10**18, 10**25, 10**400, -(2**63), 0.5, -0.0, 1e-320, 1e300, 1.7e308),
    *(float("nan"), float("inf"), True, False, None),
)
TEXTS: tuple[str, ...] = (
    *("", " ", "x", "none", "text", "global", "shard", "x" * 5000, "\ud800", "\udcff", "\x00"),
    *(
        "\x1b[2J",
        "\n",
        "\u202e",
        "\u0663",
        "\u00b2",
        "e\u0301",
        "{}",
        "{",
        "../outside/secret.json",
    ),
    *("..", ".", "/", "a/../../../outside/secret.json", "/dev/zero", "/etc/passwd", "\\", "C:\\x"),
    *("text.000000000000", "views.rrc50-10", "00000000-00000008.h5", "set-000000000000", "1e999"),
    *("0" * 12, "f" * 64, "train@99999999999999999999", "-", "nan", "\ufeff", DEEP, HUGE),
)
HEADER_WORDS = (
    *("'|O'", "'<U1000000000'", "'|V0'", "'|S0'", "'<i8'", "'>f4'", "'<f2'", "'<M8[s]'", "','"),
    *("[('a', '<i4')]", "'i4,,f4'", "[('a', '|O')]", "('<f4', (2,))", "'<c16'", "'f4' * 9", "{}"),
    *(
        "(1 << 62,)",
        "(-1,)",
        "(4611686018427387904, 4)",
        "(True,)",
        "()",
        "(0, 5)",
        "(2.0,)",
        "None",
    ),
    *("-" * 9000 + "1", "(" * 150 + ")" * 150, "1L", "'\\x00'", "b''", "True", "[[]]", "1" * 5000),
)


def bend_file(data: bytes, rng: Random) -> bytes:
    """Change one file, by its structure where it has one."""
    if rng.random() < 0.25:
        return bend_bytes(data, rng)
    ways: list[Callable[[bytes, Random], bytes]] = []
    if data[:1] in (b"{", b"[") or data[:2] == b'"':
        ways.append(_bend_shard_head if b"\x89HDF" in data else _bend_lines)
    if data[:6] == b"\x93NUMPY":
        ways.append(_bend_npy)
    if data[:2] == b"PK":
        ways.append(_bend_zip)
    if data[:4] == b"\x89PNG":
        ways.append(_bend_png)
    if data[8:9] == b"{":
        ways.append(_bend_safetensors)
    if not ways:
        return bend_bytes(data, rng)
    try:
        return rng.choice(ways)(data, rng)
    # A file that was bent before may have lost its structure: then its bytes are left.
    except Exception:
        return bend_bytes(data, rng)


def bend_bytes(data: bytes, rng: Random) -> bytes:
    """Flip, insert, remove, repeat or overwrite bytes."""
    out = bytearray(data)
    at = rng.randrange(len(out) + 1)
    match rng.randrange(8):
        case 0 if out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        case 1:
            out[at:at] = rng.randbytes(rng.choice((1, 2, 8)))
        case 2:
            del out[at : at + rng.choice((1, 2, 4, 64, len(out)))]
        case 3:
            word = rng.choice((0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF))
            width = rng.choice((1, 2, 4, 8))
            order = rng.choice(("little", "big"))
            out[at : at + width] = (word % 256**width).to_bytes(width, order)
        case 4:
            out[at:at] = rng.choice(TEXTS).encode("utf-8", "surrogatepass")
        case 5:
            out[at:at] = out[rng.randrange(len(out) + 1) :][:200]
        case 6:
            out[at:at] = rng.choice(
                (b"\x00", b"\n", b"\xff", b"\xed\xa0\x80", b"\t", b"\xef\xbb\xbf")
            )
        case _:
            digits = [i for i, b in enumerate(out) if 48 <= b <= 57]
            if digits:
                i = rng.choice(digits)
                out[i : i + 1] = rng.choice((b"9" * 25, b"-1", b"0", b"9", b"1e400", b"9" * 5000))
    return bytes(out)


def bend_json(value: Any, rng: Random) -> Any:
    """Replace, remove, repeat, rename or nudge one node of a JSON value."""
    nodes = list(nodes_of(value))
    if not nodes:
        return rng.choice((*NUMBERS, *TEXTS, [], {}))
    parent, key = rng.choice(nodes)
    old = parent[key]
    match rng.randrange(9):
        case 0 | 1:
            parent[key] = rng.choice(NUMBERS)
        case 2 | 3:
            parent[key] = rng.choice(TEXTS)
        case 4:
            del parent[key]
        case 5:
            other, place = rng.choice(nodes)
            parent[key] = json.loads(json.dumps(other[place]))
        case 6 if isinstance(parent, list):
            parent.insert(key, old)
        case 6:
            parent[rng.choice(TEXTS)] = parent.pop(key)
        case 7 if isinstance(old, int):
            parent[key] = old + rng.choice((-1, 1, 8))
        case 7 if isinstance(old, str) and old:
            i = rng.randrange(len(old))
            parent[key] = old[:i] + rng.choice(TEXTS) + old[i + rng.randrange(2) :]
        case _:
            parent[key] = rng.choice(([], {}, [old], {"a": old}, [[]], [old, old]))
    return value


def to_text(value: Any, *, is_canonical: bool = False) -> bytes:
    """Write JSON, numbers that JSON lacks and nesting that no parser likes included."""
    form: dict[str, Any] = {"sort_keys": True, "separators": (",", ":")} if is_canonical else {}
    text = json.dumps(value, **form)
    text = text.replace(f'"{DEEP}"', "[" * 3000 + "]" * 3000)
    return text.replace(f'"{HUGE}"', "9" * 5000).encode()


def seal_again(data: bytes) -> bytes:
    """Give every line of sealed JSON the checksum that follows from the lines before it."""
    out, previous = [], 0
    for line in data.splitlines():
        body = SEALED.sub(b"}", line)
        body = re.sub(rb',"crc":"[0-9a-f]{8}"', b"", body)
        previous = checksum(body, previous)
        out.append(body[:-1] + b',"crc":"%08x"}' % previous)
    return b"\n".join(out) + b"\n"


def nodes_of(value: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    keys: Any = value.keys() if isinstance(value, dict) else range(len(value))
    for key in list(keys) if isinstance(value, dict | list) else ():
        found.append((value, key))
        if isinstance(value[key], dict | list):
            found += nodes_of(value[key])
    return found


def _bend_lines(data: bytes, rng: Random) -> bytes:
    """Bend a whole JSON text, or one line where every line is one."""
    lines = data.splitlines()
    try:
        for line in lines:
            json.loads(line)
    except (ValueError, RecursionError):
        return to_text(bend_json(json.loads(data), rng)) + b"\n"
    number = rng.randrange(len(lines))
    if len(lines) > 1 and rng.random() < 0.15:
        match rng.randrange(4):
            case 0:
                del lines[number]
            case 1:
                lines.insert(number, lines[number])
            case 2:
                rng.shuffle(lines)
            case _:
                lines[number] += b" "
        return b"\n".join(lines) + b"\n"
    value = bend_json(json.loads(lines[number]), rng)
    body = to_text(value, is_canonical=True)
    if rng.random() < 0.05:
        body = re.sub(rb'^\{("[a-z]+":[^,{\[]+),', rb"{\1,\1,", body)  # one key twice
    lines[number] = body
    return b"\n".join(lines) + b"\n"


def _bend_shard_head(data: bytes, rng: Random) -> bytes:
    """Bend the sealed line in front of an HDF5 file; its length stays."""
    line, _, rest = data.partition(b"\n")
    value = bend_json(json.loads(line), rng)
    value.pop("crc", None)
    body = to_text(value, is_canonical=True)
    sealed = seal_again(body).rstrip(b"\n")
    return sealed.ljust(len(line))[: max(len(line), 1)] + b"\n" + rest


def _bend_npy(data: bytes, rng: Random) -> bytes:
    length = struct.unpack("<H", data[8:10])[0]
    text, body = data[10 : 10 + length].decode("latin-1").rstrip(), data[10 + length :]
    match rng.randrange(5):
        case 0:
            text = re.sub(r"'descr': [^,]+", lambda _: f"'descr': {rng.choice(HEADER_WORDS)}", text)
        case 1:
            text = re.sub(
                r"'shape': \([^)]*\)", lambda _: f"'shape': {rng.choice(HEADER_WORDS)}", text
            )
        case 2:
            text = text.replace("False", rng.choice(HEADER_WORDS))
        case 3:
            text = bend_bytes(text.encode("latin-1"), rng).decode("latin-1")
        case _:
            body = bend_bytes(body, rng)
    head = text.encode("latin-1", "replace") + b"\n"
    head = head[:65000]
    return data[:8] + struct.pack("<H", len(head)) + head + body


def _bend_zip(data: bytes, rng: Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(m.filename, archive.read(m)) for m in archive.infolist()]
        method = archive.infolist()[0].compress_type
    number = rng.randrange(len(members))
    name, content = members[number]
    match rng.randrange(8):
        case 0:
            members[number] = (
                rng.choice(TEXTS).replace("\ud800", "u").replace("\udcff", "v"),
                content,
            )
        case 1:
            members.append((name, content))
        case 2:
            del members[number]
        case 3:
            other = rng.choice(members)
            members[number] = (name, other[1])
        case _:
            members[number] = (name, bend_file(content, rng))
    if rng.random() < 0.1:
        method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as archive:
        warnings.simplefilter("ignore", UserWarning)  # of equal names, which are meant
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def _bend_png(data: bytes, rng: Random) -> bytes:
    chunks, at = [], 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    number = rng.randrange(len(chunks))
    kind, content = chunks[number]
    match rng.randrange(5):
        case 0:
            del chunks[number]
        case 1:
            chunks.insert(rng.randrange(len(chunks)), (kind, content))
        case 2:
            names = (
                b"tRNS",
                b"PLTE",
                b"eXIf",
                b"iCCP",
                b"zTXt",
                b"acTL",
                b"fcTL",
                b"fdAT",
                b"gAMA",
            )
            chunks.insert(number, (rng.choice(names), rng.randbytes(rng.randrange(40))))
        case _:
            chunks[number] = (kind, bend_bytes(content, rng))
    out = data[:8]
    for kind, content in chunks:
        crc = zlib.crc32(kind + content)
        out += len(content).to_bytes(4, "big") + kind + content + crc.to_bytes(4, "big")
    return out


def _bend_safetensors(data: bytes, rng: Random) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header = bend_json(json.loads(data[8 : 8 + length]), rng)
    if rng.random() < 0.3:
        kinds = (
            "F8_E4M3",
            "F8_E5M2",
            "F8_E8M0",
            "BOOL",
            "U8",
            "I64",
            "U64",
            "F64",
            "BF16",
            "C64",
            "F4",
        )
        for entry in header.values():
            if isinstance(entry, dict) and "dtype" in entry:
                entry["dtype"] = rng.choice(kinds)
    text = to_text(header)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]

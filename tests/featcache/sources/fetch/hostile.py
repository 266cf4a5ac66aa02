"""Archives that no publisher makes: each by what is wrong with it, and what is said of it."""

import bz2
import gzip
import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

JPEG = b"\xff\xd8 a picture \xff\xd9"


@dataclass(frozen=True)
class Hostile:
    file: str
    make: Callable[[], bytes]
    said: str
    """Regular expression."""
    env: tuple[str, str] = ("", "")
    nested: bool = False


def tar(*members: tarfile.TarInfo | tuple[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as file:
        for member in members:
            if isinstance(member, tuple):
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                file.addfile(info, io.BytesIO(member[1]))
            else:
                file.addfile(member)
    return out.getvalue()


def special(kind: bytes, name: str = "a.jpg", link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes], method: int = 8) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for name, data in members:
            file.writestr(name, data)
    return out.getvalue()


def of_mode(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def patched(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) >= 1
    assert len(old) == len(new)
    return data.replace(old, new)


def header(**changes: int | bytes | str) -> bytes:
    """Make one header as it stands, with a true checksum."""
    info = tarfile.TarInfo("a.jpg")
    for name, value in changes.items():
        setattr(info, name, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def encrypted() -> bytes:
    data = bytearray(zipped(("a.jpg", JPEG)))
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    return bytes(data)


def overlapping() -> bytes:
    """Two entries of the directory for one member, as a bomb of the second kind has thousands."""
    data = bytearray(zipped(("a.jpg", JPEG), ("b.jpg", JPEG)))
    second = data.index(b"PK\1\2", data.index(b"PK\1\2") + 1)
    data[second + 42 : second + 46] = bytes(4)
    return bytes(data)


def lying_size(more: int) -> bytes:
    data = bytearray(zipped(("a.jpg", JPEG), method=0))
    at = data.index(b"PK\1\2") + 24
    size = struct.unpack_from("<L", data, at)[0]
    struct.pack_into("<L", data, at, size + more)
    return bytes(data)


def wrong_crc() -> bytes:
    return patched(zipped(("a.jpg", JPEG), method=0), b"a picture", b"b picture")


def many(count: int) -> bytes:
    return tar(*((f"{i}.jpg", b"") for i in range(count)))


def sparse_pax() -> bytes:
    info = tarfile.TarInfo("a.jpg")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": str(1 << 50)}
    return tar(info)


def pax(**fields: str) -> bytes:
    info = tarfile.TarInfo("a.jpg")
    info.pax_headers = dict(fields)
    return tar(info)


def everywhere(**fields: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", pax_headers=fields) as file:
        file.addfile(tarfile.TarInfo("a.jpg"))
    return out.getvalue()


def bomb() -> bytes:
    zeros = bytes(1 << 20)
    return tar(*((f"{i}.jpg", zeros) for i in range(40)))


WHOLE = tar(("x/a.jpg", JPEG), ("x/b.jpg", JPEG))
SMALL = ("FEATCACHE_MAX_UNPACKED", "30000000")

HOSTILE = {
    "tar: absolute name": Hostile("a.tar", lambda: tar(("/etc/x", JPEG)), "'/etc/x'.* is absolute"),
    "tar: out of its folder": Hostile("a.tar", lambda: tar(("x/../../y", JPEG)), "leads out of"),
    "tar: only ..": Hostile("a.tar", lambda: tar(("..", JPEG)), "leads out of"),
    "tar: folder ..": Hostile("a.tar", lambda: tar(special(b"5", "x/..")), "leads out of"),
    "tar: backslash": Hostile("a.tar", lambda: tar(("..\\x", JPEG)), "has a backslash"),
    "tar: control characters": Hostile(
        "a.tar", lambda: tar(("a\x1b[2J.jpg", JPEG)), "control char"
    ),
    "tar: newline": Hostile("a.tar", lambda: tar(("a\nb.jpg", JPEG)), "control characters"),
    "tar: C1 character": Hostile("a.tar", lambda: tar(("a\x9bb.jpg", JPEG)), "control characters"),
    "tar: long part": Hostile("a.tar", lambda: tar(("x" * 256, JPEG)), "more than 255 bytes"),
    "tar: long name": Hostile("a.tar", lambda: tar(("xxxx/" * 220, JPEG)), "more than 1024 bytes"),
    "tar: deep": Hostile("a.tar", lambda: tar(("x/" * 65, JPEG)), "more than 64 folders"),
    "tar: no name": Hostile("a.tar", lambda: tar((".", JPEG)), "a file without a name"),
    "tar: our record": Hostile("a.tar", lambda: tar((".fetched.json", b"{}")), "is reserved"),
    "tar: symbolic link": Hostile(
        "a.tar", lambda: tar(special(b"2", link="/etc")), "holds a symbolic link 'a.jpg'"
    ),
    "tar: link, then through it": Hostile(
        "a.tar", lambda: tar(special(b"2", "d", ".."), ("d/x", JPEG)), "holds a symbolic link"
    ),
    "tar: hard link": Hostile(
        "a.tar",
        lambda: tar(("b.jpg", JPEG), special(b"1", "a.jpg", "b.jpg")),
        "hard link 'a.jpg' to 'b.jpg', as some published archives.*unpack it yourself",
    ),
    "tar: device": Hostile("a.tar", lambda: tar(special(b"3")), "holds a device"),
    "tar: block device": Hostile("a.tar", lambda: tar(special(b"4")), "holds a device"),
    "tar: pipe": Hostile("a.tar", lambda: tar(special(b"6")), "holds a pipe"),
    "tar: sparse": Hostile("a.tar", lambda: header(type=b"S") + bytes(1024), "a sparse file"),
    "tar: sparse of pax": Hostile("a.tar", sparse_pax, "holds a sparse file"),
    "tar: unknown kind": Hostile("a.tar", lambda: tar(special(b"Z")), "of an unknown kind"),
    "tar: twice": Hostile("a.tar", lambda: tar(("a", JPEG), ("./a", JPEG)), "'a' twice"),
    "tar: file, then folder": Hostile("a.tar", lambda: tar(("a", b""), ("a/b", b"")), "'a' twice"),
    "tar: folder, then file": Hostile("a.tar", lambda: tar(("a/b", b""), ("a", b"")), "'a' twice"),
    "tar: negative size": Hostile(
        "a.tar", lambda: header(size=-512) + bytes(1024), "has -512 bytes"
    ),
    "tar: size of all disks": Hostile(
        "a.tar", lambda: header(size=1 << 60), "more than 549755813888"
    ),
    "tar: pax size": Hostile(
        "a.tar", lambda: pax(size=str(10**15)), "more than 549755813888 bytes"
    ),
    "tar: pax size no number": Hostile("a.tar", lambda: pax(size="-1"), "a size that is no number"),
    "tar: pax leads out": Hostile("a.tar", lambda: pax(path="../x"), "leads out of its folder"),
    "tar: pax header of a terabyte": Hostile(
        "a.tar", lambda: header(type=b"x", size=1 << 40), "an extended header of 1099511627776"
    ),
    "tar: long name of a terabyte": Hostile(
        "a.tar", lambda: header(type=b"L", size=1 << 40), "an extended header of"
    ),
    "tar: pax nonsense": Hostile(
        "a.tar",
        lambda: header(type=b"x", size=9) + b"99999 a=b".ljust(512, b"\0") + WHOLE,
        "an extended header that is none",
    ),
    "tar: one name for all": Hostile("a.tar", lambda: everywhere(path="x"), "one name or size"),
    "tar: cut in a file": Hostile("a.tar", lambda: WHOLE[:520], "ends in the midst of 'x/a.jpg'"),
    "tar: cut in padding": Hostile("a.tar", lambda: WHOLE[:540], "ends behind 'x/a.jpg'"),
    "tar: cut between members": Hostile("a.tar", lambda: WHOLE[:1024], "ends without the mark"),
    "tar: cut in a header": Hostile("a.tar", lambda: WHOLE[:1100], "ends without the mark"),
    "tar: damaged header": Hostile(
        "a.tar", lambda: b"y" + WHOLE[1:], "something else where a head"
    ),
    "tar: a page of html": Hostile("a.tar", lambda: b"<html>" * 200, "something else where a head"),
    "tar: empty file": Hostile("a.tar", lambda: b"", "ends without the mark"),
    "tar: no members": Hostile("a.tar", lambda: bytes(10240), "holds no files"),
    "tar: members": Hostile(
        "a.tar", lambda: many(50), "more than 49 members", ("FEATCACHE_MAX_MEMBERS", "49")
    ),
    "tar: large": Hostile("a.tar", bomb, "more than 30000000 bytes", SMALL),
    "tar.gz: bomb": Hostile(
        "a.tar.gz", lambda: gzip.compress(bomb()), "more than 50 times its own size"
    ),
    "tar.bz2: bomb": Hostile("a.tar.bz2", lambda: bz2.compress(bomb()), "more than 50 times"),
    "tar.gz: zeros behind the end": Hostile(
        "a.tgz", lambda: gzip.compress(WHOLE + bytes(40 << 20)), "more than 50 times its own size"
    ),
    "tar.gz: cut": Hostile("a.tar.gz", lambda: gzip.compress(WHOLE)[:-9], "cannot be decompressed"),
    "tar.gz: cut at its checksum": Hostile(
        "a.tar.gz", lambda: gzip.compress(WHOLE)[:-4], "cannot be decompressed"
    ),
    "tar.gz: checksum": Hostile(
        "a.tar.gz", lambda: gzip.compress(WHOLE)[:-8] + bytes(8), "cannot be decompressed"
    ),
    "tar.gz: no gzip": Hostile("a.tar.gz", lambda: WHOLE, "cannot be decompressed"),
    "tar.bz2: no bzip2": Hostile("a.tar.bz2", lambda: WHOLE, "cannot be decompressed"),
    "tar.bz2: cut": Hostile("a.tbz2", lambda: bz2.compress(WHOLE)[:-9], "cannot be decompressed"),
    "zip: absolute name": Hostile("a.zip", lambda: zipped(("/etc/x", JPEG)), "is absolute"),
    "zip: out of its folder": Hostile("a.zip", lambda: zipped(("x/../../y", JPEG)), "leads out of"),
    "zip: backslash": Hostile("a.zip", lambda: zipped(("..\\x", JPEG)), "has a backslash"),
    "zip: control characters": Hostile("a.zip", lambda: zipped(("a\x1b[2J", JPEG)), "control char"),
    "zip: zero in a name": Hostile(
        "a.zip",
        lambda: patched(zipped(("a.jpg#.txt", JPEG)), b"a.jpg#.txt", b"a.jpg\0.txt"),
        "control characters|names differ|differ",
    ),
    "zip: our record": Hostile("a.zip", lambda: zipped((".fetched.json", b"{}")), "is reserved"),
    "zip: symbolic link": Hostile(
        "a.zip",
        lambda: zipped((of_mode("a.jpg", stat.S_IFLNK), b"/etc")),
        r"symbolic link \('a.jpg'\)",
    ),
    "zip: device": Hostile(
        "a.zip", lambda: zipped((of_mode("a.jpg", stat.S_IFCHR), b"")), "a device or a pipe"
    ),
    "zip: password": Hostile("a.zip", encrypted, "is encrypted.*ObjectNet.*unpack it yourself"),
    "zip: lzma": Hostile("a.zip", lambda: zipped(("a", JPEG), method=14), "packs 'a' by method 14"),
    "zip: bzip2": Hostile(
        "a.zip", lambda: zipped(("a", JPEG), method=12), "packs 'a' by method 12"
    ),
    "zip: overlap": Hostile("a.zip", overlapping, "lie over each other"),
    "zip: twice": Hostile("a.zip", lambda: zipped(("a", JPEG), ("./a", JPEG)), "'a' twice"),
    "zip: checksum": Hostile("a.zip", wrong_crc, "'a.jpg', which has another checksum"),
    "zip: smaller than it says": Hostile("a.zip", lambda: lying_size(5), "says that"),
    "zip: larger than it says": Hostile("a.zip", lambda: lying_size(-5), "says that"),
    "zip: cut": Hostile("a.zip", lambda: zipped(("a.jpg", JPEG))[:-30], "no directory"),
    "zip: cut in front": Hostile("a.zip", lambda: zipped(("a.jpg", JPEG))[5:], "not where it says"),
    "zip: empty file": Hostile("a.zip", lambda: b"", "no directory"),
    "zip: no members": Hostile("a.zip", zipped, "holds no files"),
    "zip: a page of html": Hostile("a.zip", lambda: b"<html>" * 200, "no directory"),
    "zip: bomb": Hostile("a.zip", lambda: zipped(("a", bytes(40 << 20))), "more than 50 times"),
    "zip: members": Hostile(
        "a.zip",
        lambda: zipped(*((f"{i}", b"") for i in range(50))),
        "more than 49 members",
        ("FEATCACHE_MAX_MEMBERS", "49"),
    ),
    "zip: large": Hostile(
        "a.zip", lambda: zipped(("a", bytes(40 << 20)), method=0), "30000000", SMALL
    ),
    "nested: out of its folder": Hostile(
        "a.zip", lambda: zipped(("x/y.tar", tar(("../../z", JPEG)))), "leads out of", nested=True
    ),
    "nested: bomb": Hostile(
        "a.tar", lambda: tar(("y.tar.gz", gzip.compress(bomb()))), "more than 50 times", nested=True
    ),
    "nested: cut": Hostile(
        "a.zip", lambda: zipped(("y.tgz", gzip.compress(WHOLE)[:-9])), "y.tgz cannot", nested=True
    ),
    "nested: twice": Hostile(
        "a.tar",
        lambda: tar(("y/a.jpg", JPEG), ("y.tar", tar(("a.jpg", JPEG)))),
        "'y/a.jpg' twice",
        nested=True,
    ),
}
"""What is wrong -> the archive."""

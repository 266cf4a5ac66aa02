"""A server that speaks the hub's interface for one data set."""

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from tests.featcache.sources.fetch.serving import Answering, FileServer, Handler, whole

NAME = "zoo/beasts"
COMMIT = hashlib.sha1(b"a commit").hexdigest()


def shard(*labels: int) -> bytes:
    """Return a parquet file with an image a label; the bytes of each tell its place."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [{"bytes": f"{i} of {labels}".encode(), "path": None} for i in range(len(labels))]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    names = {"label": {"names": ["ant", "bee"], "_type": "ClassLabel"}}
    table = pa.table({"image": pa.array(images, kind), "label": pa.array(labels, pa.int64())})
    info = {"huggingface": json.dumps({"info": {"features": names}})}
    file = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(info), file)
    return file.getvalue()


def said(content: object, **headers: object) -> Answering:
    """Answer with JSON."""

    def answer(h: Handler, _: bytes) -> None:
        data = json.dumps(content).encode()
        h.start(200, Content_Length=len(data), **headers)
        h.say(data)

    return answer


def for_token(token: str, answering: Answering) -> Answering:
    """Answer those who show the token, and 401 to others."""

    def answer(h: Handler, data: bytes) -> None:
        if h.headers.get("Authorization") == f"Bearer {token}":
            answering(h, data)
        else:
            h.start(401, Content_Length=0)

    return answer


class Hub:
    """One data set on a server; the answers to its addresses can be replaced."""

    def __init__(self, server: FileServer) -> None:
        self.server = server

    def hold(
        self,
        files: Mapping[str, bytes],
        *,
        revision: str = "main",
        commit: str = COMMIT,
        wrap: Callable[[Answering], Answering] = lambda answering: answering,
        large: Callable[[str], bool] = lambda _: True,
    ) -> None:
        """Hold files at a commit; those that are `large` have their sha256 in the list."""
        entries: list[dict[str, Any]] = [{"type": "directory", "path": "data", "oid": "0" * 40}]
        for path, data in files.items():
            entry = {"type": "file", "path": path, "size": len(data), "oid": "1" * 40}
            if large(path):
                digest = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 130}
            entries.append(entry)
            self.server.put(self.file(path, commit), data, wrap(whole))
        self.answer(self.revision(revision), wrap(said({"id": NAME, "sha": commit})))
        self.answer(self.tree(commit), wrap(said(entries)))

    def answer(self, path: str, answering: Answering) -> None:
        self.server.put(path, self.server.files.get(path, b""), answering)

    @staticmethod
    def revision(revision: str = "main") -> str:
        return f"/api/datasets/{NAME}/revision/{quote(revision, safe='')}"

    @staticmethod
    def tree(commit: str = COMMIT) -> str:
        return f"/api/datasets/{NAME}/tree/{commit}?recursive=true"

    @staticmethod
    def file(path: str, commit: str = COMMIT) -> str:
        return f"/datasets/{NAME}/resolve/{commit}/{quote(path)}"

    def asked(self, path: str) -> int:
        """Return how often an address was asked for."""
        return sum(asked == path for asked, _ in self.server.asked)

"""Kills of extractions from archives and parquet files, where images are parts of one file."""

import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.killing import Campaign, Death, Server

pytestmark = pytest.mark.long

WINDOWS = 8
"""Kills in the midst of a change of the disk, evenly spread over a run."""


def files_of(photos: Path) -> list[tuple[str, Path]]:
    found = sorted(path for path in photos.rglob("*") if path.is_file())
    return [(path.relative_to(photos).as_posix(), path) for path in found]


def zipped(photos: Path, folder: Path) -> str:
    with zipfile.ZipFile(folder / "zoo.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in files_of(photos):
            archive.write(path, name)
    return f"zip:{folder / 'zoo.zip'}"


def tarred(photos: Path, folder: Path) -> str:
    with tarfile.open(folder / "zoo.tar", "w") as archive:
        for name, path in files_of(photos):
            archive.add(path, name)
    return f"tar:{folder / 'zoo.tar'}"


def in_parquet(photos: Path, folder: Path) -> str:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    (folder / "zoo-parquet").mkdir()
    for split in ("train", "test"):
        rows = [(n, p) for n, p in files_of(photos) if n.startswith(f"{split}/")]
        images = [{"bytes": path.read_bytes(), "path": name} for name, path in rows]
        labels = [name.split("/")[1] for name, _ in rows]
        table = pa.table({"image": images, "label": labels})
        pq.write_table(table, folder / f"zoo-parquet/{split}-0.parquet", row_group_size=3)
    return f"hf:{folder / 'zoo-parquet'}"


@pytest.mark.parametrize("pack", [zipped, tarred, in_parquet])
def test_nothing_is_lost(server: Server, tmp_path: Path, pack: Callable[[Path, Path], str]) -> None:
    campaign = Campaign(server, tmp_path, train=3, pack=pack)
    whole, end = campaign.undisturbed()
    assert whole.shards > 5
    assert campaign.kill_after_every_shard() == whole.shards
    for i in range(WINDOWS):
        campaign.kill_once(Death(call=1 + i * end.calls // WINDOWS, torn=i % 2 == 0))
    assert campaign.count.kills == whole.shards + WINDOWS

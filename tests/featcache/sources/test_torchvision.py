"""EuroSAT in miniature, as it lies on disk, and what is said when it does not."""

import json
import socket
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import URLError

import pytest

from featcache.errors import DownloadNeededError, SourceError
from featcache.sources.fetch.aside import aside
from featcache.sources.registry import find
from featcache.sources.torchvision import open_torchvision

EUROSAT = find("eurosat")


def miniature(root: Path, inner: str = "eurosat/2750") -> Path:
    for name in ("AnnualCrop", "SeaLake"):
        (root / inner / name).mkdir(parents=True)
        for i in range(1, 4):
            (root / inner / name / f"{name}_{i}.jpg").write_bytes(f"{name}{i}".encode())
    return root


def no_network(*_: object, **__: object) -> NoReturn:
    raise URLError("no route to host")


@pytest.mark.parametrize("inner", ["eurosat/2750", "2750", ""])
def test_files_that_are_there_are_used_without_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner: str
) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    data = open_torchvision(EUROSAT, miniature(tmp_path, inner), download=True)
    assert data.classes == ("Annual Crop Land", "Sea or Lake")
    assert data.templates == ("a centered satellite photo of {}.",)
    assert set(data.descriptions) == set(data.classes)
    assert Counter(s.split for s in data.samples) == {"train": 4, "test": 2}
    assert {s.id for s in data.samples} >= {"SeaLake/SeaLake_1.jpg"}
    assert any("6 images are there; the whole data set has 27000" in n for n in data.notes)
    assert any("split_zhou_EuroSAT.json" in n for n in data.notes)


@pytest.mark.parametrize("place", ["eurosat", ".", "eurosat/2750"])
def test_coops_splits_are_taken_where_the_file_lies_beside(tmp_path: Path, place: str) -> None:
    miniature(tmp_path)
    entries = {
        "train": [["SeaLake/SeaLake_3.jpg", 9, "Sea or Lake"],
                  ["AnnualCrop/AnnualCrop_2.jpg", 0, "Annual Crop Land"]],
        "val": [["Forest/Forest_1.jpg", i, f"class {i}"] for i in range(1, 2)]
        + [[f"x/{i}.jpg", i, f"class {i}"] for i in range(2, 9)],
        "test": [["SeaLake/SeaLake_1.jpg", 9, "Sea or Lake"]],
    }  # fmt: skip
    (tmp_path / place / "split_zhou_EuroSAT.json").write_text(json.dumps(entries))
    data = open_torchvision(EUROSAT, tmp_path, download=False)
    assert [(s.id, s.label, s.split) for s in data.samples] == [
        ("SeaLake/SeaLake_3.jpg", 1, "train"),
        ("AnnualCrop/AnnualCrop_2.jpg", 0, "train"),
        ("SeaLake/SeaLake_1.jpg", 1, "test"),
    ]
    assert data.classes == ("Annual Crop Land", "Sea or Lake")
    assert any("8 images of split_zhou_EuroSAT.json are not there" in n for n in data.notes)
    assert any("3 images are not in split_zhou_EuroSAT.json" in n for n in data.notes)


def test_a_split_file_of_other_images_is_refused(tmp_path: Path) -> None:
    miniature(tmp_path)
    content = {"train": [["x/1.jpg", 0, "x"]]}
    (tmp_path / "eurosat" / "split_zhou_EuroSAT.json").write_text(json.dumps(content))
    with pytest.raises(SourceError, match="None of the 1 images"):
        open_torchvision(EUROSAT, tmp_path, download=False)


@pytest.mark.parametrize("error", [URLError("unreachable"), TimeoutError("timed out")])
def test_without_network_it_says_what_whence_and_what_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    with pytest.raises(DownloadNeededError) as caught:
        open_torchvision(EUROSAT, tmp_path / "images", download=True)
    message = str(caught.value)
    for part in ("EuroSAT", "94 MB", EUROSAT.url, "--dataset-root", "folder:PATH"):
        assert part in message
    assert str(tmp_path / "images" / "eurosat" / "2750") in message
    assert list((tmp_path / "images").iterdir()) == []
    assert socket.getdefaulttimeout() is None


def test_a_download_that_breaks_off_never_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision.datasets

    def half(self: Any) -> NoReturn:
        miniature(Path(self.root))
        raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr(torchvision.datasets.EuroSAT, "download", half)
    with pytest.raises(DownloadNeededError, match="corrupted"):
        open_torchvision(EUROSAT, tmp_path, download=True)
    assert list(tmp_path.iterdir()) == []


def test_downloads_of_killed_processes_go_and_those_of_others_stay(tmp_path: Path) -> None:
    miniature(tmp_path)
    (tmp_path / ".eurosat.partial-dead" / "eurosat").mkdir(parents=True)
    (tmp_path / ".trashnet.partial-dead").mkdir()
    with aside("eurosat", tmp_path) as folder:  # of a process that lives
        open_torchvision(EUROSAT, tmp_path, download=True)
        left = {p.name for p in tmp_path.iterdir()}
        assert left == {"eurosat", folder.name, ".trashnet.partial-dead"}
    assert not folder.exists()


def test_a_whole_download_is_moved_into_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision.datasets

    said: list[str] = []
    monkeypatch.setattr(
        torchvision.datasets.EuroSAT, "download", lambda self: miniature(Path(self.root))
    )
    data = open_torchvision(
        EUROSAT, tmp_path, download=True, report=lambda what, done, of: said.append(what)
    )
    assert data.root == tmp_path / "eurosat" / "2750"
    assert len(data.samples) == 6
    assert [p.name for p in tmp_path.iterdir()] == ["eurosat"]
    assert said == ["downloading EuroSAT RGB: land use seen by Sentinel-2 (94 MB zip)"]


def test_the_url_is_torchvisions_own() -> None:
    import inspect

    import torchvision.datasets

    assert EUROSAT.url in inspect.getsource(torchvision.datasets.EuroSAT)

"""From a spec to a data set, and the words a named data set comes with."""

from importlib import import_module
from pathlib import Path

import pytest

from featcache.errors import (
    CacheError,
    DownloadNeededError,
    SourceError,
    UnknownNameError,
    UsageError,
)
from featcache.sources.fieldguide.species import WORLDS, species
from featcache.sources.fieldguide.world import COUNTS
from featcache.sources.generic import GENERIC
from featcache.sources.kinds import KINDS
from featcache.sources.prefixes.kind import Kind
from featcache.sources.registry import find, image_folder, open_dataset


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(name.encode())
    return tmp_path / "photos"


@pytest.mark.parametrize("world", WORLDS)
def test_the_size_of_a_drawn_world_is_as_stated(world: str) -> None:
    data = find(world)
    assert data.classes == len(species(world))
    assert data.images == data.classes * sum(COUNTS.values())


def test_a_folder_is_named_by_its_base_or_as_told(photos: Path) -> None:
    assert open_dataset(f"folder:{photos}", root=photos).name == "photos"
    assert open_dataset(f"folder:{photos}/", root=photos, name="pets").name == "pets"


def test_named_files_are_found_below_the_root_and_where_they_are_said_to_be(
    tmp_path: Path,
) -> None:
    for root in (tmp_path / "images" / "eurosat" / "2750", tmp_path / "mine"):
        for i in range(1, 4):
            (root / "River").mkdir(parents=True, exist_ok=True)
            (root / "River" / f"River_{i}.jpg").write_bytes(b"x")
    assert open_dataset("eurosat", root=tmp_path).root == tmp_path / "images/eurosat/2750"
    mine = open_dataset("eurosat", root=tmp_path, dataset_root=tmp_path / "mine", name="rivers")
    assert (mine.root, mine.name) == (tmp_path / "mine", "rivers")


def test_a_named_root_is_remembered_for_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine" / "River").mkdir(parents=True)
    for i in range(1, 4):
        (tmp_path / "mine" / "River" / f"River_{i}.jpg").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    mine = open_dataset("eurosat", root=tmp_path, dataset_root=Path("mine"))
    assert mine.root == tmp_path / "mine"


def test_nothing_is_downloaded_into_a_folder_that_the_user_named(tmp_path: Path) -> None:
    with pytest.raises(DownloadNeededError, match="without dataset_root it would be fetched"):
        open_dataset("eurosat", root=tmp_path, dataset_root=tmp_path / "empty")
    assert list(tmp_path.iterdir()) == []


def test_an_alias_stands_for_the_name_and_a_cached_folder_is_not_hidden_by_it(
    tmp_path: Path,
) -> None:
    assert find("pets") is find("oxford_pets")
    assert find("CIFAR-10").name == "cifar10"
    with pytest.raises(DownloadNeededError, match="Oxford-IIIT Pet"):
        open_dataset("pets", root=tmp_path, download=False)


def test_unknown_names_list_near_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'eurosat'"):
        open_dataset("euro-sat", root=tmp_path)


def test_aliases_are_near_names_too(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'pets'"):
        open_dataset("petz", root=tmp_path)


def test_sets_of_a_generic_source_are_told_how_to_be_read(tmp_path: Path) -> None:
    for one in GENERIC:
        assert one.spec.partition(":")[0] in KINDS
        for name in one.names:
            with pytest.raises(UsageError, match=rf"read as dataset={one.spec} "):
                open_dataset(name, root=tmp_path)
    with pytest.raises(UsageError, match=r"dataset=npz:FILE\.npz"):
        open_dataset("DermaMNIST", root=tmp_path)


def test_words_of_another_name_are_words(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="words of eurosat 'klingon'; known: coop"):
        open_dataset("eurosat", root=tmp_path, words="klingon")


@pytest.mark.parametrize("prefix", ["zip", "tar", "folder"])
def test_options_are_refused_where_there_are_none(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / f"photos.{prefix}"
    with pytest.raises(UsageError, match=rf"^{prefix}: takes no options, got '\?foo=1'; write"):
        open_dataset(f"{prefix}:{path}?foo=1", root=tmp_path)
    strange = tmp_path / "a?b=c"
    strange.mkdir()
    with pytest.raises(SourceError):  # not as options, but for what is in it
        open_dataset(f"folder:{strange}", root=tmp_path)


def test_a_bare_path_is_told_how_to_be_written(photos: Path) -> None:
    with pytest.raises(UsageError, match=f"write dataset='folder:{photos}'"):
        open_dataset(str(photos), root=photos)
    with pytest.raises(UsageError, match="needs a path"):
        open_dataset("folder:", root=photos)
    with pytest.raises(UsageError, match="dataset_root is for named"):
        open_dataset(f"folder:{photos}", root=photos, dataset_root=photos)
    with pytest.raises(UsageError, match="name needs"):
        open_dataset(f"folder:{photos}", root=photos, name=" ")
    with pytest.raises(SourceError, match="There is no folder"):
        open_dataset("folder:/nowhere/at/all", root=photos)


def test_every_prefix_leads_to_its_kind_of_source() -> None:
    for prefix, where in KINDS.items():
        module, _, name = where.partition(":")
        kind = getattr(import_module(module), name)
        assert isinstance(kind, Kind)
        assert kind.prefix == prefix
        assert kind.example.startswith(f"{prefix}:")


def test_an_unknown_prefix_lists_near_ones(photos: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown kind of source 'folders'.*'folder'"):
        open_dataset(f"folders:{photos}", root=photos)
    with pytest.raises(UnknownNameError, match=r"'zip'.*dataset=folder:PATH"):
        open_dataset("zipp:photos.zip", root=photos)
    with pytest.raises(UsageError, match=r"zip: needs a path, e\.g\. dataset='zip:photos\.zip'"):
        open_dataset("zip:", root=photos)


def test_a_bare_archive_is_told_how_to_be_written(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"PK")
    with pytest.raises(UsageError, match=r"is a file, not a name; write dataset='zip:.*photos"):
        open_dataset(str(tmp_path / "photos.zip"), root=tmp_path)


def test_a_folder_with_a_colon_in_its_name_is_told_how_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a:b").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="write dataset='folder:a:b'"):
        open_dataset("a:b", root=tmp_path)


def test_where_named_data_sets_keep_their_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FEATCACHE_DATA", raising=False)
    assert image_folder(tmp_path) == tmp_path / "images"
    monkeypatch.setenv("FEATCACHE_DATA", str(tmp_path / "env"))
    assert image_folder(tmp_path) == tmp_path / "env"
    assert image_folder(tmp_path, tmp_path / "named") == tmp_path / "named"
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match=r"is a file, not a folder.*data_root"):
        image_folder(tmp_path, tmp_path / "file")

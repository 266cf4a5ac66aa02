import errno
import random
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from PIL import Image

from featcache.errors import SourceError, UnknownNameError
from featcache.sources.fieldguide import world
from featcache.sources.fieldguide.sheet import sheet
from featcache.sources.fieldguide.shifts import SHIFTS
from featcache.sources.fieldguide.species import species
from featcache.sources.fieldguide.world import COUNTS, SIZE, drawing, open_world

FEW = {"train": 2, "test": 1, "night": 1}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    open_world("fieldguide", root, counts=FEW)
    return root


def test_listing(drawn: Path) -> None:
    data = open_world("fieldguide", drawn, counts=FEW)
    assert data.classes == tuple(s.name for s in species("fieldguide"))
    assert len(data.samples) == 24 * sum(FEW.values())
    assert data.splits() == ("train", "test", "night")
    assert data.default_text == "description"
    assert all(t.count("{}") == 1 for t in data.templates)
    assert data.descriptions[data.classes[5]] == species("fieldguide")[5].descriptions
    ids = [s.id for s in data.samples]
    assert len(set(ids)) == len(ids)
    for sample in data.samples:
        assert sample.place.container == data.root / sample.id
        assert sample.id.startswith(f"{sample.split}/{world.slug(data.classes[sample.label])}/")


def test_files_are_the_drawings(drawn: Path) -> None:
    assert len(list(drawn.rglob("*.jpg"))) == 24 * sum(FEW.values())
    assert not list(drawn.rglob("*.part"))
    for split in ("train", "night"):
        path = drawn / "fieldguide" / split / world.slug(species("fieldguide")[3].name) / "0000.jpg"
        with Image.open(path) as image:
            assert (image.format, image.size, image.mode) == ("JPEG", (SIZE, SIZE), "RGB")
            pixels = np.asarray(image).astype(int)
        wanted = drawing("fieldguide", split, 3, 0).pixels.astype(int)
        assert np.abs(pixels - wanted).mean() < 6


def test_missing_and_empty_images_are_drawn_again(drawn: Path) -> None:
    paths = sorted(drawn.rglob("*.jpg"))
    missing, empty, kept = paths[7], paths[20], paths[30]
    before = [p.read_bytes() for p in (missing, empty, kept)]
    kept_at = kept.stat().st_mtime_ns
    missing.unlink()
    empty.write_bytes(b"")
    seen: list[tuple[str, int, int]] = []
    data = open_world("fieldguide", drawn, counts=FEW, report=lambda *at: seen.append(at))
    assert [p.read_bytes() for p in (missing, empty, kept)] == before
    assert kept.stat().st_mtime_ns == kept_at
    assert seen == [("drawing", 2, 2)]
    assert "2 of 96" in data.notes[0]


def test_an_interruption_says_how_many_pictures_are_kept(tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        open_world("fieldguide", tmp_path, counts=FEW, report=interrupt)
    kept = len(list(tmp_path.rglob("*.jpg")))
    assert kept > 0
    assert caught.value.__notes__ == [f"{kept} pictures were drawn so far and are kept."]


def test_complete_folder_is_left_alone(drawn: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    data = open_world("fieldguide", drawn, counts=FEW, report=lambda *at: seen.append(at))
    assert (seen, data.notes) == ([], ())


def test_half_drawn_pictures_of_a_killed_process_go(drawn: Path) -> None:
    folders = sorted(p.parent for p in drawn.rglob("0000.jpg"))
    left = [folders[3] / ".0001.4711.part", folders[9] / ".0000.4711.part"]
    for part in left:
        part.write_bytes(b"\xff\xd8")
    (folders[3] / "note.part").touch()  # not ours
    open_world("fieldguide", drawn, counts=FEW)
    assert [p.name for p in drawn.rglob("*.part")] == ["note.part"]
    (folders[3] / "note.part").unlink()


def test_a_picture_that_another_process_cleared_away_is_drawn_again(
    drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sorted(drawn.rglob("*.jpg"))[5]
    before, original = path.read_bytes(), Image.Image.save
    cleared: list[str] = []
    path.unlink()

    def save(image: Image.Image, part: IO[bytes], **options: Any) -> None:
        original(image, part, **options)
        if not cleared:
            cleared.append(part.name)
            Path(part.name).unlink()  # as a process does that begins meanwhile

    monkeypatch.setattr(Image.Image, "save", save)
    open_world("fieldguide", drawn, counts=FEW)
    assert cleared
    assert path.read_bytes() == before
    assert not list(drawn.rglob("*.part"))


def test_a_picture_does_not_depend_on_order() -> None:
    asked = [("test", 4, 1), ("scan", 9, 0), ("train", 0, 5)]
    forth = [drawing("fieldguide", *a, masks=False).pixels for a in asked]
    random.seed(0)
    back = [drawing("fieldguide", *a, masks=True).pixels for a in reversed(asked)]
    for a, b in zip(forth, reversed(back), strict=True):
        assert np.array_equal(a, b)


def test_splits_and_worlds_show_different_pictures() -> None:
    splits = [drawing("fieldguide", s, 0, 0).pixels for s in COUNTS]
    splits.append(drawing("fieldguide-2", "train", 0, 0).pixels)
    assert len({p.tobytes() for p in splits}) == len(splits)


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "fieldguide").write_text("in the way")
    with pytest.raises(SourceError, match=r"fieldguide.*Choose another folder"):
        open_world("fieldguide", tmp_path, counts=FEW)


@pytest.mark.parametrize(
    ("number", "says"), [(errno.ENOSPC, "is full"), (errno.EROFS, "cannot be written")]
)
def test_a_disk_that_refuses_is_explained(
    number: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(Image.Image, "save", refuse)
    with pytest.raises(SourceError, match=says) as caught:
        open_world("fieldguide", tmp_path, counts=FEW)
    assert str(tmp_path / "fieldguide") in str(caught.value)
    assert not list(tmp_path.rglob("*.part"))


def test_unknown_world(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="fieldguide-2"):
        open_world("fieldguide-3", tmp_path)
    assert not list(tmp_path.iterdir())


def test_shift_splits_are_the_shifts() -> None:
    assert set(COUNTS) == {"train", "val", "test", *SHIFTS}


def test_sheet_shows_every_species() -> None:
    page = sheet("fieldguide-2")
    assert page.mode == "RGB"
    assert page.width > 6 * SIZE
    assert page.height > 6 * SIZE


def test_every_species_is_posed_anew() -> None:
    places = {drawing("fieldguide", "test", k, 0, masks=False).boxes["body"] for k in range(24)}
    assert len(places) == 24

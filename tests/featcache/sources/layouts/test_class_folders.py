"""Folders of images: both layouts, the splits made here, and everything odd on a disk."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.errors import SourceError, UsageError
from featcache.paths import as_text
from featcache.places import FilePlace
from featcache.sources.base import Dataset
from featcache.sources.layouts.splits import make_splits
from featcache.sources.prefixes.folder import open_folder
from featcache.sources.trees.base import Entry
from featcache.sources.trees.names import as_id, path_text

CLOTHING = Path(__file__).parents[5] / "shared" / "data" / "images" / "clothing_small"


def touch(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(os.fsencode(file))
    return root


def per_class(root: Path, folder: str, count: int) -> Path:
    return touch(root, *(f"{folder}/{i:03d}.jpg" for i in range(count)))


def ids(dataset: Dataset, split: str) -> list[str]:
    return [s.id for s in dataset.samples if s.split == split]


def said(dataset: Dataset, what: str) -> bool:
    return any(what in note for note in dataset.notes)


def test_class_folders_are_split_by_class_and_seed(tmp_path: Path) -> None:
    per_class(tmp_path, "cat", 20)
    per_class(tmp_path, "big_dog", 10)
    data = open_folder(tmp_path)
    assert data.classes == ("big dog", "cat")
    counts = Counter((s.split, s.label) for s in data.samples)
    assert [counts[k, 1] for k in ("train", "val", "test")] == [10, 4, 6]
    assert [counts[k, 0] for k in ("train", "val", "test")] == [5, 2, 3]
    assert said(data, "20 % as val and 30 % as test")
    assert ids(open_folder(tmp_path), "test") == ids(data, "test")
    assert ids(open_folder(tmp_path, seed=1), "test") != ids(data, "test")


def test_samples_are_ordered_by_split_label_and_id(tmp_path: Path) -> None:
    per_class(tmp_path, "b", 7)
    per_class(tmp_path, "a", 7)
    data = open_folder(tmp_path)
    order = {"train": 0, "val": 1, "test": 2}
    keys = [(order[s.split], s.label, s.id) for s in data.samples]
    assert keys == sorted(keys)
    assert all(
        s.place == FilePlace(data.root / s.id) and s.place.container.is_file() for s in data.samples
    )


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Validation"])
def test_split_folders_as_they_come(tmp_path: Path, val: str) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", f"{val}/a/2.jpg", f"{val}/b/2.jpg")
    touch(tmp_path, "test/a/3.jpg", "test/b/3.jpg", "sketch set/a/4.png", "sketch set/b/4.png")
    data = open_folder(tmp_path)
    assert data.splits() == ("train", "val", "test", "sketch-set")
    assert ids(data, "val") == [f"{val}/a/2.jpg", f"{val}/b/2.jpg"]
    assert data.notes == ()


def test_missing_val_is_split_off_train_and_test_stays(tmp_path: Path) -> None:
    per_class(tmp_path, "train/a", 10)
    per_class(tmp_path, "train/b", 10)
    touch(tmp_path, "test/a/x.jpg", "test/b/x.jpg")
    data = open_folder(tmp_path)
    assert Counter(s.split for s in data.samples) == {"train": 16, "val": 4, "test": 2}
    assert said(data, "20 % as val")


def test_missing_test_is_split_off_train(tmp_path: Path) -> None:
    per_class(tmp_path, "train/a", 10)
    touch(tmp_path, "val/a/x.jpg")
    assert Counter(s.split for s in open_folder(tmp_path).samples) == {
        "train": 7,
        "val": 1,
        "test": 3,
    }


@given(n=st.integers(1, 60), seed=st.integers(0, 5))
def test_one_more_image_moves_at_most_one_across_each_cut(n: int, seed: int) -> None:
    def split(names: list[str]) -> dict[str, str]:
        files = {"train": {"a": [Entry(i, FilePlace(i), ("a",)) for i in names]}}
        make_splits(files, seed)
        return {i.id: s for s in files for i in files[s]["a"]}

    names = [f"a/{i}.jpg" for i in range(n)]
    before, after = split(names), split([*names, "a/new.jpg"])
    assert "train" in before.values()
    assert sum(before[i] != after[i] for i in names) <= 2


def test_splits_do_not_depend_on_how_a_name_is_composed(tmp_path: Path) -> None:
    def test_images(root: Path, form: str) -> set[int]:
        names = [f"{form}{i}.jpg" for i in range(10)]
        touch(root, *(f"a/{n}" for n in names))
        return {names.index(i.removeprefix("a/")) for i in ids(open_folder(root), "test")}

    assert test_images(tmp_path / "x", "\u00e9") == test_images(tmp_path / "y", "e\u0301")


def test_a_class_with_one_or_two_images(tmp_path: Path) -> None:
    touch(tmp_path, "one/1.jpg", "two/1.jpg", "two/2.jpg")
    data = open_folder(tmp_path)
    assert Counter((data.classes[s.label], s.split) for s in data.samples) == {
        ("one", "train"): 1,
        ("two", "train"): 1,
        ("two", "test"): 1,
    }
    assert said(data, "No test images for: one.")


def test_one_class_is_allowed_and_said(tmp_path: Path) -> None:
    per_class(tmp_path, "only", 5)
    assert said(open_folder(tmp_path), "one class only")


def test_what_is_no_image_is_ignored(tmp_path: Path) -> None:
    per_class(tmp_path, "a", 2)
    touch(tmp_path, "LICENSE", "a/Thumbs.db", "a/.DS_Store", "a/notes.txt", "a/.hidden.jpg")
    touch(tmp_path, "__MACOSX/a/1.jpg", ".git/a/1.jpg", "a/deep/er/X.JPEG", "a/y.TIFF")
    data = open_folder(tmp_path)
    assert data.classes == ("a",)
    assert sorted(s.id for s in data.samples) == [
        "a/000.jpg",
        "a/001.jpg",
        "a/deep/er/X.JPEG",
        "a/y.TIFF",
    ]
    assert not said(data, "suffix")


def test_files_that_look_like_images_of_another_kind_are_counted(tmp_path: Path) -> None:
    per_class(tmp_path, "a", 2)
    assert said(open_folder(touch(tmp_path, "a/1.heic", "a/2.heic")), "2 files were ignored")


@pytest.mark.parametrize("other", ["hot dog", "Hot_Dog", "hot__dog"])
def test_two_folders_that_read_the_same_are_refused(tmp_path: Path, other: str) -> None:
    touch(tmp_path, "hot_dog/1.jpg", f"{other}/1.jpg")
    with pytest.raises(SourceError, match="hot_dog") as error:
        open_folder(tmp_path)
    assert f"'{other}'" in str(error.value)


def test_the_same_class_under_two_names_over_splits_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "train/hot_dog/1.jpg", "test/hot dog/1.jpg")
    with pytest.raises(SourceError, match="both be the class 'hot dog'"):
        open_folder(tmp_path)


def test_val_and_validation_are_one_too_many(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "val/a/1.jpg", "validation/a/1.jpg")
    with pytest.raises(SourceError, match="both 'val' and 'validation'"):
        open_folder(tmp_path)


def test_a_class_that_train_lacks_is_kept_and_named(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "val/a/2.jpg", "test/a/3.jpg", "test/new/3.jpg")
    data = open_folder(tmp_path)
    assert data.classes == ("a", "new")
    assert said(data, "No training images for: new.")


def test_test_images_without_classes_are_left_out_and_said(tmp_path: Path) -> None:
    per_class(tmp_path, "train/a", 10)
    data = open_folder(touch(tmp_path, "test/1.jpg", "test/2.jpg"))
    assert said(data, "2 images directly in test/")
    assert len(ids(data, "test")) == 3


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no images"),
        (["readme.txt"], "no images"),
        (["1.jpg", "2.jpg"], "no class folders"),
        (["test/a/1.jpg", "val/a/1.jpg"], r"test/, val/ but no train folder"),
        (["test/1.jpg", "train/1.jpg"], "no train folder with class folders"),
        (["test/a/1.jpg", "cat/1.jpg"], "no train folder"),
        (["_/1.jpg", "a/1.jpg"], "no readable name"),
        ([os.fsdecode(b"\xff/1.jpg"), "a/1.jpg"], "no readable name"),
    ],
)
def test_what_fits_no_layout_names_the_layouts(
    tmp_path: Path, files: list[str], message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        open_folder(touch(tmp_path, *files))


def test_a_class_may_be_called_like_a_split(tmp_path: Path) -> None:
    touch(tmp_path, "train/1.jpg", "tram/1.jpg", "bus/1.jpg")
    assert open_folder(tmp_path).classes == ("bus", "train", "tram")


def test_missing_path_and_file_instead_of_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="There is no folder"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="is a file, not a folder"):
        open_folder(touch(tmp_path, "a.jpg") / "a.jpg")


def test_unicode_and_unprintable_names(tmp_path: Path) -> None:
    touch(tmp_path, "黒猫/写真 1.jpg", "crème_brûlée/é.png", "crème_brûlée/line\nbreak.jpg")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xc3\xa9t\xc3\xa9")).mkdir()
    touch(tmp_path, os.fsdecode(b"\xc3\xa9t\xc3\xa9/\xff.jpg"))
    data = open_folder(tmp_path)
    assert data.classes == ("crème brûlée", "été", "黒猫")
    assert all(s.id.isprintable() and s.place.container.is_file() for s in data.samples)
    assert "\n".join(s.id for s in data.samples).encode()
    assert "crème_brûlée/line\\nbreak.jpg" in {s.id for s in data.samples}


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("plain é.jpg", "plain é.jpg"),
        ("line\nbreak.jpg", r"line\nbreak.jpg"),
        (r"line\nbreak.jpg", r"line\\nbreak.jpg"),
        (r"back\slash.jpg", r"back\slash.jpg"),  # as earlier versions had it
        (r"two\\slashes.jpg", r"two\\\\slashes.jpg"),
        ("both\n\\.jpg", r"both\n\.jpg"),
        ("\\x1b\x1b.jpg", r"\\x1b\x1b.jpg"),
        (os.fsdecode(b"\xff.jpg"), r"\udcff.jpg"),
        (r"\U99999999.jpg", r"\U99999999.jpg"),
    ],
)
def test_an_id_is_of_one_name_and_leads_back_to_it(name: str, written: str) -> None:
    assert as_id(Path("/r/a", name), Path("/r")) == f"a/{written}"
    assert path_text(f"a/{written}") == as_text(f"a/{name}")


@given(st.text("\\nx1buU0d\n\t\x1b\u200b\udcff\xa0é", max_size=12))
def test_every_id_leads_back(name: str) -> None:
    image_id = as_id(Path("/r", f"{name}.jpg"), Path("/r"))
    assert image_id.isprintable()
    assert path_text(image_id) == as_text(f"{name}.jpg")


def test_two_folders_whose_names_escape_alike(tmp_path: Path) -> None:
    touch(tmp_path, "x\ny/0.jpg", r"x\ny/0.jpg", "z/0.jpg")
    data = open_folder(tmp_path)
    assert data.classes == ("x y", r"x\ny", "z")
    assert {path_text(s.id) for s in data.samples} == {"x\ny/0.jpg", r"x\ny/0.jpg", "z/0.jpg"}


def test_a_name_with_a_backslash_keeps_the_split_of_earlier_versions() -> None:
    def test_images(ids: list[str]) -> list[int]:
        files = {"train": {"a": [Entry(i, FilePlace(i), ("a",)) for i in ids]}}
        make_splits(files, 0)
        return sorted(ids.index(image.id) for image in files["test"]["a"])

    new = [as_id(Path("/r/a", rf"\new\{i}.jpg"), Path("/r")) for i in range(20)]
    assert new[3] == rf"a/\\new\\{3}.jpg"
    assert test_images(new) == test_images([rf"a/\new\{i}.jpg" for i in range(20)])


def test_links_out_of_the_root_and_in_circles_are_not_followed(tmp_path: Path) -> None:
    outside = per_class(tmp_path / "outside", "a", 3)
    root = per_class(tmp_path / "root", "a", 3)
    (root / "b").symlink_to(outside / "a")
    (root / "a" / "loop").symlink_to(root / "a")
    (root / "a" / "gone.jpg").symlink_to(root / "nothing.jpg")
    (root / "a" / "inside.jpg").symlink_to(root / "a" / "000.jpg")
    data = open_folder(root)
    assert sorted(s.id for s in data.samples) == [
        "a/000.jpg",
        "a/001.jpg",
        "a/002.jpg",
        "a/inside.jpg",
    ]
    assert said(data, "3 links lead out of root/")


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    real = per_class(tmp_path / "real", "a", 3)
    (tmp_path / "link").symlink_to(real)
    data = open_folder(tmp_path / "link")
    assert (data.root, data.name) == (real, "real")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    per_class(tmp_path, "a", 2)
    (tmp_path / "a").chmod(0)
    try:
        with pytest.raises(SourceError, match="could not be read"):
            open_folder(tmp_path)
    finally:
        (tmp_path / "a").chmod(0o755)


def test_real_folders_with_a_validation_split() -> None:
    if not CLOTHING.is_dir():
        pytest.skip(f"{CLOTHING} is not there")
    data = open_folder(CLOTHING)
    assert len(data.classes) == 10
    assert Counter(s.split for s in data.samples) == {"train": 600, "val": 320, "test": 347}


def test_folders_that_link_to_each_other_are_walked_once_each(tmp_path: Path) -> None:
    photos = touch(tmp_path / "photos", "a/0.jpg", "b/1.jpg", "c/2.jpg")
    for link, target in (("a/l", "../b"), ("b/l", "../c"), ("c/l", "../b")):
        (photos / link).symlink_to(target)
    dataset = open_folder(photos)
    assert len(dataset.samples) == 7
    assert said(dataset, "in circles")


def test_a_pipe_with_the_name_of_an_image_is_left_out(tmp_path: Path) -> None:
    photos = touch(tmp_path / "photos", "a/0.jpg", "b/1.jpg")
    os.mkfifo(photos / "a" / "pipe.jpg")
    dataset = open_folder(photos)
    assert {s.id for s in dataset.samples} == {"a/0.jpg", "b/1.jpg"}
    assert said(dataset, "pipe.jpg")


def test_a_home_that_nobody_has_is_a_sentence() -> None:
    with pytest.raises(UsageError, match="~nobody-here/photos"):
        open_folder(Path("~nobody-here/photos"))


def test_a_folder_of_data_sets_is_no_data_set(tmp_path: Path) -> None:
    per_class(tmp_path, "pets/train/cat", 2)
    per_class(tmp_path, "cars/mini", 2)
    with pytest.raises(SourceError, match=r"pets with a train folder.*folder:.*pets"):
        open_folder(tmp_path)


@pytest.mark.parametrize("split", ["", "train/"])
def test_class_folders_without_images_are_named(tmp_path: Path, split: str) -> None:
    for name in ("cat", "dog"):
        touch(tmp_path, f"{split}{name}/0.jpg")
        (tmp_path / split / name / "raw").mkdir()  # below a class it is none
    for name in ("ant", "bee"):
        (tmp_path / split / name).mkdir()
    touch(tmp_path, f"{split}bee/notes.txt")
    data = open_folder(tmp_path)
    assert data.classes == ("cat", "dog")
    assert "Class folders without any image, which are no classes: ant, bee." in data.notes


def test_a_class_with_images_in_another_split_is_no_empty_one(tmp_path: Path) -> None:
    for name in ("train/cat", "train/dog", "test/cat", "test/dog"):
        touch(tmp_path, f"{name}/0.jpg")
    (tmp_path / "test" / "dog" / "0.jpg").unlink()
    notes = open_folder(tmp_path).notes
    assert not any("without any image" in note for note in notes)
    assert any("No test images for: dog" in note for note in notes)


LISTED = """
import sys
from pathlib import Path
from featcache.paths import as_text, from_text
from featcache.sources.prefixes.folder import open_folder
from featcache.sources.listing import build_listing
from featcache.store.format.identity import slug
root = Path(sys.argv[1])
listing = build_listing(open_folder(root), known=root / "known")
(root / from_text(slug(listing.dataset))).mkdir(exist_ok=True)
print(ascii([listing.dataset, listing.root, listing.classes, listing.ids]))
"""


def test_names_are_the_same_in_every_locale(tmp_path: Path) -> None:
    """File names are bytes: what they read must not depend on how Python decodes them."""
    root = tmp_path / "Größe"
    for name in ("groß", "klein"):
        touch(root, f"{name}/Bär.jpg")
    said = set()
    for utf8 in ("0", "1"):
        environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": utf8, "PYTHONCOERCECLOCALE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", LISTED, str(root)],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        said.add(done.stdout)
    (only,) = said
    ids = ("groß/Bär.jpg", "klein/Bär.jpg")
    assert only.strip() == ascii(["Größe", str(root), ("groß", "klein"), ids])

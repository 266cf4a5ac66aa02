"""What goes wrong with named data sets: other data sets, missing lists, damaged tables."""

import hashlib
import threading
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from featcache.errors import DownloadNeededError, SourceError
from featcache.limits import IMAGE_FILE
from featcache.sources.fetch.archive import Archive
from featcache.sources.named import NamedDataset, find
from featcache.sources.named_open import open_named
from featcache.sources.registry import open_dataset
from tests.featcache.sources.miniatures import MINIATURES, Miniature
from tests.featcache.sources.miniatures.base import encoded
from tests.featcache.sources.miniatures.further import CHESTX_HEADER, record


def mini(dataset: str, splits: str | None = None) -> Miniature:
    return next(m for m in MINIATURES if (m.dataset, m.splits) == (dataset, splits))


def written(root: Path, dataset: str, splits: str | None = None, **changes: Any) -> Path:
    replace(mini(dataset, splits), **changes).write(root / "images")
    return root


def with_list(dataset: str, name: str, text: str, splits: str | None = None) -> Mapping[str, Any]:
    lists = dict(mini(dataset, splits).lists)
    (path,) = [p for p in lists if p.endswith(name)]
    return {**lists, path: text}


@pytest.mark.parametrize(
    ("dataset", "path", "message"),
    [
        ("oxford_pets", "oxford_pets/images/n02086646-Blenheim_spaniel/1.jpg", "Stanford Dogs"),
        ("stanford_cars", "stanford_cars/car_ims/000001.jpg", "second edition"),
        (
            "eurosat",
            "eurosat/ds/images/remote_sensing/otherDatasets/sentinel_2/tif/River/River_1.tif",
            "13 bands",
        ),
        ("cropdiseases", "cropdiseases/train/Pepper__bell___healthy/1.JPG", "15 classes"),
        ("cifar10", "cifar10/cifar-10-batches-py/data_batch_1", "pickles"),
    ],
)
def test_look_alikes_are_told_by_name(
    tmp_path: Path, dataset: str, path: str, message: str
) -> None:
    file = tmp_path / "images" / path
    file.parent.mkdir(parents=True)
    file.write_bytes(encoded("x.jpg"))
    with pytest.raises(SourceError, match=f"it is not {dataset}: .*{message}"):
        open_dataset(dataset, root=tmp_path, download=False)


def test_a_look_alike_with_the_same_folders_is_told_too(tmp_path: Path) -> None:
    root = written(tmp_path, "cropdiseases")
    (root / "images/cropdiseases/dataset/train/Background_without_leaves").mkdir()
    with pytest.raises(SourceError, match="Mendeley"):
        open_dataset("cropdiseases", root=root)


def test_a_look_alike_is_told_by_its_number_of_images(tmp_path: Path) -> None:
    root = written(tmp_path, "cropdiseases")
    spec = find("cropdiseases")
    augmented, *_ = spec.looks_like
    assert augmented.images == 70295
    small = replace(spec, looks_like=(replace(augmented, images=5),))
    with pytest.raises(SourceError, match=r"has 5 images, so it is not cropdiseases: .*augmented"):
        open_named(small, root / "images")


def test_images_without_their_lists_say_which_and_what_else(tmp_path: Path) -> None:
    root = written(tmp_path, "food101", "official")
    with pytest.raises(SourceError) as caught:
        open_dataset("food101", root=root)
    message = str(caught.value)
    for part in ("food-101/images", "splits 'coop' need split_zhou_Food101.json",
                 "splits='official'"):  # fmt: skip
        assert part in message


def test_a_split_file_of_another_data_set_is_refused(tmp_path: Path) -> None:
    sun = mini("sun397").lists["sun397/split_zhou_SUN397.json"]
    lists = {"food-101/split_zhou_Food101.json": str(sun).replace("a/abbey", "apple_pie")}
    root = written(tmp_path, "food101", lists=lists)
    with pytest.raises(SourceError, match="split file of another data set: class 0 is 'abbey'"):
        open_dataset("food101", root=root)


def test_a_packaged_split_is_used_and_another_file_of_its_name_is_told(tmp_path: Path) -> None:
    root = written(tmp_path, "eurosat")
    file = root / "images/eurosat/split_zhou_EuroSAT.json"
    file.write_text('{"train": [["River/River_1.jpg", 0, "River"]], "val": [], "test": []}')
    data = open_dataset("eurosat", root=root)
    assert len(data.samples) == 4
    assert any("is not CoOp's, whose splits were used" in note for note in data.notes)


def test_missing_images_are_named(tmp_path: Path) -> None:
    data = open_dataset("oxford_pets", root=written(tmp_path, "oxford_pets"))
    (note,) = [n for n in data.notes if "not there" in n]
    assert note.startswith("7344 listed images not there: Abyssinian_149.jpg, ")
    assert note.endswith(" and 7341 more.")
    assert any("No image of american pit bull terrier, " in n for n in data.notes)


def test_nothing_that_fits_is_an_error(tmp_path: Path) -> None:
    root = written(tmp_path, "cub", samples=(), beside=("CUB_200_2011/images/x/1.jpg",))
    with pytest.raises(SourceError, match=r"None of the images that CUB.*e\.g\. 001\.Black"):
        open_dataset("cub", root=root)


@pytest.mark.parametrize(
    ("dataset", "name", "text", "message"),
    [
        ("cub", "images.txt", "1\n", r"images\.txt has no column 1"),
        ("cub", "image_class_labels.txt", "1 201\n2 1\n11788 1\n", "201 is no class"),
        ("cub", "image_class_labels.txt", "1 1\n", "expected the number of a class, got ''"),
        ("cub", "train_test_split.txt", "1 2\n", "expected a split, got '2'"),
        ("isic2018", "GroundTruth.csv", "image,MEL\nISIC_1,1.0\n", "no column 'NV'"),
        ("gtsrb", "GT-final_test.csv", "Filename;ClassId\n00000.ppm;43\n", "43 is no class"),
        ("gtsrb", "GT-final_test.csv", "Filename;ClassId\n00000.ppm\n", "expected 2 columns"),
        ("gtsrb", "GT-final_test.csv", "", "is empty"),
        ("gtsrb", "GT-final_test.csv", "Filename;ClassId\n00000.ppm;²\n", "the number of a class"),
        ("places365", "places365_val.txt", "Places365_val_00000001.jpg 365\n", "365 is no class"),
        ("places365", "places365_val.txt", "Places365_val_00000001.jpg -1\n", "number of a class"),
        ("fgvc_aircraft", "variant_train.txt", "1025794 F-22\n", "'F-22' is none of the classes"),
        ("fgvc_aircraft", "variant_train.txt", "1025794\n", "expected '{image} {class}'"),
        ("resisc45", "resisc45-val.txt", "harbour_1.jpg\n", "'harbour' is none of the classes"),
        ("imagenet", "LOC_val_solution.csv", "ImageId,PredictionString\nx,n00000000 1\n", "none"),
    ],
)
def test_damaged_lists_name_file_and_line(
    tmp_path: Path, dataset: str, name: str, text: str, message: str
) -> None:
    of = [m for m in MINIATURES if m.dataset == dataset and any(p.endswith(name) for p in m.lists)]
    lists = {p: text if p.endswith(name) else t for p, t in of[0].lists.items()}
    replace(of[0], lists=lists).write(tmp_path / "images")
    with pytest.raises(SourceError, match=message) as caught:
        open_dataset(dataset, root=tmp_path, splits=of[0].splits)
    assert name in str(caught.value)


def test_a_list_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(encoded("x.jpg"))
    text = "../../../secret.jpg\n/etc/passwd.jpg\nzigzagged/zigzagged_0002.jpg\n"
    lists = with_list("dtd", "train1.txt", text.replace("../../../", "banded/../../../../../"),
                      "official")  # fmt: skip
    root = written(tmp_path, "dtd", "official", lists=lists)
    with pytest.raises(SourceError, match="none of the classes"):
        open_dataset("dtd", root=root, splits="official")
    lists = with_list("cub", "images.txt", "1 ../../../secret.jpg\n2 x\n11788 y\n")
    root = written(tmp_path, "cub", lists=lists, samples=(),
                   beside=("CUB_200_2011/images/y/1.jpg",))  # fmt: skip
    with pytest.raises(SourceError, match="None of the images"):
        open_dataset("cub", root=root)


def test_numbered_folders_are_sorted_as_numbers(tmp_path: Path) -> None:
    data = open_dataset("imagenet_v2", root=written(tmp_path, "imagenet_v2"))
    assert [s.label for s in data.samples] == [0, 1, 2, 10, 999]
    assert data.classes[10] == find("imagenet").table().names[10]


def test_chestx_with_the_header_of_the_archive_and_rows_without_trailing_comma(
    tmp_path: Path,
) -> None:
    assert CHESTX_HEADER.count(",") == 11
    short = str(mini("chestx").lists["chestx/Data_Entry_2017.csv"]).replace(",\n", "\n")
    root = written(tmp_path, "chestx", lists={"chestx/Data_Entry_2017.csv": short})
    assert len(open_dataset("chestx", root=root).samples) == 4


def test_two_images_of_one_name_are_refused_where_names_count(tmp_path: Path) -> None:
    more = (*mini("chestx").beside, "chestx/images_009/images/00000001_000.png")
    root = written(tmp_path, "chestx", beside=more)
    with pytest.raises(SourceError, match="have one name"):
        open_dataset("chestx", root=root)


def test_isic_without_lesions_says_so(tmp_path: Path) -> None:
    lists = {p: t for p, t in mini("isic2018").lists.items() if "HAM10000" not in p}
    data = open_dataset("isic2018", root=written(tmp_path, "isic2018", lists=lists))
    assert {s.group for s in data.samples} == {""}
    assert any("HAM10000_metadata.csv is not there" in note for note in data.notes)


def test_cifar_is_written_once_pixel_for_pixel(tmp_path: Path) -> None:
    root = written(tmp_path, "cifar10")
    data = open_dataset("cifar10", root=root)
    truck = Image.open(data.root / "train/truck/00000.png")
    assert (truck.size, truck.getpixel((5, 31))) == ((32, 32), (1, 2, 3))
    before = {p: p.stat().st_mtime_ns for p in data.root.rglob("*.png")}
    again = open_dataset("cifar10", root=root)
    assert {p: p.stat().st_mtime_ns for p in again.root.rglob("*.png")} == before
    assert [p.name for p in (root / "images").iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (record((9,), 1, 2, 3)[:-1], "no whole number of records of 3073"),
        (b"", "0 bytes"),
        (record((10,), 1, 2, 3), "record 0: 10 is no class"),
    ],
)
def test_damaged_records_are_refused_and_leave_nothing(
    tmp_path: Path, content: bytes, message: str
) -> None:
    lists = with_list("cifar10", "test_batch.bin", "")
    path = "cifar-10-batches-bin/test_batch.bin"
    root = written(tmp_path, "cifar10", lists={**lists, path: content})
    with pytest.raises(SourceError, match=message):
        open_dataset("cifar10", root=root)
    assert [p.name for p in (root / "images").iterdir()] == ["cifar-10-batches-bin"]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Archive, Path]]:
    """An EuroSAT.zip of four images, on a server of this machine."""
    folder = tmp_path / "server"
    folder.mkdir()
    with zipfile.ZipFile(folder / "EuroSAT.zip", "w") as archive:
        for image_id, _, _ in mini("eurosat").samples:
            archive.writestr(f"2750/{image_id}", encoded(image_id))
    data = (folder / "EuroSAT.zip").read_bytes()
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/EuroSAT.zip"
        yield Archive("EuroSAT.zip", (url,), len(data), hashlib.sha256(data).hexdigest()), folder
        server.shutdown()


@pytest.mark.parametrize("name", ["eurosat", "fgvc_aircraft", "gtsrb"])
def test_a_zip_of_the_data_set_is_read_in_place(tmp_path: Path, name: str) -> None:
    root = written(tmp_path, name)
    unpacked = open_dataset(name, root=root)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in sorted((root / "images").rglob("*.*")):
            archive.write(file, file.relative_to(root / "images"))
    zipped = open_dataset(name, root=root, dataset_root=tmp_path / "all.zip")
    assert [(s.id, s.label, s.split, s.group) for s in zipped.samples] == [
        (s.id, s.label, s.split, s.group) for s in unpacked.samples
    ]
    for a, b in zip(zipped.samples, unpacked.samples, strict=True):
        assert a.place.container == tmp_path / "all.zip"
        assert a.place.read(IMAGE_FILE) == b.place.read(IMAGE_FILE)


def test_missing_files_are_fetched_and_found(served: tuple[Archive, Path], tmp_path: Path) -> None:
    spec = replace(find("eurosat"), archive=(served[0],))
    data = open_named(spec, tmp_path / "images")
    assert [s.id for s in data.samples] == [i for i, _, _ in mini("eurosat").samples]
    assert data.root == tmp_path / "images/eurosat/2750"


def test_a_fetch_that_fails_says_what_else_could_be_done(
    served: tuple[Archive, Path], tmp_path: Path
) -> None:
    wrong = replace(served[0], sha256="0" * 64)
    spec = replace(find("eurosat"), archive=(wrong,))
    with pytest.raises(DownloadNeededError) as caught:
        open_named(spec, tmp_path / "images")
    message = str(caught.value)
    for part in ("EuroSAT.zip", "dataset_root", "folder:PATH", "94 MB",
                 str(tmp_path / "images/eurosat/2750")):  # fmt: skip
        assert part in message


def test_nothing_is_fetched_where_it_may_not(served: tuple[Archive, Path], tmp_path: Path) -> None:
    spec = replace(find("eurosat"), archive=(served[0],))
    with pytest.raises(DownloadNeededError, match="downloading is off here"):
        open_named(spec, tmp_path / "images", download=False)
    with pytest.raises(DownloadNeededError, match="without dataset_root it would be fetched"):
        open_named(spec, tmp_path / "images", tmp_path / "mine")
    assert not (tmp_path / "images").exists()
    with pytest.raises(DownloadNeededError, match="cannot be fetched without you"):
        open_named(find("objectnet"), tmp_path / "images")


@pytest.fixture
def split_apart(tmp_path: Path, served: tuple[Archive, Path]) -> NamedDataset:
    """EuroSAT on a server, with the lists of its other splits as files of their own."""
    archive, folder = served
    (url,) = archive.urls
    lists = []
    for path, text in mini("eurosat", "torchgeo").lists.items():
        name, data = path.rpartition("/")[2], str(text).encode()
        (folder / name).write_bytes(data)
        address = url.replace("EuroSAT.zip", name)
        lists.append(Archive(name, (address,), len(data), hashlib.sha256(data).hexdigest()))
    return replace(find("eurosat"), archive=(archive, *lists))


def test_lists_of_other_splits_are_not_fetched(split_apart: NamedDataset, tmp_path: Path) -> None:
    gone = [replace(a, urls=("http://127.0.0.1:1/x",)) for a in split_apart.archive[1:]]
    spec = replace(split_apart, archive=(split_apart.archive[0], *gone))
    assert len(open_named(spec, tmp_path / "images").samples) == 4
    with pytest.raises(DownloadNeededError, match=r"eurosat-train\.txt .*splits='coop'"):
        open_named(spec, tmp_path / "images", splits="torchgeo")


def test_lists_are_fetched_to_images_that_were_fetched_before(
    split_apart: NamedDataset, tmp_path: Path, served: tuple[Archive, Path]
) -> None:
    with zipfile.ZipFile(served[1] / "EuroSAT.zip") as archive:
        images = {name: archive.read(name) for name in archive.namelist()}
    open_named(split_apart, tmp_path / "images")
    (served[1] / "EuroSAT.zip").unlink()
    (tmp_path / "images/eurosat/2750/SeaLake/SeaLake_1.jpg").write_bytes(encoded("x.jpg"))
    data = open_named(split_apart, tmp_path / "images", splits="torchgeo")
    assert [s.id for s in data.samples] == ["SeaLake/SeaLake_1.jpg"]
    assert data.root == tmp_path / "images/eurosat/2750"
    for name, content in images.items():
        assert (tmp_path / "images/eurosat" / name).read_bytes() == content


def test_nothing_is_fetched_into_a_folder_of_the_users(
    split_apart: NamedDataset, tmp_path: Path
) -> None:
    replace(mini("eurosat"), root="2750").write(tmp_path / "images")
    before = sorted(tmp_path.joinpath("images").rglob("*"))
    with pytest.raises(SourceError, match=r"need eurosat-train\.txt.* beside them"):
        open_named(split_apart, tmp_path / "images", splits="torchgeo")
    assert sorted(tmp_path.joinpath("images").rglob("*")) == before


def test_a_split_file_of_other_bytes_than_coops_is_told(tmp_path: Path) -> None:
    data = open_dataset("food101", root=written(tmp_path, "food101"))
    assert any("split_zhou_Food101.json beside the images is not CoOp's" in n for n in data.notes)

"""CoOp's ten data sets beside ImageNet."""

import json
from dataclasses import replace
from io import BytesIO

import numpy as np
from scipy.io import savemat

from featcache.sources.lists import class_table
from tests.featcache.sources.miniatures.base import Miniature


def official(miniature: Miniature, note: str) -> Miniature:
    """Return the same images in official splits, in which CoOp's val is a part of train."""
    samples = [(path, label, "train" if s == "val" else s) for path, label, s in miniature.samples]
    return replace(miniature, splits="official", samples=tuple(samples), notes=(note,))


def moved(miniature: Miniature, layout: str, root: str, **changes: object) -> Miniature:
    """Return the same images in other folders."""
    return replace(miniature, layout=layout, root=root, **changes)  # type: ignore[arg-type]


def split_file(name: str, known: dict[str, list[tuple[str, int]]]) -> str:
    """Write CoOp's split file: the images given, and one of every other class, which is missing."""
    names = class_table(name).names
    have = {label for entries in known.values() for _, label in entries}
    content = {s: [[p, label, names[label]] for p, label in e] for s, e in known.items()}
    others = [[f"missing/{i}.jpg", i, n] for i, n in enumerate(names) if i not in have]
    content["train"] = [*content["train"], *others]
    return json.dumps(content, indent=4)


def mat_file(**arrays: list[int]) -> bytes:
    """Write rows of numbers as MATLAB does."""
    out = BytesIO()
    rows = {name: np.array([numbers], np.uint16) for name, numbers in arrays.items()}
    savemat(out, rows, do_compression=True)
    return out.getvalue()


EUROSAT = Miniature(
    dataset="eurosat",
    layout="coop",
    root="eurosat/2750",
    samples=(
        ("AnnualCrop/AnnualCrop_1381.jpg", 0, "train"),
        ("SeaLake/SeaLake_1551.jpg", 9, "train"),
        ("SeaLake/SeaLake_465.jpg", 9, "val"),
        ("AnnualCrop/AnnualCrop_1048.jpg", 0, "test"),
    ),
    notes=("4 images of eurosat are there; a whole copy has 27000.", "26996 listed images"),
)
CALTECH = Miniature(
    dataset="caltech101",
    layout="coop",
    root="caltech-101/101_ObjectCategories",
    samples=(
        ("Faces/image_0274.jpg", 0, "train"),
        ("yin_yang/image_0027.jpg", 99, "train"),
        ("Faces/image_0132.jpg", 0, "val"),
        ("Leopards/image_0112.jpg", 1, "test"),
    ),
    beside=(
        "caltech-101/101_ObjectCategories/BACKGROUND_Google/image_0001.jpg",
        "caltech-101/101_ObjectCategories/Faces_easy/image_0274.jpg",
    ),
    notes=("2 images beside them not in the list",),
)
PETS = Miniature(
    dataset="oxford_pets",
    layout="coop",
    root="oxford_pets/images",
    samples=(
        ("Abyssinian_122.jpg", 0, "train"),
        ("american_bulldog_128.jpg", 1, "train"),
        ("Egyptian_Mau_14.jpg", 11, "val"),
        ("Abyssinian_5.jpg", 0, "test"),
        ("yorkshire_terrier_191.jpg", 36, "test"),
    ),
    beside=("oxford_pets/images/Abyssinian_34.jpg",),
    lists={
        "oxford_pets/images/Abyssinian_100.mat": b"MATLAB 5.0",
        "oxford_pets/annotations/trainval.txt": "Abyssinian_122 1 1 1\n",
        "oxford_pets/annotations/test.txt": "Abyssinian_5 1 1 1\n",
    },
    formats={
        "Egyptian_Mau_14.jpg": "PNG",
        "Abyssinian_5.jpg": "PNG",
        "Abyssinian_34.jpg": "GIF",
    },
    notes=("1 image beside them not in the list", "1 file was ignored for its suffix (.mat)"),
)
CARS = Miniature(
    dataset="stanford_cars",
    layout="coop and torchvision",
    root="stanford_cars",
    samples=(
        ("cars_train/04669.jpg", 0, "train"),
        ("cars_train/04361.jpg", 195, "train"),
        ("cars_train/03875.jpg", 1, "val"),
        ("cars_test/00076.jpg", 0, "test"),
    ),
    beside=("stanford_cars/cars_test/99999.jpg",),
    lists={"stanford_cars/devkit/cars_meta.mat": b"MATLAB 5.0"},
)
FLOWERS = Miniature(
    dataset="oxford_flowers",
    layout="coop",
    root="oxford_flowers/jpg",
    samples=(
        ("image_06749.jpg", 0, "train"),
        ("image_08010.jpg", 101, "train"),
        ("image_05096.jpg", 1, "val"),
        ("image_06743.jpg", 0, "test"),
    ),
)
FOOD_IMAGES = {
    "train": [("waffles/1005649.jpg", 100), ("apple_pie/3065929.jpg", 0)],
    "val": [("apple_pie/420768.jpg", 0)],
    "test": [("baby_back_ribs/891295.jpg", 1)],
}
FOOD = Miniature(
    dataset="food101",
    layout="coop and torchvision",
    root="food-101/images",
    samples=tuple((p, label, s) for s, e in FOOD_IMAGES.items() for p, label in e),
    lists={"food-101/split_zhou_Food101.json": split_file("food101", FOOD_IMAGES)},
    notes=("Splits are those of split_zhou_Food101.json.", "98 listed images not there"),
)
AIRCRAFT = Miniature(
    dataset="fgvc_aircraft",
    layout="coop",
    root="fgvc_aircraft/images",
    samples=(
        ("1025794.jpg", 0, "train"),
        ("0450014.jpg", 72, "train"),
        ("0869722.jpg", 72, "val"),
        ("0698580.jpg", 0, "test"),
    ),
    lists={
        "fgvc_aircraft/images_variant_train.txt": "1025794 707-320\n0450014 F-16A/B\n",
        "fgvc_aircraft/images_variant_val.txt": "0869722 F-16A/B\n",
        "fgvc_aircraft/images_variant_test.txt": "0698580 707-320\n",
        "fgvc_aircraft/variants.txt": "707-320\n",
    },
)
SUN_IMAGES = {
    "train": [("a/apartment_building/outdoor/sun_b.jpg", 8), ("a/abbey/sun_a.jpg", 0)],
    "val": [("a/abbey/sun_c.jpg", 0)],
    "test": [("a/apartment_building/outdoor/sun_d.jpg", 8)],
}
SUN = Miniature(
    dataset="sun397",
    layout="coop",
    root="sun397/SUN397",
    samples=tuple((p, label, s) for s, e in SUN_IMAGES.items() for p, label in e),
    lists={
        "sun397/split_zhou_SUN397.json": split_file("sun397", SUN_IMAGES),
        "sun397/ClassName.txt": "/a/abbey\n",
    },
)
DTD = Miniature(
    dataset="dtd",
    layout="coop",
    root="dtd/images",
    samples=(
        ("banded/banded_0133.jpg", 0, "train"),
        ("zigzagged/zigzagged_0098.jpg", 46, "train"),
        ("banded/banded_0024.jpg", 0, "val"),
        ("blotchy/blotchy_0132.jpg", 1, "test"),
    ),
    beside=("dtd/images/banded/banded_9999.jpg",),
)
UCF = Miniature(
    dataset="ucf101",
    layout="coop",
    root="ucf101/UCF-101-midframes",
    samples=(
        ("Apply_Eye_Makeup/v_ApplyEyeMakeup_g12_c03.jpg", 0, "train"),
        ("Yo_Yo/v_YoYo_g14_c03.jpg", 100, "train"),
        ("Apply_Lipstick/v_ApplyLipstick_g17_c05.jpg", 1, "val"),
        ("Apply_Eye_Makeup/v_ApplyEyeMakeup_g01_c01.jpg", 0, "test"),
    ),
)

COOP = (
    EUROSAT,
    moved(EUROSAT, "the archive's top folder", "2750"),
    Miniature(
        dataset="eurosat",
        layout="torchgeo",
        root="eurosat/2750",
        splits="torchgeo",
        samples=(("SeaLake/SeaLake_1.jpg", 9, "train"), ("Forest/Forest_2.jpg", 1, "test")),
        lists={
            "eurosat/eurosat-train.txt": "SeaLake_1.jpg\n",
            "eurosat/eurosat-val.txt": "\n",
            "eurosat/eurosat-test.txt": "Forest_2.jpg\n",
        },
        notes=("Splits are TorchGeo's, not CoOp's.",),
    ),
    CALTECH,
    moved(CALTECH, "torchvision", "caltech101/101_ObjectCategories", beside=(), notes=()),
    moved(
        CALTECH,
        "the tar of the zip in a folder of its own",
        "caltech-101/101_ObjectCategories/101_ObjectCategories",
        beside=(),
        notes=(),
    ),
    PETS,
    moved(PETS, "torchvision", "oxford-iiit-pet/images", beside=(), lists={}, notes=()),
    Miniature(
        dataset="oxford_pets",
        layout="torchvision",
        root="oxford-iiit-pet/images",
        splits="official",
        samples=(
            ("Abyssinian_100.jpg", 0, "train"),
            ("yorkshire_terrier_1.jpg", 36, "train"),
            ("american_bulldog_2.jpg", 1, "test"),
        ),
        lists={
            "oxford-iiit-pet/annotations/trainval.txt": "#Image CLASS-ID SPECIES BREED ID\n"
            "Abyssinian_100 1 1 1\nyorkshire_terrier_1 37 2 25\n",
            "oxford-iiit-pet/annotations/test.txt": "american_bulldog_2 2 2 1\n",
        },
    ),
    CARS,
    official(CARS, "Splits are the official ones, in the order"),
    moved(CARS, "the top folders alone", "", beside=(), lists={}),
    FLOWERS,
    moved(FLOWERS, "torchvision", "flowers-102/jpg"),
    Miniature(
        dataset="oxford_flowers",
        layout="torchvision",
        root="flowers-102/jpg",
        splits="official",
        samples=(
            ("image_00003.jpg", 101, "train"),
            ("image_00001.jpg", 76, "val"),
            ("image_00002.jpg", 0, "test"),
        ),
        lists={
            "flowers-102/setid.mat": mat_file(trnid=[3], valid=[1, 4], tstid=[2]),
            "flowers-102/imagelabels.mat": mat_file(labels=[77, 1, 102, 1]),
        },
        notes=("Splits are the official ones.", "1 listed image not there: image_00004.jpg"),
    ),
    FOOD,
    Miniature(
        dataset="food101",
        layout="torchvision",
        root="food-101/images",
        splits="official",
        samples=(("baby_back_ribs/2.jpg", 1, "train"), ("apple_pie/1005649.jpg", 0, "test")),
        lists={
            "food-101/meta/train.txt": "baby_back_ribs/2\n",
            "food-101/meta/test.txt": "apple_pie/1005649\n",
        },
        notes=("do not compare", "Every class has 750 train images"),
    ),
    AIRCRAFT,
    moved(
        AIRCRAFT,
        "torchvision",
        "fgvc-aircraft-2013b/data/images",
        lists={
            path.replace("fgvc_aircraft/", "fgvc-aircraft-2013b/data/"): text
            for path, text in AIRCRAFT.lists.items()
        },
    ),
    SUN,
    Miniature(
        dataset="sun397",
        layout="torchvision",
        root="SUN397",
        splits="official",
        samples=(
            ("a/apartment_building/outdoor/sun_b.jpg", 8, "train"),
            ("a/abbey/sun_a.jpg", 0, "test"),
        ),
        lists={
            "Training_01.txt": "/a/apartment_building/outdoor/sun_b.jpg\n",
            "Testing_01.txt": "/a/abbey/sun_a.jpg\n",
        },
    ),
    DTD,
    moved(DTD, "torchvision", "dtd/dtd/images", beside=()),
    Miniature(
        dataset="dtd",
        layout="torchvision",
        root="dtd/dtd/images",
        splits="official",
        samples=(
            ("zigzagged/zigzagged_0002.jpg", 46, "train"),
            ("banded/banded_0003.jpg", 0, "val"),
            ("banded/banded_0004.jpg", 0, "test"),
        ),
        lists={
            "dtd/dtd/labels/train1.txt": "zigzagged/zigzagged_0002.jpg\n",
            "dtd/dtd/labels/val1.txt": "banded/banded_0003.jpg\n",
            "dtd/dtd/labels/test1.txt": "banded/banded_0004.jpg\n",
        },
    ),
    UCF,
    official(UCF, "Splits are the official ones of list 1"),
)

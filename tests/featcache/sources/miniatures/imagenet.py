"""ImageNet and the test sets that are shifts of it."""

from tests.featcache.sources.miniatures.base import Miniature

TENCH, GOLDFISH, BRIDE = "n01440764", "n01443537", "n10148035"

IMAGENET = (
    Miniature(
        dataset="imagenet",
        layout="coop",
        root="imagenet/images",
        samples=(
            (f"train/{TENCH}/{TENCH}_18.JPEG", 0, "train"),
            (f"train/{BRIDE}/{BRIDE}_3.JPEG", 982, "train"),
            (f"val/{TENCH}/ILSVRC2012_val_00000293.JPEG", 0, "test"),
            (f"val/{GOLDFISH}/ILSVRC2012_val_00000236.JPEG", 1, "test"),
        ),
        lists={"imagenet/classnames.txt": f"{TENCH} tench\n"},
        notes=("val is test here, as in CoOp", "No image of great white shark"),
    ),
    Miniature(
        dataset="imagenet",
        layout="torchvision, val alone",
        root="imagenet",
        samples=((f"val/{GOLDFISH}/ILSVRC2012_val_00000236.JPEG", 1, "test"),),
        lists={"imagenet/meta.bin": b"\x80\x02"},
    ),
    Miniature(
        dataset="imagenet",
        layout="Kaggle",
        root="imagenet/ILSVRC/Data/CLS-LOC",
        samples=(
            (f"train/{GOLDFISH}/{GOLDFISH}_18.JPEG", 1, "train"),
            ("val/ILSVRC2012_val_00000236.JPEG", 1, "test"),
            ("val/ILSVRC2012_val_00000293.JPEG", 0, "test"),
        ),
        beside=("imagenet/ILSVRC/Data/CLS-LOC/test/ILSVRC2012_test_00000001.JPEG",),
        lists={
            "imagenet/LOC_val_solution.csv": "ImageId,PredictionString\n"
            f"ILSVRC2012_val_00000236,{GOLDFISH} 1 2 3 4 {TENCH} 5 6 7 8\n"
            f"ILSVRC2012_val_00000293,{TENCH} 1 2 3 4\n"
        },
    ),
    Miniature(
        dataset="imagenet_v2",
        layout="coop",
        root="imagenetv2/imagenetv2-matched-frequency-format-val",
        samples=(
            ("0/a.jpeg", 0, "test"),
            ("1/b.jpeg", 1, "test"),
            ("2/c.jpeg", 2, "test"),
            ("10/d.jpeg", 10, "test"),
            ("999/e.jpeg", 999, "test"),
        ),
        notes=("Every class has 10 test images",),
    ),
    Miniature(
        dataset="imagenet_sketch",
        layout="coop",
        root="imagenet-sketch/images",
        samples=((f"{TENCH}/sketch_4.JPEG", 0, "test"), (f"{BRIDE}/sketch_1.JPEG", 982, "test")),
    ),
    Miniature(
        dataset="imagenet_sketch",
        layout="the archive's top folder",
        root="sketch",
        samples=((f"{TENCH}/sketch_4.JPEG", 0, "test"),),
    ),
    Miniature(
        dataset="imagenet_a",
        layout="coop",
        root="imagenet-adversarial/imagenet-a",
        samples=(
            ("n01498041/0.001_worm.jpg", 0, "test"),
            ("n01531178/0.002_bird.jpg", 1, "test"),
            ("n12267677/0.003_ball.jpg", 199, "test"),
        ),
        lists={"imagenet-adversarial/imagenet-a/README.txt": "n01498041 stingray\n"},
    ),
    Miniature(
        dataset="imagenet_r",
        layout="coop",
        root="imagenet-rendition/imagenet-r",
        samples=(
            ("n01443537/art_0.jpg", 0, "test"),
            ("n01484850/toy_1.jpg", 1, "test"),
            ("n12267677/cartoon_0.jpg", 199, "test"),
        ),
        lists={"imagenet-rendition/imagenet-r/README.txt": "n01443537 goldfish\n"},
    ),
    Miniature(
        dataset="objectnet",
        layout="the archive's top folder",
        root="objectnet-1.0/images",
        samples=(("alarm_clock/0a.png", 0, "test"), ("backpack/0b.png", 1, "test")),
        beside=("objectnet-1.0/images/aerosol_can_of_nothing/0c.png",),
        lists={"objectnet-1.0/mappings/folder_to_objectnet_label.json": "{}"},
        notes=("113 of ObjectNet's 313 folders", "1 image beside them"),
    ),
)

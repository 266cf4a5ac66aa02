"""Cross-domain, remote sensing and further data sets."""

from dataclasses import replace

from tests.featcache.sources.miniatures.base import Miniature


def record(header: tuple[int, ...], red: int, green: int, blue: int) -> bytes:
    """Return one record of CIFAR's binary files, an image of one colour."""
    planes = b"".join(bytes([value]) * 32 * 32 for value in (red, green, blue))
    return bytes(header) + planes


CROP = Miniature(
    dataset="cropdiseases",
    layout="Kaggle",
    root="cropdiseases/dataset/train",
    samples=(
        ("Apple___Apple_scab/a b.JPG", 0, "pool"),
        ("Apple___Apple_scab/c.jpg", 0, "pool"),
        ("Corn_(maize)___Cercospora_leaf_spot Gray_leaf_spot/d.JPG", 7, "pool"),
        ("Pepper,_bell___healthy/e.JPG", 19, "pool"),
        ("Pepper,_bell___healthy/f.JPG", 19, "pool"),
    ),
    beside=("cropdiseases/dataset/test/Apple___Apple_scab/g.JPG",),
    notes=("Split off train here",),
)
ISIC = Miniature(
    dataset="isic2018",
    layout="challenge",
    root="isic2018/ISIC2018_Task3_Training_Input",
    samples=(
        *((f"ISIC_002430{i}.jpg", 1, "pool") for i in range(6)),
        ("ISIC_0024311.jpg", 0, "pool"),
        ("ISIC_0024312.jpg", 6, "pool"),
    ),
    lists={
        "isic2018/ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv": (
            "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\n"
            + "".join(f"ISIC_002430{i},0.0,1.0,0.0,0.0,0.0,0.0,0.0\n" for i in range(6))
            + "ISIC_0024311,1.0,0.0,0.0,0.0,0.0,0.0,0.0\nISIC_0024312,0,0,0,0,0,0,1.0\n"
        ),
        "isic2018/HAM10000_metadata.csv": "lesion_id,image_id,dx,dx_type,age,sex,localization\n"
        + "".join(f"HAM_{i // 2},ISIC_002430{i},nv,histo,80,male,scalp\n" for i in range(6)),
    },
    groups={f"ISIC_002430{i}.jpg": f"HAM_{i // 2}" for i in range(6)},
    notes=("groups kept whole",),
)
CHESTX_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
)
CHESTX_ROWS = (
    ("00000001_000.png", "Cardiomegaly", 1),
    ("00000001_001.png", "Cardiomegaly|Emphysema", 1),
    ("00000001_002.png", "Effusion", 1),
    ("00000002_000.png", "No Finding", 2),
    ("00000003_000.png", "Pneumonia", 3),
    ("00000004_000.png", "Pneumothorax", 4),
    ("00000005_000.png", "Atelectasis", 5),
)
CHESTX = Miniature(
    dataset="chestx",
    layout="Kaggle",
    root="chestx",
    samples=(
        ("images_001/images/00000001_000.png", 1, "pool"),
        ("images_001/images/00000001_002.png", 2, "pool"),
        ("images_012/images/00000004_000.png", 6, "pool"),
        ("images_012/images/00000005_000.png", 0, "pool"),
    ),
    beside=(
        "chestx/images_001/images/00000001_001.png",
        "chestx/images_001/images/00000002_000.png",
        "chestx/images_002/images/00000003_000.png",
    ),
    lists={
        "chestx/Data_Entry_2017.csv": CHESTX_HEADER
        + "".join(
            f"{name},{found},0,{patient},058Y,M,PA,2682,2749,0.143,0.143,\n"
            for name, found, patient in CHESTX_ROWS
        )
    },
    groups={
        "images_001/images/00000001_000.png": "1",
        "images_001/images/00000001_002.png": "1",
    },
    notes=("images of a patient stay in one split",),
)
CUB = Miniature(
    dataset="cub",
    layout="the archive's top folder",
    root="CUB_200_2011/images",
    samples=(
        ("001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg", 0, "test"),
        ("001.Black_footed_Albatross/Black_Footed_Albatross_0009_34.jpg", 0, "train"),
        ("200.Common_Yellowthroat/Common_Yellowthroat_0055_190967.jpg", 199, "train"),
    ),
    lists={
        "CUB_200_2011/images.txt": "1 001.Black_footed_Albatross/"
        "Black_Footed_Albatross_0046_18.jpg\n"
        "2 001.Black_footed_Albatross/Black_Footed_Albatross_0009_34.jpg\n"
        "11788 200.Common_Yellowthroat/Common_Yellowthroat_0055_190967.jpg\n",
        "CUB_200_2011/image_class_labels.txt": "11788 200\n1 1\n2 1\n",
        "CUB_200_2011/train_test_split.txt": "1 0\n11788 1\n2 1\n",
        "CUB_200_2011/classes.txt": "1 001.Black_footed_Albatross\n",
    },
)
PLACES_VAL = Miniature(
    dataset="places365",
    layout="val alone",
    root="places365",
    samples=(
        ("val_256/Places365_val_00000001.jpg", 165, "test"),
        ("val_256/Places365_val_00000002.jpg", 0, "test"),
    ),
    lists={
        "places365/places365_val.txt": "Places365_val_00000001.jpg 165\n"
        "Places365_val_00000002.jpg 0\n",
        "places365/places365_train_standard.txt": "/a/airfield/00000001.jpg 0\n",
        "places365/categories_places365.txt": "/a/airfield 0\n",
    },
    notes=("its val is test here",),
)
PLACES_TRAIN = replace(
    PLACES_VAL,
    layout="torchvision",
    samples=(*PLACES_VAL.samples, ("data_256_standard/a/airfield/00000001.jpg", 0, "train")),
)
RESISC = Miniature(
    dataset="resisc45",
    layout="torchgeo",
    root="resisc45/NWPU-RESISC45",
    samples=(
        ("baseball_diamond/baseball_diamond_002.jpg", 2, "train"),
        ("airplane/airplane_001.jpg", 0, "train"),
        ("wetland/wetland_700.jpg", 44, "val"),
        ("airplane/airplane_003.jpg", 0, "test"),
    ),
    lists={
        "resisc45/resisc45-train.txt": "baseball_diamond_002.jpg\nairplane_001.jpg\n",
        "resisc45/resisc45-val.txt": "wetland_700.jpg\n",
        "resisc45/resisc45-test.txt": "airplane_003.jpg\n",
    },
)
AID = Miniature(
    dataset="aid",
    layout="the archive's top folder",
    root="AID",
    samples=(
        ("Airport/airport_1.jpg", 0, "pool"),
        ("Airport/airport_2.jpg", 0, "pool"),
        ("BareLand/bareland_1.jpg", 1, "pool"),
        ("Viaduct/viaduct_9.jpg", 29, "pool"),
    ),
)
WHU = Miniature(
    dataset="whu_rs19",
    layout="RS-TransCLIP",
    root="WHURS19/images",
    samples=(
        ("airport_01.jpg", 0, "test"),
        ("footballfield_02.jpg", 6, "test"),
        ("viaduct_58.jpg", 18, "test"),
    ),
    notes=("All images are test",),
)
CIFAR10 = Miniature(
    dataset="cifar10",
    layout="binary",
    root="cifar10-png",
    samples=(
        ("train/automobile/00001.png", 1, "train"),
        ("train/truck/00000.png", 9, "train"),
        ("test/airplane/00000.png", 0, "test"),
    ),
    lists={
        **{f"cifar-10-batches-bin/data_batch_{i}.bin": record((1,), 9, 9, i) for i in range(3, 6)},
        "cifar-10-batches-bin/data_batch_1.bin": record((9,), 1, 2, 3),
        "cifar-10-batches-bin/data_batch_2.bin": record((1,), 4, 5, 6),
        "cifar-10-batches-bin/test_batch.bin": record((0,), 7, 8, 9),
        "cifar-10-batches-bin/batches.meta.txt": "airplane\n",
    },
    written=False,
)
CIFAR10 = replace(
    CIFAR10,
    samples=(
        *((f"train/automobile/0000{i}.png", 1, "train") for i in range(1, 5)),
        *CIFAR10.samples[1:],
    ),
)
CIFAR100 = Miniature(
    dataset="cifar100",
    layout="binary",
    root="cifar100-png",
    samples=(
        ("train/aquarium_fish/00001.png", 1, "train"),
        ("train/worm/00000.png", 99, "train"),
        ("test/apple/00000.png", 0, "test"),
    ),
    lists={
        "cifar-100-binary/train.bin": record((7, 99), 1, 2, 3) + record((1, 1), 4, 5, 6),
        "cifar-100-binary/test.bin": record((4, 0), 7, 8, 9),
        "cifar-100-binary/fine_label_names.txt": "apple\n",
    },
    written=False,
)
CIFAR_FOLDERS = Miniature(
    dataset="cifar10",
    layout="folders",
    root="cifar10",
    samples=(("train/airplane/0001.png", 0, "train"), ("test/truck/0002.png", 9, "test")),
)
GTSRB = Miniature(
    dataset="gtsrb",
    layout="torchvision",
    root="gtsrb/GTSRB",
    samples=(
        ("Training/00000/00000_00000.ppm", 0, "train"),
        ("Training/00000/00000_00001.ppm", 0, "train"),
        ("Training/00042/00000_00000.ppm", 42, "train"),
        ("Final_Test/Images/00000.ppm", 16, "test"),
    ),
    lists={
        "gtsrb/GT-final_test.csv": "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"
        "00000.ppm;53;54;6;5;48;49;16\n",
        "gtsrb/GTSRB/Training/00000/GT-00000.csv": "Filename;Width\n",
    },
    groups={
        "Training/00000/00000_00000.ppm": "Training/00000/00000",
        "Training/00000/00000_00001.ppm": "Training/00000/00000",
        "Training/00042/00000_00000.ppm": "Training/00042/00000",
    },
)
GTSRB_OFFICIAL = Miniature(
    dataset="gtsrb",
    layout="official archive",
    root="gtsrb/GTSRB",
    splits="official",
    samples=(("Final_Training/Images/00001/00003_00000.ppm", 1, "train"),),
    groups={
        "Final_Training/Images/00001/00003_00000.ppm": "Final_Training/Images/00001/00003",
    },
)
COUNTRY = Miniature(
    dataset="country211",
    layout="the archive's top folder",
    root="country211",
    samples=(
        ("train/AD/1.jpg", 0, "train"),
        ("train/ZW/2.jpg", 210, "train"),
        ("valid/AE/3.jpg", 1, "val"),
        ("test/AD/4.jpg", 0, "test"),
    ),
)

FURTHER = (
    *(CROP, ISIC, CHESTX, CUB, PLACES_VAL, PLACES_TRAIN, RESISC, AID, WHU),
    *(CIFAR10, CIFAR100, CIFAR_FOLDERS, GTSRB, GTSRB_OFFICIAL, COUNTRY),
)

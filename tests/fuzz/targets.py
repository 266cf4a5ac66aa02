"""Every reader of what strangers may have written, but for the store: seeds, a call, a promise."""

import io
import json
import os
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from featcache.errors import FeatcacheError
from featcache.keys import parse_component
from featcache.places import FilePlace
from featcache.sources.base import Sample
from featcache.sources.hashing import hash_files
from featcache.sources.layouts.named.coop import parse_split
from featcache.sources.listing import build_listing
from featcache.sources.prefixes.folder import open_folder
from featcache.text.descriptions import match_descriptions, read_descriptions
from featcache.text.encode import texts_of, with_texts
from featcache.text.prompts import read_prompts
from featcache.text.templates import is_plain, read_templates
from tests.fuzz.cases import FIFO, LINK, Case, writable
from tests.fuzz.guard import Target
from tests.fuzz.imports import IMPORT_TARGETS
from tests.fuzz.kept_heads import HEAD_TARGETS
from tests.fuzz.last_blocks import BLOCK_TARGETS
from tests.fuzz.run_targets import RUN_TARGETS
from tests.fuzz.sources import SOURCE_TARGETS
from tests.fuzz.weights import WEIGHTS_TARGETS

CLASSES = ("ant", "bee tree", "Äpfel")


def _one(name: str, *contents: bytes) -> Callable[[Path], list[Case]]:
    return lambda _: [{name: content} for content in contents]


def _templates(folder: Path) -> None:
    templates = read_templates(folder / "templates.txt")
    assert all(t.count("{}") == 1 for t in templates)
    writable(templates)


def _prompts(folder: Path) -> None:
    prompts = read_prompts(folder / "prompts.txt")
    assert prompts
    assert len(set(prompts)) == len(prompts)
    assert all(p == p.strip() and p and is_plain(p) for p in prompts)
    writable(prompts)


def _descriptions(folder: Path) -> None:
    from featcache.backbones.tiny.tokenizer import TinyTokenizer

    found = read_descriptions(folder / "words.json")
    writable(found)
    matched, notes = match_descriptions(found, CLASSES)
    texts = [text for each in matched.values() for text in each]
    writable([*texts, *notes])
    tokens = TinyTokenizer(context_length=32, vocab_size=512)(texts)
    assert tokens.shape == (len(texts), 32)


def _coop(folder: Path) -> None:
    split = parse_split((folder / "split_zhou_toy.json").read_bytes(), "split_zhou_toy.json")
    writable(split.classes)
    for entries in split.splits.values():
        for image, label in entries:
            (folder / image).resolve().relative_to(folder.resolve())
            assert 0 <= label < len(split.classes)


def _coop_seeds(_: Path) -> list[Case]:
    entries = [[f"ant/{i}.jpg", 0, "ant"] for i in range(3)] + [["bee/1.jpg", 1, "bee_tree"]]
    value = {"train": entries[:2], "val": entries[2:3], "test": entries[3:]}
    return [{"split_zhou_toy.json": json.dumps(value).encode()}]


def _picture(mode: str = "RGB", size: tuple[int, int] = (9, 7)) -> Image.Image:
    count = size[0] * size[1] * len(Image.new(mode, (1, 1)).getbands())
    data = Random(size[0]).randbytes(count * (2 if mode == "I;16" else 1))
    return Image.frombytes(mode, size, data) if mode != "P" else _picture().convert("P")


def _image_seeds(_: Path) -> list[Case]:
    cases = []
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = [
        *(("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "RGBA")),
        *(("PNG", "P"), ("PNG", "I;16"), ("PNG", "1"), ("WEBP", "RGB"), ("BMP", "RGB")),
        *(("GIF", "P"), ("TIFF", "RGB"), ("TIFF", "I;16"), ("TIFF", "CMYK")),
    ]
    for kind, mode in kinds:
        image = _picture().convert("1") if mode == "1" else _picture(mode)
        buffer = io.BytesIO()
        more: dict[str, Any] = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}
        more |= {"compression": "tiff_lzw"} if mode == "CMYK" and kind == "TIFF" else {}
        image.save(buffer, kind, **more)
        cases.append({"image": buffer.getvalue()})
    buffer = io.BytesIO()
    _picture("RGB", (40, 30)).save(buffer, "JPEG", progressive=True, exif=exif)
    scans = buffer.getvalue()
    last = scans[scans.rfind(b"\xff\xda") : -2]
    return [*cases, {"image": scans}, {"image": scans[:-2] + 40 * last + scans[-2:]}]


def _image(folder: Path) -> None:
    from featcache.imaging.decode import decode
    from featcache.imaging.decode_work import count_scans
    from featcache.imaging.views import central_view
    from featcache.imaging.windows import Preprocess

    data = (folder / "image").read_bytes()
    assert 1 <= count_scans(data, len(data)) <= max(1, data.count(b"\xda"))
    image = decode(data, max_pixels=1 << 20)
    assert image.shape[2] == 3
    for mode in ("shortest", "squash", "longest"):
        assert central_view(image, Preprocess(32, mode)).shape == (32, 32, 3)


def _folder_seeds(_: Path) -> list[Case]:
    data = b"\xff\xd8\xff"
    flat = {f"{c}/{i}.jpg": data + bytes([i]) for c in ("ant", "bee_tree") for i in range(4)}
    splits = ("train", "val", "Test", "sketch")
    split = {f"{s}/{c}/1.png": data for s in splits for c in ("a", "b")}
    odd = dict.fromkeys(("ant/�.jpg", "�/1.jpg", "bee/\n\x1b[2J.jpg", "c/a b.jpg"), data)
    return [
        *(flat, split, odd),
        {**flat, "ant/loop": LINK + b"..", "ant/out": LINK + b"../../outside", "ant/p.jpg": FIFO},
        {**flat, "ant/in.jpg": LINK + b"0.jpg", "ant/no.jpg": LINK + b"nowhere.jpg"},
    ]


def _folder(folder: Path) -> None:
    dataset = open_folder(folder)
    writable([*dataset.classes, *dataset.notes, *(s.id for s in dataset.samples)])
    writable(dataset.splits())
    listing = build_listing(dataset, workers=1)
    again = build_listing(dataset, listing, workers=1)
    assert list(again.ids) == list(listing.ids)
    texts_of(with_texts(dataset))


def _known(folder: Path) -> None:
    places = [FilePlace(folder / f"{i}.jpg") for i in range(3)]
    samples = [Sample(p.path.name, p, 0, "train") for p in places]
    for place in places:
        place.path.write_bytes(b"x")
    hashes, _ = hash_files(samples, Path("photos"), folder / "hashes.tsv", None, 1)
    writable(hashes)


def _known_seeds(_: Path) -> list[Case]:
    rows = ["root\t'photos'", *(f"{'0' * 64}\t1\t17{i}\t18\t{i}\t{i}.jpg" for i in range(3))]
    rows += [f"{'0' * 64}\t{'9' * 5000}\t1\t2\t3\t0.jpg", "\udcff\t\u0663\t1\t2\t3\t1.jpg"]
    rows += ["x\t1\t2\t3\t4", f"{'0' * 64}\t1\t17\t0.jpg", "", "\t\t\t\t\t"]
    lines = [row.encode("utf-8", "surrogateescape") for row in rows]
    return [{"hashes.tsv": b"".join(b"%08x\t%s\n" % (zlib.crc32(r), r) for r in lines)}]


def _npz(folder: Path) -> None:
    from featcache.importers.table import read_table

    table = read_table(folder / "features.npz")
    writable([*table.classes, *table.ids, *table.splits])
    assert table.rows.dtype in (np.float16, np.float32)
    assert -1 <= table.labels.min() <= table.labels.max() < len(table.classes)


def _imported(folder: Path) -> None:
    from featcache.importers.npz import import_npz

    cache = import_npz(folder / "features.npz", folder / "root", "toys", "ViT-B/32")
    assert cache.feature_set().listing.dataset == "toys"


def arrays(rows: int = 8) -> dict[str, Any]:
    """Make features of a toy data set, as strangers pass them around."""
    values = np.random.default_rng(0).normal(size=(rows, 8)).astype(np.float32)
    return {
        "train_features": values,
        "train_labels": np.arange(rows) % 2,
        "train_paths": np.array([f"train/{i}.jpg" for i in range(rows)]),
        "train2_features": values[:4].astype(np.float16),
        "train2_labels": np.arange(4) % 2,
        "test_features": values[::-1],
        "test_labels": (np.arange(rows) % 2)[::-1].astype(np.int32),
        "classnames": np.array(["ant", "bee"]),
        "text_features": values[:2],
    }


def _npz_seeds(_: Path) -> list[Case]:
    whole = arrays()
    few = {k: whole[k] for k in ("train_features", "train_labels", "test_features")}
    cases = []
    for content, save in ((whole, np.savez), (few, np.savez), (whole, np.savez_compressed)):
        buffer = io.BytesIO()
        save(buffer, **content)
        cases.append({"features.npz": buffer.getvalue()})
    return cases


def _component(folder: Path) -> None:
    name = (folder / "name").read_bytes().decode("utf-8", "surrogateescape")
    key = parse_component(name)
    assert parse_component(key.folder) == key
    assert "/" not in key.folder


COMPONENTS = (
    "global",
    "patches.clearclip",
    "views.rrc50-10",
    "crops.lazsl-60@7.int8",
    "text.0123456789ab",
    "boxes.lazsl-60@7",
    "view_patches.clearclip.rrc50-4@123",
)


def _shown(folder: Path) -> None:
    from featcache.escapes import shown

    data = (folder / "text").read_bytes()
    even = data[: len(data) // 2 * 2]
    for text in (
        data.decode("utf-8", "surrogateescape"),
        even.decode("utf-16-le", "surrogatepass"),
    ):
        once = shown(text)
        once.encode()
        assert once == shown(once)
        assert is_plain(once)
        assert not {"Cc", "Cf", "Cs", "Zl", "Zp"} & {unicodedata.category(c) for c in once}


def _typed(folder: Path) -> None:
    from cli.ui.errors import OF_PATHS

    word = (folder / "word").read_bytes().decode("utf-8", "surrogateescape")
    kind, _, value = word.replace("\0", "").partition(" ")  # no command line holds a zero
    try:
        _parse(kind, value)
    except OSError as error:  # the command line explains those itself
        if error.errno not in OF_PATHS:
            raise


def _parse(kind: str, value: str) -> None:
    from cli.ui import options
    from featcache.backbones.names import choose
    from featcache.imaging.decode import pixel_limit
    from featcache.paths import expand
    from featcache.sources.registry import find
    from featcache.store.format.identity import slug
    from heads.registry import get
    from heads.selection.settings import configure

    match kind:
        case "pixels":
            os.environ["FEATCACHE_MAX_PIXELS"] = value
            pixel_limit()
        case "shots":
            options.shots(value)
        case "set":
            pairs = options.pairs(value.split(" "))
            for method in ("cmm", "tip-adapter-f", "linear-probe", "zero-shot"):
                try:
                    configure(get(method), pairs)
                except FeatcacheError:
                    continue
        case "weights":
            choose("tiny", value)
        case "backbone":
            choose(value, "random-7")
        case "dataset":
            find(value)
        case _:
            expand(value)
            assert "/" not in slug(value)


WORDS = (
    *("shots 16", "shots all", "set alpha=0.5,1 beta=2", "set lr=1e-3 steps=100", "set text=name"),
    *("weights random-7", "weights random", "weights openai", "backbone tiny", "backbone ViT-B/16"),
    *("pixels 1000", f"shots {'9' * 5000}", f"set steps={'9' * 400} n_neighbors=1e999"),
    *("dataset fieldguide", "dataset eurosat", "path ~root/x", "path ViT-B/32"),
)


def _typed_seeds(_: Path) -> list[Case]:
    from featcache.backbones.names import names

    names()  # open_clip takes seconds to load, which are no case's
    return [{"word": word.encode()} for word in WORDS]


TARGETS = (
    *BLOCK_TARGETS,
    *HEAD_TARGETS,
    *IMPORT_TARGETS,
    *SOURCE_TARGETS,
    *WEIGHTS_TARGETS,
    Target(
        name="templates",
        run=_templates,
        seeds=_one("templates.txt", b"a photo of a {}.\n# no\n\nthe {}\n", "ein {} ü".encode()),
    ),
    Target(
        name="prompts",
        run=_prompts,
        seeds=_one("prompts.txt", b"# no\n\na dog.\n a hat \n", "ein Bär\u2028a hat".encode()),
    ),
    Target(
        name="descriptions",
        run=_descriptions,
        seeds=_one(
            "words.json",
            b'{"ant": ["red", "has six legs", "Small."], "Bee_Tree": ["a nest"], "x": []}',
        ),
    ),
    Target(name="coop-split", run=_coop, seeds=_coop_seeds),
    Target(name="image", run=_image, seeds=_image_seeds),
    Target(name="image-folder", run=_folder, seeds=_folder_seeds, is_folder=True),
    Target(name="known-hashes", run=_known, seeds=_known_seeds),
    Target(name="npz", run=_npz, seeds=_npz_seeds),
    Target(name="npz-import", run=_imported, seeds=_npz_seeds),
    *RUN_TARGETS,
    Target(name="component", run=_component, seeds=_one("name", *(c.encode() for c in COMPONENTS))),
    Target(name="typed", run=_typed, seeds=_typed_seeds),
    Target(
        name="shown",
        run=_shown,
        seeds=_one("text", "ä\x1b[2J\u202e\u2028日本".encode(), "ab\u200b".encode("utf-16-le")),
    ),
)

"""Small caches in the exact form in which their makers write them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

WIDTH, CLASSES = 24, 3
SHOTS = (1, 2)
COUNTS = {"train": 12, "val": 6, "test": 9}


def rows(count: int, seed: int, *, width: int = WIDTH, dtype: Any = np.float16) -> Any:
    """Make unit rows."""
    made = np.random.default_rng(seed).standard_normal((count, width))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(dtype)


def labels(count: int) -> Any:
    return np.arange(count) % CLASSES


@dataclass(frozen=True)
class Miniature:
    """What was written, and what a cache of it must hold."""

    arguments: tuple[str, ...]
    """Arguments of `featcache import`, without names."""
    rows: Mapping[str, Any]
    """Split -> its features."""
    labels: Mapping[str, Any]
    ids: Mapping[str, list[str]]
    """As far as the format has any."""
    draws: str


def save(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(value, path)
    return path


def tensor(array: Any) -> Any:
    return torch.from_numpy(np.ascontiguousarray(array))


def tip_adapter(folder: Path, layout: str = "columns", width: int = WIDTH) -> Miniature:
    """Write keys as columns (Tip-Adapter), rows or views (TransCLIP)."""
    wanted, given = {}, {}
    for k in SHOTS:
        y = np.repeat(np.arange(CLASSES), k)
        x = rows(len(y), k, width=width)
        wanted[f"train@{k}"], given[f"train@{k}"] = x, y
        keys = tensor(x)
        # Tip-Adapter saves a transposed view of a contiguous tensor.
        keys = {"columns": keys.t(), "rows": keys, "views": keys[None].repeat(4, 1, 1)}[layout]
        save(folder / f"keys_{k}shots.pt", keys)
        one_hot = torch.nn.functional.one_hot(torch.from_numpy(y), CLASSES).half()
        save(folder / f"values_{k}shots.pt", one_hot)
    for seed, split in ((10, "val"), (11, "test")):
        wanted[split] = rows(COUNTS[split], seed, width=width)
        given[split] = labels(COUNTS[split])
        save(folder / f"{split}_f.pt", tensor(wanted[split]))
        save(folder / f"{split}_l.pt", tensor(given[split]))
    name = "tip-adapter" if layout == "columns" else "transclip"
    return Miniature((name, str(folder)), wanted, given, {}, "stored")


def clip_benchmark(folder: Path) -> Miniature:
    wanted = {s: rows(n, i, dtype=np.float32) for i, (s, n) in enumerate(COUNTS.items())}
    for split, x in wanted.items():
        save(folder / f"features_{split}.pt", tensor(x))
        save(folder / f"targets_{split}.pt", tensor(labels(len(x))))
    save(folder / "features_train_cache_0.pt", tensor(wanted["train"][:4]))
    given = {s: labels(n) for s, n in COUNTS.items()}
    return Miniature(("clip-benchmark", str(folder)), wanted, given, {}, "sampled")


def lpclip(folder: Path) -> Miniature:
    folder.mkdir(parents=True)
    raw = {s: 9 * rows(n, i, dtype=np.float64) for i, (s, n) in enumerate(COUNTS.items())}
    for split, x in raw.items():
        np.savez(folder / f"{split}.npz", feature_list=x, label_list=labels(len(x)))
    wanted = {s: x.astype(np.float32) for s, x in raw.items()}
    given = {s: labels(n) for s, n in COUNTS.items()}
    return Miniature(("lpclip", str(folder)), wanted, given, {}, "sampled")


def cross_modal(folder: Path) -> Miniature:
    view = folder / "RN50_0" / "eurosat" / "none"

    def part(count: int, seed: int, split: str) -> dict[str, Any]:
        return {
            "features": tensor(7 * rows(count, seed, dtype=np.float32)),
            "labels": tensor(labels(count)),
            "paths": [f"/data/{split}/{seed}-{i}.jpg" for i in range(count)],
        }

    wanted: dict[str, Any] = {}
    given: dict[str, Any] = {}
    ids: dict[str, list[str]] = {}
    for seed in (1, 2):
        for k in SHOTS:
            content = {
                "train": part(k * CLASSES, 20 * seed + k, "train"),
                "val": part(k * CLASSES, 20 * seed + 10 + k, "val"),
            }
            save(view / f"shot_{k}-seed_{seed}.pth", content)
            if seed == 2:
                kept = {f"train@{k}": content["train"], "val": content["val"]}
                wanted |= {s: p["features"].numpy() for s, p in kept.items()}
                given |= {s: p["labels"].numpy() for s, p in kept.items()}
                ids |= {s: p["paths"] for s, p in kept.items()}
    test = part(9, 3, "test")
    save(view.parent / "test.pth", test)
    wanted["test"], given["test"] = test["features"].numpy(), test["labels"].numpy()
    ids["test"] = test["paths"]
    return Miniature(("cross-modal", str(view), "--seed", "2"), wanted, given, ids, "stored")


def npy(folder: Path) -> Miniature:
    folder.mkdir(parents=True)
    wanted = {s: rows(n, i) for i, (s, n) in enumerate(COUNTS.items())}
    ids = {}
    for split, x in wanted.items():
        if split == "test":
            x.tofile(folder / f"{split}_features.mmap")
        else:
            np.save(folder / f"{split}_features.npy", x)
        np.save(folder / f"{split}_labels.npy", labels(len(x)))
        ids[split] = [f"{split}/é{i}.jpg" for i in range(len(x))]
        (folder / f"{split}_paths.txt").write_text("\n".join(ids[split]), encoding="utf-8")
    arguments = ("npy", str(folder), "--dtype", "float16", "--dim", str(WIDTH))
    return Miniature(arguments, wanted, {s: labels(n) for s, n in COUNTS.items()}, ids, "sampled")


def parquet(folder: Path, *, fixed: bool = False) -> Miniature:
    """Write the tables of Hugging Face: two shards of train, names of classes in the schema."""
    import json

    import pyarrow as pa
    from pyarrow import parquet as pq

    names = ["ant", "bee", "wasp"]
    info = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    kind = pa.list_(pa.float32(), WIDTH) if fixed else pa.list_(pa.float32())
    wanted = {s: rows(n, i, dtype=np.float32) for i, (s, n) in enumerate(COUNTS.items())}
    ids = {s: [f"{s}-{i}.png" for i in range(n)] for s, n in COUNTS.items()}
    files = {
        "data/train-00000-of-00002.parquet": ("train", slice(0, 5)),
        "data/train-00001-of-00002.parquet": ("train", slice(5, None)),
        "data/validation-00000-of-00001.parquet": ("val", slice(None)),
        "data/test-00000-of-00001.parquet": ("test", slice(None)),
    }
    for name, (split, part) in files.items():
        table = pa.table(
            {
                "image_id": ids[split][part],
                "label": pa.array(labels(COUNTS[split])[part], pa.int64()),
                "embedding": pa.array(wanted[split][part].tolist(), kind),
            }
        ).replace_schema_metadata({"huggingface": json.dumps(info)})
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / name)
    given = {s: labels(n) for s, n in COUNTS.items()}
    return Miniature(("parquet", str(folder)), wanted, given, ids, "sampled")


def clip_retrieval(folder: Path) -> Miniature:
    import pyarrow as pa
    from pyarrow import parquet as pq

    names = ["ant", "bee", "wasp"]
    wanted = {s: rows(n, i) for i, (s, n) in enumerate(COUNTS.items())}
    ids = {}
    for split, x in wanted.items():
        out = folder / split
        (out / "img_emb").mkdir(parents=True)
        (out / "metadata").mkdir()
        y = labels(len(x))
        ids[split] = [f"/photos/{split}/{names[c]}/{i}.jpg" for i, c in enumerate(y)]
        for part in range(11):  # by number: part 10 is not the second
            some = slice(part, part + 1 if part < 10 else None)
            np.save(out / "img_emb" / f"img_emb_{part}.npy", x[some])
            table = pa.table({"image_path": ids[split][some], "caption": ids[split][some]})
            pq.write_table(table, out / "metadata" / f"metadata_{part}.parquet")
    sources = tuple(f"{split}={folder / split}" for split in wanted)
    given = {s: labels(n) for s, n in COUNTS.items()}
    return Miniature(("clip-retrieval", *sources), wanted, given, ids, "sampled")


FORMATS: Mapping[str, Callable[[Path], Miniature]] = {
    "tip-adapter": tip_adapter,
    "transclip": lambda folder: tip_adapter(folder, "rows"),
    "transclip-views": lambda folder: tip_adapter(folder, "views"),
    "clip-benchmark": clip_benchmark,
    "lpclip": lpclip,
    "cross-modal": cross_modal,
    "npy": npy,
    "parquet": parquet,
    "parquet-fixed": lambda folder: parquet(folder, fixed=True),
    "clip-retrieval": clip_retrieval,
}
NEED_PYARROW = ("parquet", "parquet-fixed", "clip-retrieval")

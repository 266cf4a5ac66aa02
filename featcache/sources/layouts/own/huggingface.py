"""`hf:PATH`: a data set of Hugging Face's that lies on this machine.

    PATH/data/train-00000-of-00017.parquet      parquet shards with image and label columns
    PATH/train/metadata.csv|jsonl|parquet       images beside a table with `file_name`
    PATH/train/<class>/*.jpg                    class folders

Which parquet files belong to which split, README.md may say; else their names do. A data set of the
hub (`hf:owner/name`) is downloaded first, by `featcache.sources.hub`. One with a
loading script of its own is refused: reading it would run code.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from featcache.errors import SourceError
from featcache.paths import as_text, expand, open_descriptor
from featcache.sources.base import Dataset
from featcache.sources.layouts.class_folders import list_class_folders
from featcache.sources.layouts.own.below import Finder, path_below
from featcache.sources.layouts.own.card import CARD, Configuration, choose, read_card
from featcache.sources.layouts.own.class_names import read_names
from featcache.sources.layouts.own.csv_columns import USUAL, choice, find_columns
from featcache.sources.layouts.own.csv_file import add_table
from featcache.sources.layouts.own.json_file import label_text, parse_line
from featcache.sources.layouts.own.labelled import LabelledImages
from featcache.sources.layouts.own.parquet_file import open_parquet, read_columns
from featcache.sources.layouts.own.parquet_shards import check_one_configuration, list_parquet
from featcache.sources.layouts.own.shards import Shard, named_shards, shards_below
from featcache.sources.layouts.own.text_file import read_lines
from featcache.sources.layouts.split_names import USUAL as USUAL_SPLITS
from featcache.sources.trees.folder import FolderTree
from featcache.wording import Argument, Placeholder

OPTIONS = ("image", "label", "names", "config")

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")

_SCRIPT = re.compile(rb"\b(GeneratorBasedBuilder|ArrowBasedBuilder|BuilderConfig|DatasetBuilder)\b")
_FILE_NAMES = ("file_name", "image_file_name", "file")


def open_huggingface(path: str, options: Mapping[str, str], name: str | None = None) -> Dataset:
    """List the images of a data set in one of Hugging Face's forms.

    Args:
        path: The folder, or one parquet file.
        options: Any of `OPTIONS`: names of columns; `names`, a file of class names; `config`, a
            configuration that README.md declares.
        name: Name of the data set; the folder's name otherwise.

    Raises:
        SourceError: If there is no such folder, it has a loading script, or cannot be used.
    """
    spec = f"hf:{path}"
    if expand(path).is_file() or "{" in path:
        root, shards = named_shards(path)
        own = as_text(expand(path).stem)
        check_one_configuration(shards, spec)
        return list_parquet(root, shards, options, name or own, spec)
    root = _folder(path)
    name = name or as_text(root.name) or "images"
    tree = FolderTree(root)
    _refuse_script(tree)
    shards = [s for s in shards_below(root, ".parquet") if Path(s.name).name not in METADATA]
    wanted = options.get("config", "")
    if shards and (chosen := _declared(tree, shards, wanted, spec)) is not None:
        declared, shards = chosen
        dataset = list_parquet(root, shards, options, name, spec)
        note = f"Files and splits are those of configuration '{declared.name}' in {CARD}."
        return replace(dataset, notes=(*dataset.notes, note))
    if wanted:
        raise SourceError(
            f"{root} has no {CARD} that declares parquet files of configurations, so 'config' "
            f"says nothing; leave it out."
        )
    if shards:
        check_one_configuration(shards, spec)
        return list_parquet(root, shards, options, name, spec)
    tables = _tables(tree)
    if tables:
        return _with_metadata(tree, tables, options, name, spec)
    return list_class_folders(tree, name, prefix="hf")


def declares(root: Path, config: str) -> bool:
    """Tell whether the README.md in a folder declares a configuration of this name.

    Raises:
        SourceError: If its declarations cannot be read.
    """
    return any(found.name == config for found in read_card(FolderTree(root)))


def _declared(
    tree: FolderTree, shards: list[Shard], wanted: str, spec: str
) -> tuple[Configuration, list[Shard]] | None:
    """Return the configuration that is meant and its shards; None if README.md declares none."""
    found = [c for c in read_card(tree) if any(c.splits_of(shard.name) for shard in shards)]
    if not found:
        return None
    configuration = choose(found, wanted)
    if configuration is None:
        raise SourceError(
            f"{CARD} declares several configurations: {', '.join(c.name for c in found)}. Name one "
            f"of them with ",
            choice(spec, "config", found[0].name),
            ".",
        )
    splits = [(shard, configuration.split_of(shard.name)) for shard in shards]
    return configuration, [
        replace(shard, split=split or shard.split) for shard, split in splits if split is not None
    ]


def _folder(path: str) -> Path:
    root = expand(path)
    if root.is_dir():
        return root.resolve()
    raise SourceError(
        f"There is no folder {root}; expected a data set of Hugging Face's on this machine, or its "
        f"name on the hub as owner/name."
    )


def _refuse_script(tree: FolderTree) -> None:
    """Refuse a folder whose files only a program of its own makes sense of.

    Raises:
        SourceError: If there is such a program, or the folder is in the library's own form.
    """
    if tree.find("state.json") is not None and tree.find("dataset_info.json") is not None:
        raise SourceError(
            f"{tree.root} was written by save_to_disk; write it as parquet, with to_parquet of "
            f"each split, and name that folder."
        )
    for file in tree.names():
        if not file.endswith(".py"):
            continue
        try:
            # A link may lead out of the folder; its name alone counts.
            with os.fdopen(open_descriptor(tree.root / file, links=False), "rb") as opened:
                is_script = _SCRIPT.search(opened.read(1 << 20)) is not None
        except OSError:
            is_script = False
        if is_script or file == f"{as_text(tree.root.name)}.py":
            raise SourceError(
                f"{tree.root} has the loading script {file}, which is not run. Use the copy in "
                f"parquet that the hub keeps of most data sets: ",
                Argument("dataset", Placeholder("hf:OWNER/NAME@refs/convert/parquet")),
                ".",
            )


def _tables(tree: FolderTree) -> list[tuple[str, str, str]]:
    """Return the folder, the file and the split of each metadata table."""
    found = []
    for folder in ("", *(f for f in tree.names() if tree.has_folder(f))):
        there = [f for f in METADATA if tree.find(f"{folder}/{f}".lstrip("/")) is not None]
        if len(there) > 1:
            raise SourceError(
                f"{tree.root / folder} has both {there[0]} and {there[1]}; keep one of them."
            )
        found += [(folder, file, USUAL_SPLITS.get(folder.lower(), folder)) for file in there]
    return found


def _with_metadata(
    tree: FolderTree,
    tables: list[tuple[str, str, str]],
    options: Mapping[str, str],
    name: str,
    spec: str,
) -> Dataset:
    names = read_names(options["names"]) if "names" in options else None
    images = LabelledImages(tables[0][1], unit="row", names=names)
    finder = Finder(tree, tables[0][1])
    for folder, file, split in tables:
        path = tree.root / folder / file
        if file.endswith(".csv"):
            chosen = {"path": "file_name", **{k: v for k, v in options.items() if k == "label"}}
            add_table(images, finder, path, chosen, spec, folder, split)
            continue
        usual = {"path": _FILE_NAMES, "label": USUAL["label"], "split": USUAL["split"]}
        for row, values in _rows(path, options, spec, usual):
            where = f"Row {row} of {path}"
            below = path_below(str(values["path"] or ""), path.parent, where)
            place = finder.find(f"{folder}/{below}".lstrip("/"))
            try:
                label = label_text(values["label"])
            except ValueError as error:
                raise SourceError(f"The label of {where} is {error}; expected one.") from error
            if place is not None:
                own_split = str(values.get("split") or "") or split
                images.add(f"{folder}/{below}".lstrip("/"), place, label, own_split, line=row)
    return images.dataset(name, tree.root, notes=finder.notes())


def _rows(
    path: Path, options: Mapping[str, str], spec: str, usual: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the values of a jsonl or parquet table by what they are."""
    chosen = {"label": options["label"]} if "label" in options else {}
    if path.suffix == ".parquet":
        file = open_parquet(path)
        header = list(file.schema_arrow.names)
        found = find_columns(header, chosen, str(path), spec, usual=usual)
        columns = [header[i] for i in found.values()]
        for row, (_, values) in enumerate(read_columns(path, file, columns)):
            yield row, dict(zip(found, values, strict=True))
        return
    keys: dict[str, str] = {}
    for row, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        content = parse_line(line, f"Row {row} of {path}")
        if not keys:
            header = list(content)
            found = find_columns(header, chosen, str(path), spec, usual=usual)
            keys = {role: header[i] for role, i in found.items()}
        yield row, {role: content.get(key) for role, key in keys.items()}

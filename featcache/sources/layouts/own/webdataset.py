"""`wds:PATH`: tar shards in the form of webdataset, read in place.

    PATH                             a folder of shards, one shard, or x-{000000..000012}.tar
    PATH/{train,test}/0.tar ...      CLIP_benchmark's layout, with nshards.txt beside the shards
    PATH/classnames.txt              class names in label order, one a line
    PATH/zeroshot_classification_templates.txt    templates with {c} for the class name

The files of a sample have one key, which is their path up to the first dot of the base name. Its
label is the text of `key.cls`, or a field of `key.json` that the reader chooses: `?label=FIELD`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from featcache.errors import SourceError, UsageError
from featcache.limits import SAMPLE_TEXT, WORDS
from featcache.paths import as_text, expand
from featcache.places import Place
from featcache.sources.base import Dataset
from featcache.sources.layouts.own.class_names import given_names, read_names
from featcache.sources.layouts.own.csv_columns import choice
from featcache.sources.layouts.own.json_file import label_text, parse_line
from featcache.sources.layouts.own.labelled import LabelledImages
from featcache.sources.layouts.own.shards import Shard, check_count, named_shards, shards_below
from featcache.sources.trees.archive import ArchiveTree, open_archive
from featcache.sources.trees.folder import FolderTree
from featcache.sources.trees.names import is_image, path_text
from featcache.text.templates import DEFAULT_TEMPLATES, check_template

OPTIONS = ("label", "image", "names")

_EXPECTED = "shards of webdataset: .tar files whose samples have an image and a .cls"


@dataclass(frozen=True, slots=True)
class _Sample:
    key: str
    """Path in the shard up to the first dot of the base name."""
    name: str
    """Path of the image in the shard."""
    place: Place


def open_webdataset(path: str, options: Mapping[str, str], name: str | None = None) -> Dataset:
    """List the images of shards in the form of webdataset.

    Args:
        path: A folder, a shard, or a pattern of shards.
        options: `label`, the field of each sample's JSON that is its label; `image`, the extension
            of the image where samples have several; `names`, a file of class names in label order.
        name: Name of the data set; the folder's name, or that of a single shard, otherwise.

    Raises:
        SourceError: If a shard is missing, damaged or of another form, or labels are not clear.
    """
    root, shards = _shards(path)
    tree = FolderTree(root)
    if tree.find("dataset_type.txt") is not None:
        kind = tree.read("dataset_type.txt", WORDS).decode("utf-8", "replace").strip()
        if kind != "classification":
            raise SourceError(f"{root} is a data set for {kind[:40]}; expected classification.")
    names = _names(tree, options)
    images = LabelledImages(as_text(root.name), unit="sample", names=names)
    for shard in shards:
        archive = open_archive(shard.path, "tar")
        for number, sample in enumerate(_samples(archive, shard, options, path), 1):
            label = _label(archive, shard, sample, options, path)
            images.add(f"{shard.name}/{sample.name}", sample.place, label, shard.split, line=number)
    single = as_text(shards[0].path.stem) if len(shards) == 1 else as_text(root.name)
    own_name = as_text(root.name) if expand(path).is_dir() else single
    return images.dataset(name or own_name, root, templates=_templates(tree))


def _shards(path: str) -> tuple[Path, list[Shard]]:
    if not expand(path).is_dir():
        return named_shards(path)
    root = expand(path).resolve()
    shards = shards_below(root, ".tar")
    if not shards:
        raise SourceError(f"{root} has no shards; expected {_EXPECTED}.")
    tree = FolderTree(root)
    for folder in sorted({shard.name.rpartition("/")[0] for shard in shards}):
        check_count(tree, folder, shards)
    return root, shards


def _samples(
    archive: ArchiveTree, shard: Shard, options: Mapping[str, str], spec: str
) -> Iterator[_Sample]:
    """Yield the samples of a shard, whatever the order of its members."""
    before: _Sample | None = None
    for entry in archive.images().images:
        name = path_text(entry.id)
        folder, slash, base = name.rpartition("/")
        stem, _, extension = base.partition(".")
        wanted = options.get("image", extension if is_image(f"x.{extension}") else None)
        if not stem or extension != wanted or ("." in extension and "image" not in options):
            continue  # a mask such as key.seg.png is another file of the sample
        sample = _Sample(f"{folder}{slash}{stem}", name, entry.place)
        if before is not None and before.key == sample.key:
            raise SourceError(
                f"Sample {sample.key} of {shard.path} has several images: {before.name} and "
                f"{name}. Choose one with ",
                choice(f"wds:{spec}", "image", extension),
                ".",
            )
        before = sample
        yield sample


def _label(
    archive: ArchiveTree, shard: Shard, sample: _Sample, options: Mapping[str, str], spec: str
) -> str | None:
    where = f"Sample {sample.key} of {shard.path}"
    if "label" in options:
        return _field(archive, f"{sample.key}.json", options["label"], where)
    if archive.find(f"{sample.key}.cls") is not None:
        text = archive.read(f"{sample.key}.cls", SAMPLE_TEXT).strip()
        try:
            return text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise SourceError(f"The label of {where} is not text; expected a number.") from error
    if archive.find(f"{sample.key}.npy") is not None:
        raise SourceError(
            f"{where} has its labels in .npy, as multi-label data have; expected one label in .cls."
        )
    if archive.find(f"{sample.key}.json") is None:
        raise SourceError(f"{where} has no label; expected {sample.key}.cls.")
    fields = parse_line(_text(archive, f"{sample.key}.json", where), where)
    known = ", ".join(f"'{field}'" for field in list(fields)[:12])
    raise SourceError(
        f"{where} has no .cls; the fields of its .json are {known}. Choose the one that is the "
        f"label with ",
        choice(f"wds:{spec}", "label", "FIELD"),
        ".",
    )


def _field(archive: ArchiveTree, path: str, field: str, where: str) -> str | None:
    if archive.find(path) is None:
        raise SourceError(f"{where} has no .json; its label cannot be read from '{field}'.")
    fields = parse_line(_text(archive, path, where), where)
    if field not in fields:
        known = ", ".join(f"'{name}'" for name in list(fields)[:12])
        raise SourceError(f"The .json of {where} has no field '{field}'; its fields are {known}.")
    try:
        return label_text(fields[field])
    except ValueError as error:
        raise SourceError(f"Field '{field}' of {where} is {error}; expected one label.") from error


def _text(archive: ArchiveTree, path: str, where: str) -> str:
    try:
        return archive.read(path, SAMPLE_TEXT).decode("utf-8")
    except UnicodeDecodeError as error:
        raise SourceError(f"The .json of {where} is not UTF-8; get a whole copy of it.") from error


def _names(tree: FolderTree, options: Mapping[str, str]) -> tuple[str, ...] | None:
    if "names" in options:
        return read_names(options["names"])
    if tree.find("classnames.txt") is None:
        return None
    path = tree.root / "classnames.txt"
    text = tree.read("classnames.txt", WORDS)
    try:
        lines = text.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not UTF-8; save it as UTF-8.") from error
    while lines and not lines[-1].strip():
        lines.pop()
    return given_names(lines, str(path))


def _templates(tree: FolderTree) -> tuple[str, ...]:
    """Return the templates beside the shards, in our form; those of photographs where none are."""
    file = "zeroshot_classification_templates.txt"
    if tree.find(file) is None:
        return DEFAULT_TEMPLATES
    text = tree.read(file, WORDS).decode("utf-8", "replace")
    lines = [line.strip().replace("{c}", "{}") for line in text.splitlines() if line.strip()]
    try:
        return tuple(dict.fromkeys(map(check_template, lines))) or DEFAULT_TEMPLATES
    except UsageError as error:
        raise SourceError(f"{tree.root / file}: {error}") from error

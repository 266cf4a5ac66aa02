"""The page about named data sets in the documentation, written from their descriptions.

python -m featcache.sources.datasets_page > docs/datasets.md
"""

import sys
from collections.abc import Iterator, Mapping

from featcache.sources.generic import GENERIC, LEFT_OUT
from featcache.sources.layouts.named.table import Table
from featcache.sources.named import LookAlike, NamedDataset, datasets

_HEAD = """\
# Data sets by name

<!-- Written by `python -m featcache.sources.datasets_page`; change the files in
featcache/sources/datasets and featcache/sources/descriptions, not this page. -->

`featcache extract --dataset NAME` lists the images of a data set by name: its classes, labels and
splits as the literature has them. Files that are on this machine are used in place, in the
folders of CoOp, of torchvision, or as the archive unpacks; `--dataset-root DIR` names another
folder. `featcache datasets NAME` shows what of a data set is here and how to get the rest.

All named data sets are below one folder: `--data-root DIR`, else `$FEATCACHE_DATA`, else `images`
beside the caches. If that folder moves, extraction and repair find the images again. If a data set
is in the old folder and in the new one, or is itself the data root, add `--moved` once.

Files of labels, lists and records are named below at their usual place under the data root. They
are also found under their name alone, and in the folder of the images or in the data root itself.

Some have descriptions: sentences about how each class looks, which `lazsl`, `fair` and any method
with `text=description` read. `--descriptions FILE.json` gives others.

`--splits` takes other published splits than the default, where there are some; results on different
splits are not comparable. `--words openai` takes OpenAI's class names and templates in place of
CoOp's. The metric that CoOp and its successors report is top-1 accuracy, for all data sets.

Classes are identified by label, not by name: in ImageNet two classes are called "missile"
(657, 744) and two "sunglasses" (836, 837). They stay different classes.
"""

_TERMS = {
    "auto": "fetched",
    "click": "by hand",
    "account": "by hand, account",
}


def page() -> str:
    """Return the page."""
    listed = [data for data in datasets() if data.kind == "listed"]
    return "\n".join((_HEAD, *_summary(listed), *map(_section, listed), *_further()))


def _summary(listed: list[NamedDataset]) -> Iterator[str]:
    yield f"## The {len(listed)} data sets\n"
    yield "| name | also called | classes | images by split | descriptions | how to get it |"
    yield "|---|---|--:|---|---|---|"
    for data in listed:
        also = ", ".join(data.aliases)
        size = f", {data.size}" if data.size else ""
        counts = _counts(data.scheme().counts)
        yield (
            f"| [{data.name}](#{data.name}) | {also} | {data.classes:,} | {counts} | "
            f"{data.described.count()} | {_TERMS[data.terms]}{size} |"
        )
    yield ""


def _section(data: NamedDataset) -> str:
    lines = [f"## {data.name}\n", f"{data.title}. {data.citation}. Licence: {data.licence}.\n"]
    for i, (name, scheme) in enumerate(data.splits.items()):
        default = ", the default" if i == 0 and len(data.splits) > 1 else ""
        cut = " A pool, which is cut here into 50 % train, 20 % val and 30 % test."
        lines.append(
            f"- Splits `{name}`{default}: {_counts(scheme.counts)}."
            f"{cut if scheme.cut else ''} {scheme.note}".rstrip()
        )
    if data.parent:
        lines.append(f"- Its classes are classes of {data.parent}.")
    if data.descriptions:
        lines.append(f"- Descriptions: {data.described.summary()}")
    lines.append(f"- Files: {data.hint.replace('<', '&lt;')}")
    folders = [
        "/".join(filter(None, (place, folder)))
        for place in data.places
        for folder in data.image_folders
    ]
    lines.append(f"- Images are looked for in {', '.join(f'`{f}`' for f in folders[:6])}.")
    lines += _lists(data)
    lines += [f"- Address: <{url}>" for archive in data.archive for url in archive.urls]
    lines += [f"- Not to be confused: {other.say}" for other in _distinct(data)]
    return "\n".join((*lines, ""))


def _lists(data: NamedDataset) -> Iterator[str]:
    """Yield a line that names the files of labels, lists or records, at their usual place."""
    layouts = [layout for scheme in data.splits.values() for layout in scheme.list_]
    needed = [file for layout in layouts for file in layout.files]
    joins = [join for layout in layouts if isinstance(layout, Table) for join in layout.joins]
    optional = [join.file for join in joins if join.optional]
    named = [
        f"`{'/'.join(filter(None, (*data.places[:1], file)))}`"
        + (" (optional)" if file in optional else "")
        for file in dict.fromkeys((*needed, *optional))
    ]
    if named:
        yield f"- Files beside the images: {', '.join(named)}."


def _further() -> Iterator[str]:
    yield "## Read through a generic source\n"
    yield "These are read with another `--dataset` prefix, or from folders of your own:\n"
    yield "| data set | how | written |"
    yield "|---|---|---|"
    for one in GENERIC:
        yield f"| {one.of or ', '.join(one.names)} | {one.how} | `{one.spec}` |"
    yield "\n## Left out\n"
    yield "| data set | why |"
    yield "|---|---|"
    yield from (f"| {name} | {why} |" for name, why in LEFT_OUT.items())
    yield ""


def _distinct(data: NamedDataset) -> Iterator[LookAlike]:
    said: set[str] = set()
    for other in data.looks_like:
        if other.say not in said:
            said.add(other.say)
            yield other


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{split} {count:,}" for split, count in counts.items())


if __name__ == "__main__":
    sys.stdout.write(page())

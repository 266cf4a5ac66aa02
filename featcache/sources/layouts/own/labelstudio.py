"""`labelstudio:FILE`: an export of Label Studio, JSON or JSON_MIN, with one choice per image.

    JSON       [{"data": {"image": ...}, "annotations": [{"result": [{"type": "choices",
               "value": {"choices": ["cat"]}}], "was_cancelled": false}]}]
    JSON_MIN   [{"image": ..., "choice": "cat"}]

The export names images as the server had them (`/data/upload/1/3f2a9c1e-cat.jpg`), so a file is
found below the root by its path, else by its base name, else by the base name without the eight hex
digits that the server put before it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from featcache.errors import SourceError
from featcache.paths import as_text
from featcache.sources.base import Dataset
from featcache.sources.layouts.own.csv_columns import choice
from featcache.sources.layouts.own.files import existing_file, image_root
from featcache.sources.layouts.own.json_file import label_text, read_json
from featcache.sources.layouts.own.labelled import LabelledImages
from featcache.sources.trees.base import Entry
from featcache.sources.trees.folder import FolderTree
from featcache.sources.trees.names import is_image

OPTIONS = ("root", "label", "image")

_EXPECTED = "an export of Label Studio, JSON or JSON_MIN"
_HEX_PREFIX = re.compile(r"[0-9a-f]{8}-(.+)", re.DOTALL)
_TASK_KEYS = (
    *("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement"),
    *("predictions", "inner_id", "completed_by", "file_upload", "total_annotations", "project"),
)
"""Keys of JSON_MIN that describe the task, so that they hold neither the image nor the label."""


@dataclass(frozen=True, slots=True)
class _Task:
    number: int
    """Its place in the export, from 1."""
    image: str
    label: str | None


def open_labelstudio(path: str, options: Mapping[str, str], name: str | None = None) -> Dataset:
    """List the images of an export of Label Studio.

    Args:
        path: The file.
        options: `root`, the folder of the images, by default that of the file; `label` and `image`,
            the names of the two in the labelling configuration.
        name: Name of the data set; by default the name of the file without its suffix.

    Raises:
        SourceError: If the file cannot be used, an image has several choices, or annotators differ.
    """
    file = existing_file(path, _EXPECTED)
    root = image_root(file, options)
    spec = f"labelstudio:{path}"
    images = LabelledImages(as_text(file.name), unit="task", numbers=False)
    files = _Files(root)
    missing: list[str] = []
    for task in _tasks(file, options, spec):
        entry = files.find(task.image, file, task.number)
        if entry is None:
            missing.append(task.image)
        else:
            images.add(entry.id, entry.place, task.label, line=task.number)
    if missing and not len(images):
        raise SourceError(
            f"None of the {len(missing)} images of {file.name} is in {root}; expected e.g. "
            f"{_base_name(missing[0])}. If they lie elsewhere, write ",
            choice(spec, "root", "FOLDER"),
            ".",
        )
    notes = list(files.notes)
    if missing:
        notes.append(
            f"{len(missing)} images that {file.name} lists are not there and were left out; the "
            f"first is {missing[0]}."
        )
    return images.dataset(name or as_text(file.stem), root, notes=notes)


class _Files:
    """The images below a root, by path and by base name."""

    def __init__(self, root: Path) -> None:
        found = FolderTree(root).images()
        self.notes = found.notes
        self._asked: dict[str, tuple[str, int]] = {}
        """Id of a file -> the address and the task that led to it."""
        self._by_path = {entry.id: entry for entry in found.images}
        self._by_name: dict[str, list[Entry]] = {}
        for entry in found.images:
            self._by_name.setdefault(entry.id.rpartition("/")[2], []).append(entry)

    def find(self, image: str, file: Path, task: int) -> Entry | None:
        """Return the file that an export means; None where there is none.

        Raises:
            SourceError: If several files fit, or tasks of other addresses lead to the same.
        """
        entry = self._fitting(image, file, task)
        if entry is None:
            return None
        other, first = self._asked.setdefault(entry.id, (image, task))
        if other != image:
            raise SourceError(
                f"Tasks {first} and {task} of {file} name {other} and {image}, and for both only "
                f"{entry.id} is there. Keep the images under the names that the export has."
            )
        return entry

    def _fitting(self, image: str, file: Path, task: int) -> Entry | None:
        if image in self._by_path:
            return self._by_path[image]
        base = _base_name(image)
        unprefixed = _HEX_PREFIX.fullmatch(base)
        for name in (base, *(unprefixed.groups() if unprefixed else ())):
            fitting = self._by_name.get(name, [])
            if len(fitting) > 1:
                raise SourceError(
                    f"Task {task} of {file} names {image}, and several files are called {name}: "
                    f"{fitting[0].id} and {fitting[1].id}. Keep the images of the export in a "
                    f"folder of their own and name it as root."
                )
            if fitting:
                return fitting[0]
        return None


def _tasks(file: Path, options: Mapping[str, str], spec: str) -> Iterator[_Task]:
    content = read_json(file, _EXPECTED)
    if not isinstance(content, list) or not content:
        raise SourceError(f"{file} is no list of tasks; expected {_EXPECTED}.")
    for number, task in enumerate(content, 1):
        if not isinstance(task, dict):
            raise SourceError(f"Task {number} of {file} is no JSON object; expected {_EXPECTED}.")
        is_full = isinstance(task.get("data"), dict)
        data: dict[str, Any] = task["data"] if is_full else task
        image_key = _image_key(data, options, file, number, spec)
        if is_full:
            label = _full_label(task, options, file, number, spec)
        else:
            label = _min_label(task, image_key, options, file, number, spec)
        yield _Task(number, str(data[image_key]), label)


def _image_key(
    data: Mapping[str, Any], options: Mapping[str, str], file: Path, number: int, spec: str
) -> str:
    if "image" in options:
        fitting = [options["image"]] if isinstance(data.get(options["image"]), str) else []
    else:
        texts = {key: value for key, value in data.items() if isinstance(value, str)}
        fitting = [key for key, value in texts.items() if is_image(_base_name(value))]
    if len(fitting) == 1:
        return fitting[0]
    found = f"several images ({', '.join(fitting[:4])})" if fitting else "no image"
    raise SourceError(
        f"Task {number} of {file} has {found}; expected one. Choose its name with ",
        choice(spec, "image", "NAME"),
        ".",
    )


def _full_label(
    task: Mapping[str, Any], options: Mapping[str, str], file: Path, number: int, spec: str
) -> str | None:
    """Return the choice on which the annotations of a task in JSON agree; None if there is none."""
    chosen: dict[str, set[str]] = {}
    for annotation in _list(task, "annotations", file, number):
        if not isinstance(annotation, dict) or annotation.get("was_cancelled"):
            continue
        for result in _list(annotation, "result", file, number):
            match result:
                case {"type": "choices", "value": {"choices": list(choices)}}:
                    key = str(result.get("from_name", "choice"))
                    chosen.setdefault(key, set()).add(_single(choices, file, number))
    if "label" in options:
        chosen = {k: v for k, v in chosen.items() if k == options["label"]}
    if len(chosen) > 1:
        raise _ask(list(chosen), file, number, spec)
    answers = sorted(next(iter(chosen.values()), set()))
    if len(answers) > 1:
        raise SourceError(
            f"Annotators of task {number} of {file} differ: '{answers[0]}' and '{answers[1]}'. "
            f"Decide in Label Studio which annotation holds and export again."
        )
    return answers[0] if answers else None


def _list(entry: Mapping[str, Any], key: str, file: Path, number: int) -> list[Any]:
    value = entry.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise SourceError(
            f"Task {number} of {file} has under '{key}' {type(value).__name__}, not a list; "
            f"expected {_EXPECTED}."
        )
    return value


def _min_label(
    task: Mapping[str, Any],
    image_key: str,
    options: Mapping[str, str],
    file: Path,
    number: int,
    spec: str,
) -> str | None:
    """Return the choice of a task in JSON_MIN."""
    if "label" in options:
        keys = [options["label"]]
    elif "choice" in task:
        keys = ["choice"]
    else:
        keys = [key for key in task if key not in _TASK_KEYS and key != image_key]
    if len(keys) > 1:
        raise _ask(keys, file, number, spec)
    value = task.get(keys[0]) if keys else None
    if isinstance(value, dict) and isinstance(value.get("choices"), list):
        return _single(value["choices"], file, number)
    try:
        return label_text(value)
    except ValueError as error:
        raise SourceError(
            f"Task {number} of {file} has under '{keys[0]}' {error}; expected one choice."
        ) from error


def _single(choices: list[Any], file: Path, number: int) -> str:
    if len(choices) == 1 and isinstance(choices[0], str):
        return choices[0]
    raise SourceError(
        f"Task {number} of {file} has {len(choices)} choices; expected one. Multi-label data are "
        f"not supported."
    )


def _ask(keys: list[str], file: Path, number: int, spec: str) -> SourceError:
    return SourceError(
        f"Task {number} of {file} has several labels: {', '.join(map(repr, keys[:6]))}. Choose "
        f"one with ",
        choice(spec, "label", keys[0]),
        ".",
    )


def _base_name(image: str) -> str:
    """Return the base name of a path or an address, percent-encoding undone."""
    try:
        address = urlsplit(image)
        local = parse_qs(address.query).get("d")
    except ValueError:
        return image.rpartition("/")[2]
    path = local[0] if local else unquote(address.path)
    return path.replace("\\", "/").rpartition("/")[2]

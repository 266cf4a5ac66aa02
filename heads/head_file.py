"""The file of a trained head: safetensors, with a sealed description in its header.

    description   {"format", "sections": {section: {...}}}, sealed with the tensors as
                  `featcache.store.format.tensors` does

A section is named, and its tensors are `section/...`: `classifier` holds the method, its settings,
its facts where it has any (`heads.contract.facts`), classes and the key of its features, with
`classifier/params/NAME` and `classifier/fixed/NAME` in the order that it lists; `members`, where
the method is made of others, says of each member its method, version and settings, and its tensors
are `classifier/fixed/MEMBER/...`. Later versions may add sections. One that this program does not
know is skipped, unless it says `"required": true`.
`temperature` divides logits before softmax. `calibration` has scores of labelled rows that neither
trained nor selected the head (`heads.certainty.calibration`), part by part: `calibration/PART/NAME`
are the scores, sorted; where folds calibrated it, `calibration/PART/params/...` and `.../fixed/...`
are the head that was trained without the fold.

Every changed byte is detected. Nothing in the file can be executed.
"""

import math
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch

from featcache.errors import HeadError
from featcache.limits import HEAD
from featcache.paths import expand, read_regular
from featcache.store.format.files import write_atomically
from featcache.store.format.identity import parse_key
from featcache.store.format.tensors import compose, describe, load
from heads import registry
from heads.answering import checked, query_needs
from heads.certainty import calibration_file
from heads.certainty.calibration_file import tensor_of
from heads.contract.facts import facts_of, settings_of, with_facts
from heads.contract.rows import Tensors
from heads.contract.settings import hyper_values
from heads.fitted import Fitted
from heads.head import Head
from heads.results.overview import METADATA
from heads.selection.settings import configure

FORMAT = 1
CLASSIFIER, TEMPERATURE, MEMBERS = "classifier", "temperature", "members"
CALIBRATION = "calibration"
KNOWN = (CLASSIFIER, TEMPERATURE, MEMBERS, CALIBRATION)
CLASSES = 1_000_000
"""Largest number of classes of a head."""
WIDTH = 1_000_000
"""Longest rows that a head accepts."""


def pack(head: Head) -> bytes:
    """Return the bytes of a head's file; equal heads give equal bytes.

    Raises:
        HeadError: If the method is transductive, or the head does not know the length of its rows.
    """
    method, fitted = head.method, head.fitted
    if method.transductive:
        raise HeadError(
            f"'{method.name}' answers all queries together and learns nothing that answers one "
            f"alone, so it keeps no head."
        )
    if head.width is None:
        raise HeadError("This head does not say how long its rows are; make it with `fitted_head`.")
    named = {f"{CLASSIFIER}/params/{n}": t for n, t in fitted.params.items()}
    named |= {f"{CLASSIFIER}/fixed/{n}": t for n, t in fitted.fixed.items()}
    section = {
        "method": method.name,
        "version": method.version,
        "source": method.source,
        "config": settings_of(method, fitted.config),
        "hyper": hyper_values(fitted.hyper),
        "params": list(fitted.params),
        "fixed": list(fitted.fixed),
        "holds_training_features": list(head.holds),
        "classes": list(head.classes),
        "key": None if head.key is None else asdict(head.key),
        "dataset": head.dataset,
        "backbone": head.backbone,
        "texts": head.texts,
        "reads": list(head.reads),
        "about": dict(head.about),
    }
    if facts := facts_of(method, fitted.config):
        section["facts"] = facts
    sections = {
        CLASSIFIER: section,
        TEMPERATURE: {"value": head.temperature},
        **({MEMBERS: _members(head)} if head.members else {}),
    }
    if head.calibration is not None:
        sections[CALIBRATION], own = calibration_file.packed(head.calibration, CALIBRATION)
        named |= own
    return compose(named, METADATA, {"format": FORMAT, "sections": sections})


def _members(head: Head) -> dict[str, Any]:
    """Describe the members of a head; a program without this section has no such method."""
    return {
        member.label: {
            "method": member.name,
            "version": registry.get(member.name).version,
            "settings": dict(member.settings),
        }
        for member in head.members
    }


def write(head: Head, path: Path) -> Path:
    """Write a head to a file atomically.

    Raises:
        HeadError: If the method is transductive, or the file cannot be written.
    """
    path = expand(path)
    data = pack(head)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as error:
        raise HeadError(f"The head cannot be written to {path} ({error.strerror}).") from error
    return path


def read(path: Path) -> Head:
    """Read a head from a file.

    Raises:
        HeadError: If it cannot be read, is not what was written, or its method is not known here.
    """
    path = expand(path)
    try:
        data = read_regular(path, HEAD)
    except FileNotFoundError as error:
        raise HeadError(
            f"There is no file {path}. Name a file that `Head.save` wrote, or a run, as RUN@SEED "
            f"or `last`; `heads ls` shows the runs."
        ) from error
    except OSError as error:
        raise HeadError(f"{path} cannot be read ({error.strerror or error}).") from error
    return replace(unpack(data, str(path)), is_foreign=True)


def unpack(data: bytes, where: str) -> Head:
    """Read a head from the bytes of its file.

    Args:
        data: Content of the file.
        where: Name of the file in messages.

    Raises:
        HeadError: As `read`.
    """
    description = _described(data, where)
    try:
        tensors = load(data)
    except ValueError as error:
        raise _damaged(where) from error
    sections = description["sections"]
    for name, section in sections.items():
        if name not in KNOWN and section.get("required") is True:
            raise HeadError(
                f"{where} needs its part '{name}', which this version does not know. Upgrade "
                f"featcache to use it."
            )
    try:
        return _head(sections, tensors, where)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise HeadError(f"{where} is no head of this program ({error!r:.200}).") from error


def _described(data: bytes, where: str) -> dict[str, Any]:
    """Return the description after comparing every byte with its checksums."""
    try:
        description, is_whole = describe(data, METADATA)
        version, sections = description["format"], description["sections"]
    except (ValueError, KeyError) as error:
        raise _damaged(where) from error
    if not isinstance(version, int) or version > FORMAT:
        raise HeadError(
            f"{where} was written by a later version (format {version}, this program reads up to "
            f"{FORMAT}). Upgrade featcache to read it."
        )
    if (
        not is_whole
        or not isinstance(sections, dict)
        or not all(isinstance(s, dict) for s in sections.values())
    ):
        raise _damaged(where)
    return {"sections": sections}


def _head(sections: dict[str, Any], tensors: Tensors, where: str) -> Head:
    section = sections[CLASSIFIER]
    method = registry.get(section["method"])
    if section["version"] != method.version:
        raise HeadError(
            f"{where} holds version {section['version']} of {method.name}; this program has "
            f"version {method.version}, whose answers differ. Train it again."
        )
    names = {f.name for f in (*fields(method.config), *fields(method.hyper))}
    given = {**section["config"], **section["hyper"]}
    if set(given) != names:
        raise ValueError(f"its settings are {sorted(given)}, not {sorted(names)}")
    for part in ("params", "fixed", "classes", "reads"):
        if not isinstance(section[part], list):
            raise ValueError(f"its {part} are no list")
    settings = configure(method, {n: "none" if v is None else v for n, v in given.items()})
    config, facts = settings.config, dict(section.get("facts", {}))
    if facts:
        config = with_facts(method, config, facts)
    params, fixed = (
        {name: tensor_of(tensors, f"{CLASSIFIER}/{part}/{name}") for name in section[part]}
        for part in ("params", "fixed")
    )
    classes = tuple(map(str, section["classes"]))
    temperature, reads = float(sections[TEMPERATURE]["value"]), tuple(map(str, section["reads"]))
    if not 1 <= len(classes) <= CLASSES or not 0 < temperature < math.inf:
        raise ValueError("its classes or its temperature are out of range")
    about = dict(section["about"])
    if not (isinstance(about["width"], int) and 0 < about["width"] <= WIDTH):
        raise ValueError("the length of its rows is out of range")
    if not isinstance(about.get("weights") or "", str):
        raise ValueError("the name of its weights is no text")
    if not all(name.isprintable() for name in classes):
        raise ValueError("a class has a name that does not print")
    head = Head(
        fitted=Fitted(
            method=method,
            config=config,
            hyper=settings.hyper,
            params=params,
            fixed=fixed,
            claimed=len(classes),
        ),
        classes=classes,
        key=None if section["key"] is None else parse_key(section["key"]),
        dataset=str(section["dataset"]),
        backbone=str(section["backbone"]),
        texts=str(section["texts"]),
        reads=reads,
        temperature=temperature,
        about=about,
    )
    _check_members(head, sections.get(MEMBERS, {}), where)
    _check_shapes(head, head.fitted, where)
    if CALIBRATION not in sections:
        return head
    calibration = calibration_file.unpacked(
        sections[CALIBRATION], tensors, CALIBRATION, head.fitted
    )
    for fold in calibration.parts:
        if fold.fitted is not None:
            _check_shapes(head, fold.fitted, where)
    return replace(head, calibration=calibration)


def _check_members(head: Head, described: dict[str, Any], where: str) -> None:
    """Compare the members of a head with their description.

    Raises:
        HeadError: If this program has another version of a member.
        ValueError: If the description has other members.
    """
    now = _members(head)
    if now.keys() != described.keys():
        raise ValueError(f"its members are described as {sorted(described)}, not {sorted(now)}")
    for label, one in now.items():
        if described[label]["version"] != one["version"]:
            raise HeadError(
                f"{where} holds version {described[label]['version']} of its member "
                f"{one['method']}; this program has version {one['version']}, whose answers "
                f"differ. Train it again."
            )


def _check_shapes(head: Head, fitted: Fitted, where: str) -> None:
    """Answer one row where global features are enough, to find tensors of wrong shapes."""
    kinds = {need.kind for need in query_needs(head)}
    if kinds != {"global"} or head.width is None:
        return  # no row can be made up of what else it reads; `Fitted.chunks` checks its answers
    row = torch.zeros(1, head.width)
    row[0, 0] = 1
    try:
        fitted.logits(checked(head, row))
    except HeadError as error:
        raise HeadError(f"{where} cannot be used. ", *error.parts) from error


def _damaged(where: str) -> HeadError:
    return HeadError(
        f"{where} is no file of a head, or it is damaged. Name a file that `Head.save` or "
        f"`heads train` wrote; a damaged one has to be saved or trained again."
    )

"""A head to a folder: traced, written, checked, then put in place in one step."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from featcache.backbones.base import Backbone
from featcache.errors import HeadError, UsageError
from featcache.paths import expand
from featcache.store.format.outputs import making, not_written
from featcache.wording import Argument
from heads.answering import key_of_images
from heads.exporting.card import CARD, FACTS, card, facts_file, facts_of
from heads.exporting.checking import Comparison, check_pictures, check_rows
from heads.exporting.choice import check_format
from heads.exporting.formats import WRITERS, load_export_libraries
from heads.exporting.program import program_of
from heads.exporting.refusals import check_exportable, check_numpy, check_strippable
from heads.head import Head
from heads.results.record import Result


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written."""

    path: Path
    """The folder."""
    files: tuple[str, ...]
    linear: bool
    """Whether the head was folded into one matrix and one vector."""
    compared: tuple[Comparison, ...]
    notes: tuple[str, ...]
    """What a user of the files must know."""


def export(
    head: Head,
    to: str,
    out: Path | str,
    *,
    with_backbone: bool = False,
    strip: bool = False,
    result: Result | None = None,
) -> Exported:
    """Write a head for programs without featcache.

    Args:
        head: The head.
        to: onnx, torch (Python source and safetensors) or numpy (arrays; linear heads).
        out: Folder to make; nothing may be there yet.
        with_backbone: Take pixels: the image tower is part of the files. Not for numpy.
        strip: Refuse a head in whose files features of training images would be.
        result: Record of the run that kept the head, for the figures of the card.

    Raises:
        HeadError: If the method needs more than one feature vector an image, a library is missing,
            or the written files answer differently; then nothing is left in `out`.
        UsageError: If `out` exists, or the format or `strip` does not go with the head.

    Example:
        >>> import featcache, heads
        >>> head = heads.fit("ridge", featcache.open("fieldguide", "tiny"), shots=4)
        >>> written = heads.export(head, "numpy", "moths")
        >>> written.linear, sorted(written.files)
        (True, ['README.md', 'head.json', 'head.npz', 'predict.py'])
    """
    check_format(to, with_backbone=with_backbone)
    folder = expand(Path(out))
    if folder.exists() or folder.is_symlink():
        raise _exists(folder)
    head = head.to(torch.device("cpu"))
    check_exportable(head)
    if to == "onnx":
        load_export_libraries()
    backbone = _backbone(head) if with_backbone else None
    width = _width(head, backbone)
    tower, side = (None, 0) if backbone is None else (backbone.image_tower(), backbone.image_size)
    program = program_of(head, width, tower, side)
    linear = program.linear is not None
    if strip:
        check_strippable(head, linear=linear)
    if to == "numpy":
        check_numpy(head, linear=linear)
    facts, notes = facts_of(head, program, to), _notes(head, linear=linear)
    write, opened = WRITERS[to]
    try:
        with making(folder) as temporary:
            write(program, facts, temporary)
            run = opened(temporary)
            compared = (
                check_rows(head, width, run)
                if backbone is None
                else check_pictures(head, backbone, run)
            )
            (temporary / FACTS).write_bytes(facts_file(facts, compared))
            (temporary / CARD).write_bytes(card(head, facts, compared, notes, result).encode())
            shutil.rmtree(temporary / "__pycache__", ignore_errors=True)
            files = tuple(sorted(path.name for path in temporary.iterdir()))
    except FileExistsError as error:
        raise _exists(folder) from error
    except OSError as error:
        raise HeadError(*not_written(folder, error, Argument("out"))) from error
    return Exported(
        path=folder, files=files, linear=linear, compared=tuple(compared), notes=tuple(notes)
    )


def _exists(folder: Path) -> UsageError:
    return UsageError(f"{folder} exists. Name another folder with ", Argument("out"), ".")


def _width(head: Head, backbone: Backbone | None) -> int:
    if backbone is not None:
        return backbone.dim
    if head.width is None:
        raise HeadError(
            f"This head of {head.method.name} does not say how long its rows are. Train it again."
        )
    return head.width


def _backbone(head: Head) -> Backbone:
    """Load the backbone of a head in float32 on the CPU, and compare its key."""
    from featcache.backbones.registry import load_backbone

    instead = ("Export it without ", Argument("with_backbone"), ".")
    key = key_of_images(head, "which image tower makes its rows", *instead)
    backbone = load_backbone(
        head.backbone,
        weights=head.about.get("weights") or None,
        device="cpu",
        compute="fp32",
        image_size=key.image_size,
    )
    head.check_key(backbone.key, f"backbone {head.backbone} as it is here")
    return backbone


def _notes(head: Head, *, linear: bool) -> Sequence[str]:
    notes = []
    if linear:
        notes.append("The head is linear: it was folded into one matrix and one vector.")
    if head.holds and not linear:
        notes.append(
            f"The files hold features of training images ({', '.join(head.holds)}): whoever has "
            f"them can compare images with those."
        )
    return notes

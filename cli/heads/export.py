"""`heads export`: a trained head for programs without featcache."""

from pathlib import Path
from typing import Annotated

import typer

from cli.heads.asking import HeadBackbone, HeadWeights, OneHead, find_head
from cli.ui import output
from cli.ui.options import Json, Quiet, RunsDir
from cli.ui.which import head_text


def export(
    head: OneHead,
    to: Annotated[str, typer.Option(help="onnx, torch or numpy (linear heads).")] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="Folder to make.", show_default="METHOD-FORMAT")
    ] = None,
    with_backbone: Annotated[
        bool, typer.Option("--with-backbone", help="Take pixels: put the image tower before it.")
    ] = False,
    backbone: HeadBackbone = None,
    weights: HeadWeights = None,
    strip: Annotated[
        bool,
        typer.Option("--strip", help="Refuse files that hold features of training images."),
    ] = False,
    runs: RunsDir = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Write a head as ONNX, plain torch or NumPy, checked against the head, with a model card.

    \b
    Example: heads export last --to onnx --with-backbone
    Example: heads export 20261130T101500-ridge-1a2b3c@1 --to numpy
    """
    from featcache.errors import UsageError
    from heads.exporting.choice import check_format
    from heads.results import store
    from heads.results.named import LAST

    # What is wrong is told before torch is loaded.
    check_format(to, with_backbone=with_backbone)
    if out is not None and out.exists():
        raise UsageError(f"{out} exists. Name another folder with --out.")
    root, record = store.runs_root(runs), None
    if (named := find_head(head, runs)) is not None:
        record = store.load(store.find(root, named.run), predictions=False)

    import heads

    loaded = heads.load(named or head, root=root, backbone=backbone, weights=weights)
    if not quiet:
        output.say(head_text(loaded, named, is_last=head == LAST))
    written = heads.export(
        loaded,
        to,
        Path(f"{loaded.method.name}-{to}") if out is None else out,
        with_backbone=with_backbone,
        strip=strip,
        result=record,
    )
    if json_:
        output.emit_json(
            {
                "path": str(written.path),
                "files": list(written.files),
                "linear": written.linear,
                "compared": [one.to_json() for one in written.compared],
                "notes": list(written.notes),
            }
        )
    else:
        worst = max(written.compared, key=lambda one: one.difference / one.tolerance)
        output.emit(
            f"Wrote {', '.join(written.files)} to {written.path}; logits differ from "
            f"{worst.against} by at most {worst.difference:.1e} of the largest "
            f"({worst.tolerance:.0e} allowed)."
        )
    if not quiet:
        for note in written.notes:
            output.say(note)

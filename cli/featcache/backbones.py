"""`featcache backbones`: the models and their published weights."""

from typing import Annotated

import typer

from cli.ui import output, tables, units
from cli.ui.options import Json


def backbones(
    pattern: Annotated[
        str, typer.Argument(help="A name, which is described; else part of the names to list.")
    ] = "",
    json_: Json = False,
) -> None:
    """List the backbones and their published weights, or describe one of them.

    Example: featcache backbones ViT-B

    Example: featcache backbones ViT-B-16-SigLIP2
    """
    from featcache.backbones.locations import is_location
    from featcache.backbones.registry import backbones as known
    from featcache.errors import UnknownNameError

    if is_location(pattern) or pattern in {b.name for b in known()}:
        _describe(pattern, as_json=json_)
        return
    found = [b for b in known() if pattern.lower() in b.name.lower()]
    if not found:
        raise UnknownNameError("backbone", pattern, [b.name for b in known()])
    if json_:
        for b in found:
            output.emit_json(
                {
                    "name": b.name,
                    "architecture": b.architecture,
                    "weights": list(b.weights),
                    "default": b.default,
                    "image_size": b.image_size,
                    "dim": b.dim,
                    "gflops": b.gflops,
                    "patches": b.patches,
                }
            )
        return
    tables.emit_table(
        ("name", "image", "dim", "GFLOP", "patches", "weights"),
        [
            (
                b.name,
                str(b.image_size),
                str(b.dim),
                "" if b.gflops is None else f"{b.gflops:.1f}",
                "yes" if b.patches else "no",
                units.some(b.weights, most=4),
            )
            for b in found
        ],
        right=("image", "dim", "GFLOP"),
    )


def _describe(name: str, *, as_json: bool) -> None:
    from featcache.backbones.details import details

    b = details(name)
    if as_json:
        output.emit_json(b.to_json())
        return
    size = units.human_bytes
    patches = f"{b.patches} an image, as {', '.join(b.variants)}" if b.patches else "none"
    tokens = (
        f"none: it {b.no_tokens}" if b.no_tokens else f"last-block {size(b.token_bytes_an_image)}"
    )
    whole = "text model not on this machine" if b.parameters is None else f"{b.parameters:,}"
    tables.emit_table(
        (b.name, ""),
        [
            ("architecture", b.architecture),
            ("image", f"{b.image_size} x {b.image_size} px, {b.resize_mode}"),
            ("width", str(b.dim)),
            ("patches", patches),
            ("GFLOP an image", f"{b.gflops:.2f}"),
            ("parameters", f"{b.image_parameters:,} for images; {whole} in all"),
            ("bytes an image", f"{size(b.bytes_an_image)}, patches {size(b.patch_bytes_an_image)}"),
            ("tokens an image", tokens),
            ("tokenizer", b.tokenizer or "part of this installation"),
            ("default weights", b.default or "none: name some"),
        ],
    )
    if b.weights:
        output.emit("")
        download = "" if b.parameters is None else f"download about {size(4 * b.parameters)}"
        tables.emit_table(
            ("weights", "licence", "from", "here"),
            [
                (w.tag, w.licence, w.source, download or "no" if w.file is None else str(w.file))
                for w in b.weights
            ],
        )

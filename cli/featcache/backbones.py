"""`featcache backbones`: the models and their published weights."""

from typing import Annotated

import typer

from cli.ui import output, tables, units
from cli.ui.options import Json


def backbones(
    pattern: Annotated[str, typer.Argument(help="Only names that contain this.")] = "",
    json_: Json = False,
) -> None:
    """List the backbones and the weights that open_clip knows for them.

    Example: featcache backbones ViT-B
    """
    from featcache.backbones.registry import backbones as known
    from featcache.errors import UnknownNameError

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

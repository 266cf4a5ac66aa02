"""`heads list`: the methods."""

from typing import TYPE_CHECKING

from cli.ui import output, tables
from cli.ui.options import Json

if TYPE_CHECKING:
    from heads.registry import Description


def list_methods(json_: Json = False) -> None:
    """List the methods by group, what they read and where their equations come from.

    A method that answers queries together (transductive), or one after the other by those before
    (online), is never ranked with one that answers each query by itself.

    Example: heads list
    """
    from heads.registry import describe

    if json_:
        for item in describe():
            output.emit_json(
                {
                    "name": item.name,
                    "group": item.group,
                    "summary": item.summary,
                    "needs": list(item.needs),
                    "shots": _shots(item),
                    "transductive": item.transductive,
                    "source": item.source,
                }
            )
        return
    rows = [(d.group, d.name, d.summary, _reads(d), d.source) for d in describe()]
    columns = ("group", "method", "idea", "reads (? if there)", "source")
    tables.emit_table(
        columns, rows, spare=columns[-1:], whole=("method",), prose=columns[2:], by="group"
    )


def _shots(method: "Description") -> int | str | None:
    """Return the images a class without --shots; None where none are read."""
    if "support" not in method.needs:
        return None
    return "all" if method.usual_shots is None else method.usual_shots


def _reads(method: "Description") -> str:
    """Name what a method reads, and how many shots where these are all images."""
    shots = {"support": "support (all images)"} if _shots(method) == "all" else {}
    return ", ".join(shots.get(need, need) for need in method.needs)

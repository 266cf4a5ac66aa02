"""`heads list`: the methods."""

from cli.ui import output, tables
from cli.ui.options import Json


def list_methods(json_: Json = False) -> None:
    """List the methods, what they read and where their equations come from.

    Example: heads list
    """
    from heads.registry import describe

    if json_:
        for item in describe():
            output.emit_json(
                {
                    "name": item.name,
                    "summary": item.summary,
                    "needs": list(item.needs),
                    "transductive": item.transductive,
                    "source": item.source,
                }
            )
        return
    rows = [(d.name, d.summary, ", ".join(d.needs), d.source) for d in describe()]
    tables.emit_table(("method", "idea", "reads (? if there)", "source"), rows)

"""Results as Markdown. Control characters and line breaks in names are escaped."""

from collections.abc import Iterable

from featcache.escapes import shown
from heads.results.compare.compare import Group
from heads.results.render.cells import COLUMNS, cells, columns, notes


def to_markdown(groups: Iterable[Group]) -> str:
    """Write one table a group, its notes below."""
    parts = []
    for g in groups:
        lines = [_line(columns(g)), _line(["---"] * len(COLUMNS))]
        lines += [_line(row) for row in cells(g)]
        below = "\n".join(f"- {shown(note)}" for note in notes(g))
        parts.append(f"### {shown(g.title)}\n\n" + "\n".join(lines) + f"\n\n{below}\n")
    return "\n".join(parts)


def _line(values: Iterable[str]) -> str:
    return "| " + " | ".join(shown(v).replace("|", "\\|") for v in values) + " |"

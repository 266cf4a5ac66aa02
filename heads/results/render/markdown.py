"""Results as Markdown. Control characters and line breaks in names are escaped."""

from collections.abc import Iterable

from featcache.escapes import shown
from heads.results.compare.compare import Group
from heads.results.render.cells import cells, columns, notes


def to_markdown(groups: Iterable[Group], *, certainty: bool = False) -> str:
    """Write one table a group, its notes below; `certainty` as `cells.columns`."""
    parts = []
    for g in groups:
        head = columns(g, certainty=certainty)
        lines = [_line(head), _line(["---"] * len(head))]
        lines += [_line(row) for row in cells(g, certainty=certainty)]
        below = "\n".join(f"- {shown(note)}" for note in notes(g, certainty=certainty))
        parts.append(f"### {shown(g.title)}\n\n" + "\n".join(lines) + f"\n\n{below}\n")
    return "\n".join(parts)


def _line(values: Iterable[str]) -> str:
    return "| " + " | ".join(shown(v).replace("|", "\\|") for v in values) + " |"

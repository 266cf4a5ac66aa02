"""Write the parts of the method pages that follow from the code; the prose stays as it is.

    python docs/generate.py            write the pages anew
    python docs/generate.py --check    exit with 1 where a page is stale

A part stands between two comments, `<!-- equations -->` and `<!-- /equations -->`. A page of a
method has its equations, from the docstring of the module, and its settings, from Config and Hyper,
with its version and source below them; the index has the table of methods, and the page on exports
what each method gives.
"""

import ast
import importlib
import inspect
import re
import sys
import textwrap
import types
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from heads import registry
from heads.contract.linear import Linear, not_linear
from heads.contract.method import AnyMethod
from heads.contract.settings import Grid

PAGES = Path(__file__).parent / "methods"
COMMAND = "python docs/generate.py"


def main() -> int:
    """Write all pages, or name those that are stale."""
    stale = []
    for path, parts in contents().items():
        before = path.read_text(encoding="utf-8")
        after = filled(before, parts)
        if after != before:
            stale.append(path.name)
            if "--check" not in sys.argv[1:]:
                path.write_text(after, encoding="utf-8")
    if "--check" in sys.argv[1:] and stale:
        print(f"Stale: {', '.join(stale)}. Run: {COMMAND}")
        return 1
    return 0


def contents() -> dict[Path, dict[str, str]]:
    """Map each page to its parts by name."""
    methods = [registry.get(name) for name in registry.names()]
    pages = {
        PAGES / f"{m.name}.md": {
            "equations": equations(m),
            "settings": f"{settings(m)}\n\n**Version** {m.version}. **Source**: {m.source}.",
        }
        for m in methods
    }
    tables = {
        PAGES / "index.md": index(registry.describe()),
        PAGES.parent / "export.md": exported(methods),
    }
    return pages | {page: {"methods": table} for page, table in tables.items()}


def filled(page: str, parts: Mapping[str, str]) -> str:
    """Put parts between their comments.

    Raises:
        ValueError: If the page lacks a pair of comments.
    """
    for name, text in parts.items():
        pattern = re.compile(rf"<!-- {name} -->\n.*?<!-- /{name} -->", re.DOTALL)
        if len(pattern.findall(page)) != 1:
            raise ValueError(
                f"{page.splitlines()[0]}: expected one pair of <!-- {name} --> and "
                f"<!-- /{name} -->; add it where the {name} belong."
            )
        part = f"<!-- {name} -->\n\n{text}\n\n<!-- /{name} -->"
        page = pattern.sub(part.replace("\\", r"\\"), page)
    return page


def equations(method: AnyMethod) -> str:
    """Return the indented paragraphs that open the docstring of a method's module."""
    doc = inspect.getdoc(importlib.import_module(registry.modules()[method.name])) or ""
    paragraphs = doc.split("\n\n")[1:]
    shown = []
    for paragraph in paragraphs:
        if not paragraph.startswith("    "):
            break
        shown.append(paragraph)
    return "\n\n".join(shown)


def settings(method: AnyMethod) -> str:
    """Return the table of a method's settings."""
    rows = ["| setting | default | values | meaning |", "|---|---|---|---|"]
    grids = (method.train_grid, method.post_grid)
    for part in (method.hyper, method.config):
        hints, meant = get_type_hints(part), meanings(part)
        for field in fields(part):
            values = [allowed(field, hints[field.name]), *(searched(g, field.name) for g in grids)]
            shown = "; ".join(v for v in values if v).replace("|", r"\|")
            meaning = meant[field.name].replace("|", r"\|")
            rows.append(f"| `{field.name}` | {default(field)} | {shown} | {meaning} |")
    return "\n".join(rows) if len(rows) > 2 else "It has no settings."


def meanings(part: type) -> dict[str, str]:
    """Return the docstring of each field of a class and its bases.

    Raises:
        ValueError: If a field has none.
    """
    meant: dict[str, str] = {}
    for kind in reversed(part.__mro__[:-1]):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(tree, ast.ClassDef)
        for node, after in zip(tree.body, [*tree.body[1:], ast.Pass()], strict=True):
            if not isinstance(node, ast.AnnAssign):
                continue
            name = ast.unparse(node.target)
            if not (isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)):
                raise ValueError(f"{kind.__module__}: {name} has no docstring; write one below it.")
            meant[name] = " ".join(str(after.value.value).split())
    return meant


def default(field: Field[Any]) -> str:
    """Return a field's default as it is typed."""
    return "none" if field.default is None else f"`{typed(field.default)}`"


def typed(value: object) -> str:
    """Return a value as it is given to --set."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def allowed(field: Field[Any], hint: Any) -> str:
    """Say which values a field takes."""
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is Literal:
        return ", ".join(f"`{typed(v)}`" for v in get_args(hint))
    if hint is bool:
        return "`true`, `false`"
    low, high, above = (field.metadata.get(k, None) for k in ("low", "high", "above"))
    said = [
        word
        for bound, word in (
            (above, f"above {above}"),
            (low, f"at least {low}"),
            (high, f"at most {high}"),
        )
        if bound is not None and abs(bound) != float("inf")
    ]
    whole = ["whole"] if hint is int or field.metadata.get("whole") else []
    return ", ".join(re.sub(r"\.0\b", "", word) for word in [*whole, *said])


def searched(grid: Grid, name: str) -> str:
    """Say which values a search walks, all where they are few."""
    values: Sequence[float] = grid.axes.get(name, ())
    if not values:
        return ""
    if len(values) <= 11:
        return "searched: " + ", ".join(f"{v:g}" for v in values)
    return f"searched: {len(values)} from {min(values):g} to {max(values):g}"


def exported(methods: Sequence[AnyMethod]) -> str:
    """Return the table of what `heads export` makes of each method at its defaults."""
    lines = ["| method | export | training features in the file |", "|---|---|---|"]
    for method in methods:
        needs = method.needs(method.config())
        kinds = {need.kind for need in needs if need.role == "query" and not need.optional}
        more = ", ".join(sorted(kinds - {"global"}))
        returned = inspect.signature(method.linear).return_annotation
        may_not = method.linear is not not_linear and returned == Linear | None
        if method.transductive:
            way, held = "refused: answers queries together", ""
        elif more:
            way, held = f"refused: reads {more} of every image", ""
            way += "; folded with settings that read global features alone" if may_not else ""
        else:
            way = "traced" if method.linear is not_linear else "folded"
            way += " or traced, by its settings" if may_not else ""
            held = ", ".join(f"`{name}`" for name in method.holds) or "none"
        if method.composition is not None:
            held = "those of its members"
        lines.append(f"| [{method.name}](methods/{method.name}.md) | {way} | {held} |")
    return "\n".join(lines)


def index(methods: Sequence[registry.Description]) -> str:
    """Return the table of all methods, group by group."""
    rows = ["| method | group | what it is | fidelity |", "|---|---|---|---|"]
    for method in methods:
        fidelity = re.split(r"[,:]| at ", method.source)[0]
        cells = (f"[{method.name}]({method.name}.md)", method.group, method.summary, fidelity)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())

"""Rendering of pages: self-contained HTML, safe whatever names and texts it shows.

Templates escape everything that they print. The page may load nothing: its policy allows the one
style that is inside, images inside the page, and no script.
"""

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from featcache.escapes import shown

TEMPLATES = Path(__file__).parent / "templates"
STYLE = "style.css"


def render(template: str, **values: Any) -> str:
    """Render a template that extends page.html.

    Args:
        template: Name of the file.
        values: What the template prints. Texts may come from anywhere: control characters are
            shown as escapes and markup as text.
    """
    style = _style()
    return (
        _environment().get_template(template).render(style=style, policy=_policy(style), **values)
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )


def _printable(value: Any) -> Any:
    """Escape control characters and surrogates, which UTF-8 cannot hold; markup stays."""
    return shown(value, keep="\n") if type(value) is str else value


@cache
def _style() -> Markup:
    return Markup((TEMPLATES / STYLE).read_text(encoding="utf-8"))


def _policy(style: str) -> str:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )

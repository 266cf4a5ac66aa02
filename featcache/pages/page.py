"""Rendering of pages: self-contained HTML, safe whatever names and texts it shows.

Templates escape everything that they print. The page may load nothing: its policy allows the one
style that is inside, images inside the page, and no script, or the one script that is inside.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from featcache.escapes import shown

TEMPLATES = Path(__file__).parent / "templates"
STYLE = "style.css"


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page, and what it may do."""

    html: str
    policy: str
    """Its Content-Security-Policy, which is in the page, too."""


def render(template: str, **values: Any) -> str:
    """Render a template that extends page.html.

    Args:
        template: Name of the file.
        values: What the template prints. Texts may come from anywhere: control characters are
            shown as escapes and markup as text.
    """
    return page(template, **values).html


def page(template: str, *, styles: Sequence[str] = (), script: str = "", **values: Any) -> Page:
    """Render a template that extends page.html, with files of its own.

    Args:
        template: Name of the file.
        styles: Names of style sheets that follow the common one.
        script: Name of a script that may ask the server which the page came from, and show images
            that it was given; empty for a page without one.
        values: As `render`.
    """
    style = Markup("").join(_file(name) for name in (STYLE, *styles))
    code = _file(script) if script else Markup("")
    policy = _policy(style, code)
    html = (
        _environment()
        .get_template(template)
        .render(style=style, script=code, policy=policy, **values)
    )
    return Page(html=html, policy=policy)


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
def _file(name: str) -> Markup:
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def _policy(style: str, script: str) -> str:
    parts = ["default-src 'none'", "img-src data:", f"style-src {_digest(style)}"]
    parts += ["base-uri 'none'", "form-action 'none'"]
    if script:
        parts[1] += " blob:"  # images that the visitor chose, before they are sent
        parts += [f"script-src {_digest(script)}", "connect-src 'self'"]
        parts += ["require-trusted-types-for 'script'", "trusted-types 'none'"]
    return "; ".join(parts)


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

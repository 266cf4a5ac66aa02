import importlib
import re
from pathlib import Path

import pytest

from docs import generate
from heads import registry

ROOT = Path(__file__).parents[3]
FILES = sorted(p.stem for p in (ROOT / "heads" / "methods").glob("*.py") if p.stem != "__init__")
CONTENTS = generate.contents()


def test_every_method_file_is_registered() -> None:
    assert sorted(m.rsplit(".", 1)[1] for m in registry.modules().values()) == FILES


@pytest.mark.parametrize("name", registry.names())
def test_a_method_says_who_it_is(name: str) -> None:
    method = registry.get(name)
    assert method.name == name
    assert method.summary.endswith(".")
    assert "\n" not in method.summary
    doc = importlib.import_module(registry.modules()[name]).__doc__ or ""
    assert "Reference:" in doc
    assert "Source:" in doc
    assert "Differs from the paper:" in doc
    assert any(w in doc.partition("Source:")[2] for w in ("paper", "released", "reconstruction"))


@pytest.mark.parametrize("name", registry.names())
def test_a_method_has_its_docs_page(name: str) -> None:
    page = (ROOT / "docs" / "methods" / f"{name}.md").read_text()
    assert f"heads train {name}" in page
    for setting in [*registry.get(name).config.__dataclass_fields__]:
        assert f"`{setting}`" in page
    for setting in [*registry.get(name).hyper.__dataclass_fields__]:
        assert f"`{setting}`" in page
    assert f"**Version** {registry.get(name).version}." in page
    assert "**Source**: " in page
    assert re.search(r"\*\*(Figures|Measured)|benchmarks\.md", page)
    assert f"({name}.md)" in (ROOT / "docs" / "methods" / "index.md").read_text()


@pytest.mark.parametrize("path", CONTENTS, ids=lambda path: path.name)
def test_what_a_page_takes_from_the_code_is_up_to_date(path: Path) -> None:
    page, parts = path.read_text(), CONTENTS[path]
    assert generate.filled(page, parts) == page, f"run: {generate.COMMAND}"


def test_a_page_without_its_comments_is_told() -> None:
    with pytest.raises(ValueError, match="one pair of <!-- settings -->"):
        generate.filled("# knn\n", {"settings": ""})

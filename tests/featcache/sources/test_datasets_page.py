"""The page about data sets says what their descriptions say."""

from pathlib import Path

from featcache.sources.datasets_page import page
from featcache.sources.named import datasets

DOCS = Path(__file__).parents[3] / "docs"


def test_the_page_is_up_to_date() -> None:
    assert (DOCS / "datasets.md").read_text("utf-8") == page(), (
        "write it again: python -m featcache.sources.datasets_page > docs/datasets.md"
    )


def test_every_data_set_and_every_count_is_on_it() -> None:
    text = page()
    for data in datasets():
        if data.kind == "listed":
            assert f"\n## {data.name}\n" in text
            for scheme in data.splits.values():
                assert all(f"{count:,}" in text for count in scheme.counts.values())

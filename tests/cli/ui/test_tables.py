"""Tables for people: what fits a window, and what stands in every window."""

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.featcache.ls import list_caches
from cli.ui.tables import emit_table, fitting, prose_widths
from heads.results.render import cells

COLUMNS = ("method", "top-1 %", "seconds", "source")
ROWS = [("tip-adapter", "82.0 ± 1.8", "0.1", "paper, released code")]  # 14, 13, 10 and 23 wide


@pytest.mark.parametrize(
    ("width", "kept"),
    [
        (59, ["method", "top-1 %", "seconds", "source"]),
        (58, ["method", "top-1 %", "seconds"]),
        (36, ["method", "top-1 %", "seconds"]),
        (35, ["method", "top-1 %"]),
        (5, ["method", "top-1 %"]),
    ],
)
def test_spare_columns_go_in_their_order(width: int, kept: list[str]) -> None:
    assert fitting(COLUMNS, ROWS, ("source", "seconds"), width) == kept


def test_a_column_that_went_before_a_wider_one_comes_back() -> None:
    spare = ("seconds", "source")
    assert fitting(COLUMNS, ROWS, spare, 58) == ["method", "top-1 %", "source"]
    assert fitting(COLUMNS, ROWS, spare, 36) == ["method", "top-1 %", "seconds"]  # room for one
    assert fitting(COLUMNS, ROWS, spare, 35) == ["method", "top-1 %"]


def test_a_column_without_an_entry_goes_first() -> None:
    columns = ("image", "prediction", "then", "label")
    rows = [("a.jpg", "red fox", "wolf 20.0, dog 10.0", "")]  # 8, 13, 22 and 8 wide
    assert fitting(columns, rows, ("then",), 50) == list(columns)
    assert fitting(columns, rows, ("then",), 49) == ["image", "prediction", "then"]
    assert fitting(columns, rows, ("then",), 41) == ["image", "prediction", "label"]
    known = [(*rows[0][:3], "red fox")]  # 10 wide
    assert fitting(columns, known, ("then",), 49) == ["image", "prediction", "label"]


def test_prose_shares_the_room_that_is_left_and_breaks_no_word() -> None:
    columns = ("method", "idea", "reads")
    rows = [("gda", "one discriminant of texts and shots", "query, support")]
    widths = [
        prose_widths(columns, columns, rows, columns[1:], width) for width in (32, 33, 40, 99)
    ]
    assert widths == [
        {},  # the longest words do not fit side by side
        {"idea": 12, "reads": 7},
        {"idea": 13, "reads": 13},
        {"idea": 35, "reads": 14},
    ]
    assert fitting(columns, rows, ("reads",), 33, columns[1:]) == list(columns)
    assert fitting(columns, rows, ("reads",), 32, columns[1:]) == ["method", "idea"]


@pytest.mark.parametrize("width", [20, 30, 60])
def test_names_are_whole_where_they_fit_and_never_cut(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    window: Any = Window()
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys, "stdout", window)
    emit_table(
        ("run", "method"), [("20261201-tip-adapter", "tip-adapter")], whole=("run", "method")
    )
    monkeypatch.undo()
    lines = re.sub(r"\x1b\[[0-9;]*m", "", window.getvalue()).splitlines()
    assert max(map(len, lines)) <= width
    first = lines[1].index("method")
    shown = ["".join(line[part].strip() for line in lines[3:]) for part in
             (slice(first), slice(first, None))]  # fmt: skip
    assert shown == ["20261201-tip-adapter", "tip-adapter"]
    assert ("20261201-tip-adapter   tip-adapter" in window.getvalue()) == (width == 60)


class Window(io.StringIO):
    def isatty(self) -> bool:
        return True


MARKED = (
    "transclip (transductive)",
    "cmm (oracle)",
    "gda [text=cupl] (older texts)",
    "tip-adapter-f [alpha=1 beta=5.5] (stored draw, unsealed)",
    "cmm (seeds 1-2)",
)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_mark_of_honesty_stands_in_every_window(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    row = ("82.0 ± 1.8", "3", "82.0", "82.1", "+4.0 [+2.2, +5.8] not shown (a)", "0.1", "few_shot",
           "few-shot-val", "paper, released code", "views")  # fmt: skip
    window: Any = Window()
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys, "stdout", window)
    rows = [(name, *row) for name in MARKED]
    emit_table(cells.COLUMNS, rows, right=("seconds",), spare=cells.SPARE)
    monkeypatch.undo()
    lines = re.sub(r"\x1b\[[0-9;]*m", "", window.getvalue()).splitlines()
    assert max(map(len, lines)) <= width
    (rule,) = [i for i, line in enumerate(lines) if line.strip().startswith("─")]
    first = next(line for line in lines if line.strip().startswith("method")).index("top-1")
    shown = "".join(line[:first] for line in lines[rule + 1 :])
    whole = "".join(shown.split())
    assert all("".join(name.split()) in whole for name in MARKED)
    if width >= 60:  # in whole words
        assert all(word in shown.split() for name in MARKED for word in name.split())
    for figure in row[:2]:
        assert "".join("".join(lines).split()).count("".join(figure.split())[:4]) >= len(MARKED)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_ls_never_cuts_what_names_a_cache(
    featcache: Any, home: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    key = json.loads(featcache("ls", "--json").out)["key"]
    window: Any = Window()
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys, "stdout", window)
    list_caches()
    monkeypatch.undo()
    shown = re.sub("\x1b\\[[0-9;]*m", "", window.getvalue())
    assert "\u2026" not in shown
    assert any({"blobs", "tiny", key} <= set(line.split()) for line in shown.splitlines())
    assert max(map(len, shown.splitlines())) <= width
    assert ("views.rrc50-2" in shown) == (width == 200)

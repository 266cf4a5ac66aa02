"""The worked example of docs/add-a-method.md is a method like any other, in few lines."""

import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from docs import generate
from featcache.types import FeatureSet
from heads import methods, registry
from heads.contract.method import AnyMethod
from tests.heads.methods import test_battery as battery
from tests.heads.toy_tasks import make_task, rich_world

PAGE = Path(__file__).parents[3] / "docs" / "add-a-method.md"
FILES = dict(re.findall(r"^`(\S+)`\n\n```\w+\n(.*?)^```$", PAGE.read_text(), re.S | re.M))
MODULE, TEST, DOCS = FILES
MOST = 70
"""Lines of a method that is not more than a few equations: module, test and page."""
CHECKS = [name for name in vars(battery) if name.startswith("test_")]


@pytest.fixture(scope="module")
def features() -> FeatureSet:
    return rich_world()


def load(folder: Path, file: str, name: str) -> ModuleType:
    path = folder / Path(file).name
    path.write_text(FILES[file])
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Register the example as if its file were there."""
    made = load(tmp_path, MODULE, "heads.methods.class_offsets")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    monkeypatch.setattr(methods, "class_offsets", made, raising=False)
    known = {**registry.modules(), "class-offsets": made.__name__}
    monkeypatch.setattr(registry, "modules", lambda: known)
    return made


@pytest.fixture
def method(module: ModuleType) -> AnyMethod:
    return registry.get("class-offsets")


def test_it_is_short() -> None:
    assert [Path(file).suffix for file in FILES] == [".py", ".py", ".md"]
    assert sum(len(text.splitlines()) for text in FILES.values()) <= MOST


@pytest.mark.parametrize("check", CHECKS)
def test_it_keeps_the_contract(check: str, method: AnyMethod, features: FeatureSet) -> None:
    test: Callable[..., None] = getattr(battery, check)
    given = {"method": method, "task": make_task(features, method), "features": features}
    test(**{name: given[name] for name in inspect.signature(test).parameters})


def test_its_own_test_passes(module: ModuleType, tmp_path: Path, toy: Any) -> None:
    own = load(tmp_path, TEST, "test_class_offsets")
    (test,) = (value for name, value in vars(own).items() if name.startswith("test_"))
    test(toy)


def test_its_settings_are_found_and_its_page_is_filled(
    module: ModuleType, method: AnyMethod, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [f"`{name}`" in generate.settings(method) for name in ("text", "none")] == [True, False]
    parts = {"equations": generate.equations(method), "settings": generate.settings(method)}
    page = generate.filled(FILES[DOCS], parts)
    assert "logits = s x T^T + b + o" in page
    assert "| `text` | none |" in page
    assert "class-offsets.md" in generate.index([registry.description(method)])

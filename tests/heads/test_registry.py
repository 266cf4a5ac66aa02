"""Names of methods follow from the names of their files, and nothing else lists them."""

import importlib
from pathlib import Path

import pytest

from featcache.errors import UnknownNameError
from heads import registry
from heads.contract.method import Method


@pytest.mark.parametrize(("name", "module"), registry.modules().items())
def test_a_method_is_called_as_its_file_says(name: str, module: str) -> None:
    method = importlib.import_module(module).METHOD
    assert isinstance(method, Method)
    assert method.name == name == registry.name_of(module.rpartition(".")[2])
    assert registry.get(name) is method


@pytest.mark.parametrize(
    ("stem", "name"),
    [("ridge", "ridge"), ("tip_adapter_f", "tip-adapter-f"), ("lp_plus_plus", "lp++")],
)
def test_a_name_is_its_files_with_other_signs(stem: str, name: str) -> None:
    assert registry.name_of(stem) == name


def test_a_file_is_all_that_a_new_method_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in ("new_plus.py", "old_one.py", "__init__.py", "_shared.py", "notes.txt"):
        (tmp_path / file).touch()
    monkeypatch.setattr(registry, "files", lambda package: tmp_path)
    found = registry.modules.__wrapped__()
    assert found == {"new+": "heads.methods.new_plus", "old-one": "heads.methods.old_one"}


def test_an_unknown_name_lists_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'ridge'"):
        registry.get("rigde")

"""Examples are run: those in the docstrings of what is public, and docs/python.md."""

import doctest
import inspect
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import featcache
import heads
from featcache.sources.fieldguide import world

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]
COUNTS = {"train": 8, "val": 4, "test": 4}
"""Images of each species; drawing and encoding all takes a minute."""
PAGE = ROOT / "docs" / "python.md"


@pytest.fixture(scope="module")
def small_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a cache of a small fieldguide."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, home)
        featcache.extract("fieldguide", "tiny")
    return home


@pytest.fixture
def here(small_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of an example; of the home they add to the runs alone."""
    shrink(monkeypatch, small_home)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shrink(patch: pytest.MonkeyPatch, home: Path) -> None:
    patch.setattr(world, "open_world", partial(world.open_world, counts=COUNTS))
    patch.setenv("FEATCACHE_HOME", str(home))


def public() -> dict[str, Any]:
    found = {
        f"{package.__name__}.{name}": getattr(package, name)
        for package in (featcache, heads)
        for name in package.__all__
    }
    methods = inspect.getmembers(heads.Head, inspect.isfunction)
    return found | {f"Head.{name}": m for name, m in methods if not name.startswith("_")}


@pytest.mark.parametrize("name", public())
def test_the_example_of_everything_public(name: str, here: Path) -> None:
    thing: Any = public()[name]
    module = inspect.getmodule(thing)
    assert module is not None
    finder = doctest.DocTestFinder(recurse=False)
    (test,) = finder.find(thing, name, module=module, globs=dict(vars(module)))
    assert test.examples, f"{name} has no example"
    said: list[str] = []
    doctest.DocTestRunner().run(test, out=said.append)
    assert said == []
    assert {path.name for path in here.iterdir()} <= {"moths.head", "moths"}


def test_the_page_on_python(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 15
    names: dict[str, Any] = {}
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
    assert {path.name for path in here.iterdir()} == {"moths.head", "plain.head"}
    assert "ridge" in capsys.readouterr().out


@pytest.mark.parametrize("package", ["featcache", "heads"])
def test_importing_a_package_loads_no_torch(package: str) -> None:
    script = (
        f"import sys, {package}\n"
        "heavy = {'torch', 'numpy', 'h5py', 'PIL', 'sklearn', 'open_clip', 'faiss', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        f"print(set({package}.__all__) <= set(dir({package})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout.splitlines() == ["[]", "True"]


def test_the_estimator_does_not_load_scikit_learn() -> None:
    script = (
        "import sys, heads\n"
        "model = heads.Estimator('ridge').fit([[0., 1.], [1., 0.]], ['a', 'b'])\n"
        "model.predict([[1., 2.]])\n"
        "print('sklearn' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout == "False\n"

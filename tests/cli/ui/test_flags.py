"""What the library says of arguments, the command line says of flags, word for word as ever."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cli.ui.errors import text_of
from cli.ui.flags import COMMANDS, in_flags
from featcache.backbones.devices import pick_device
from featcache.bank import TextBank
from featcache.errors import FeatcacheError, UsageError
from featcache.paths import check_folder
from featcache.store.again import command
from featcache.wording import Argument, Call, Part, Placeholder, Setting
from heads.registry import get
from heads.results.store import runs_root
from heads.selection.settings import configure


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (Argument("strict_shots"), "--strict-shots"),
        (Argument("strict_shots", True), "--strict-shots"),
        (Argument("selection", "cv"), "--selection cv"),
        (Argument("templates", Placeholder("FILE")), "--templates FILE"),
        (Argument("compiled"), "--compile"),
        (Argument("root"), "--cache"),
        (Argument("root", of="heads"), "--runs"),
        (Setting("lr"), "--set lr"),
        (Setting("lr", "1e-4"), "--set lr=1e-4"),
        (
            Call("featcache.extract", {"dataset": "a b", "view_patches": ["4", "4:cdfsl@test"]}),
            "featcache extract --dataset 'a b' --view-patches 4 --view-patches 4:cdfsl@test",
        ),
        (Call("featcache.extract", {"moved": True}), "featcache extract --moved"),
        (
            Call(
                "heads.evaluate",
                {"method": Placeholder("METHOD"), "cache": Placeholder("cache"), "shots": None},
            ),
            "heads train METHOD --shots all",
        ),
        (
            Call(
                "heads.evaluate",
                {
                    "method": Placeholder("METHOD"),
                    "cache": Call("featcache.open", {"dataset": "my bugs"}),
                },
            ),
            "heads train METHOD --dataset 'my bugs'",
        ),
        (
            Call("heads.evaluate", {"method": "knn", "k": Setting("k", "1,3"), "split": "test"}),
            "heads train knn --set k=1,3 --split test",
        ),
        (
            Call(
                "featcache.importers.npz.import_npz",
                {"path": Placeholder("FILE"), "name": "my bugs", "root": "/c"},
            ),
            "featcache import npz FILE --name 'my bugs' --cache /c",
        ),
        (
            Call("featcache.store.removal.remove", {"root": "/c", "path": "/c/bugs/ViT-B-32-0a1b"}),
            "featcache rm bugs --key 0a1b --cache /c",
        ),
    ],
)
def test_what_is_said_to_who_types_commands(part: Part, said: str) -> None:
    assert in_flags([part]) == said
    assert text_of(UsageError("Use ", part, ".")) == f"Use {said}."


def test_a_strangers_value_is_quoted_and_escaped() -> None:
    call = Call("featcache.extract", {"dataset": "a; rm -rf \x1b[2J"})
    said = "featcache extract --dataset 'a; rm -rf \\x1b[2J'"
    assert text_of(FeatcacheError(call)) == said


def test_the_notes_of_a_record_name_the_same_command() -> None:
    wanted = {"dataset": "a b", "backbone": "B", "weights": "w", "root": "/x", "views": ["4", "5"]}
    call = Call("featcache.extract", {**wanted, "view_patches": ["10@few-shot(6,seeds=1-5)"]})
    assert command(call) == in_flags([call])


@pytest.mark.parametrize("program", ["featcache", "heads"])
def test_a_command_that_is_named_has_those_flags(program: str) -> None:
    """A flag that is made from an argument's name must be one of the command's."""
    from importlib import import_module

    import typer

    group = typer.main.get_command(import_module(f"cli.{program}.app").app)
    for function, (name, *sub) in COMMANDS.items():
        if name == program and len(sub) == 1:
            known = {option for param in group.commands[sub[0]].params for option in param.opts}  # type: ignore[attr-defined]
            given = ["dataset", "backbone", "weights", "root", "views", "crops", "patches"]
            given = [*given, "view_patches"] if program == "featcache" else ["shots", "selection"]
            for argument in given:
                assert in_flags([Argument(argument)]) in known, (function, argument)


def test_sentences_of_the_library(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    bank = TextBank(classes=("a",), names=torch.ones(1, 2), templates=(), template_rows=None)
    cases: list[tuple[Callable[[], object], str, str]] = [
        (
            lambda: runs_root(tmp_path / "file"),
            f"{tmp_path}/file is a file, not a folder. Choose another with --runs.",
            f"{tmp_path}/file is a file, not a folder. Choose another with root.",
        ),
        (
            lambda: check_folder(tmp_path / "file" / "below", Argument("root")),
            f"{tmp_path}/file is a file, not a folder. Choose another with --cache.",
            f"{tmp_path}/file is a file, not a folder. Choose another with root.",
        ),
        (
            lambda: check_folder(tmp_path / "file", "$FEATCACHE_HOME or ", Argument("root")),
            f"{tmp_path}/file is a file, not a folder. Choose another with $FEATCACHE_HOME or "
            f"--cache.",
            f"{tmp_path}/file is a file, not a folder. Choose another with $FEATCACHE_HOME or "
            f"root.",
        ),
        (
            lambda: configure(get("cmm"), {"lr": "-1"}),
            "cmm's setting lr must be a number above 0, got '-1'; write e.g. --set lr=",
            "cmm's setting lr must be a number above 0, got '-1'; write e.g. lr=",
        ),
        (
            lambda: bank.anchors("cupl"),
            "This cache holds no texts of kind 'cupl' for every class; it has: name. Choose one "
            "with --set text=..., or extract again with --cupl FILE.json, "
            "which holds {class: [text, ...]} for every class.",
            "This cache holds no texts of kind 'cupl' for every class; it has: name. Choose one "
            "with text=..., or extract again with cupl=FILE.json, which "
            "holds {class: [text, ...]} for every class.",
        ),
        (lambda: pick_device("tpu"), "Device 'tpu' cannot be used", "Device 'tpu' cannot"),
    ]
    for act, typed, called in cases:
        with pytest.raises(FeatcacheError) as caught:
            act()
        assert text_of(caught.value).startswith(typed)
        assert str(caught.value).startswith(called)
    assert text_of(caught.value).endswith("Use --device cpu, or --device auto.")
    assert str(caught.value).endswith("Use device='cpu', or device='auto'.")

"""Help is instant: it loads none of the heavy libraries, and every command shows an example."""

import json
import subprocess
import sys
from functools import cache
from typing import Any

import pytest

HEAVY = ("torch", "numpy", "h5py", "open_clip", "torchvision", "PIL", "ot", "faiss", "rich")
COMMANDS = {
    "featcache": ["", "extract", "ls", "info", "search", "text", "verify", "repair", "rm", "gc",
                  "export", "datasets", "backbones", "doctor", "import", "import npz", "import npy",
                  "import parquet",
                  "import tip-adapter", "import transclip", "import cross-modal",
                  "import lpclip", "import clip-benchmark", "import clip-retrieval",
                  "corpus", "corpus build", "corpus ls", "corpus info", "corpus rm",
                  "index", "index build", "index add", "index ls", "index rm", "index verify"],
    "heads": ["", "train", "list", "compare", "predict", "export", "serve", "ls", "info",
              "rm"],
}  # fmt: skip


SCRIPT = """
import contextlib, io, json, sys
from importlib import import_module
program, commands, heavy = json.loads(sys.argv[1])
main = import_module(f"cli.{program}.app").main
for command in commands:
    sys.argv = [program, *command.split(), "--help"]
    out, code = io.StringIO(), None
    with contextlib.redirect_stdout(out):
        try:
            main()
        except SystemExit as stop:
            code = stop.code
    loaded = [m for m in heavy if m in sys.modules]
    print(json.dumps({"help": out.getvalue(), "loaded": loaded, "code": code}))
    if loaded:
        break
"""


@cache
def helps(program: str) -> dict[str, dict[str, Any]]:
    """Ask for the help of one command after the other in a fresh process.

    What a command loads, is loaded for those after it, which therefore are not asked.
    """
    given = json.dumps([program, COMMANDS[program], HEAVY])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, given], capture_output=True, text=True, check=True
    )
    return dict(zip(COMMANDS[program], map(json.loads, done.stdout.splitlines()), strict=False))


@pytest.mark.parametrize("program", COMMANDS)
def test_help_is_light_and_has_an_example(program: str) -> None:
    answers = helps(program)
    for command, answer in answers.items():
        assert answer["code"] in (0, None), command
        assert answer["loaded"] == [], command
        assert "Example:" in answer["help"], command
    assert list(answers) == COMMANDS[program]


def test_every_command_is_listed_here() -> None:
    for program, commands in COMMANDS.items():
        shown = str(helps(program)[""]["help"])
        names = {
            line.split()[0]
            for line in shown.partition("Commands:")[2].splitlines()
            if line.startswith("  ") and not line.startswith("   ")
        }
        assert names == {c.split()[0] for c in commands if c}

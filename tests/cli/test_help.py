"""Help is instant: it loads none of the heavy libraries, and every command shows an example."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "h5py", "open_clip", "torchvision", "PIL", "ot", "faiss", "rich")
COMMANDS = {
    "featcache": ["", "extract", "ls", "info", "search", "text", "verify", "repair", "rm",
                  "export", "datasets", "backbones", "doctor", "import", "import npz", "import npy",
                  "import parquet",
                  "import tip-adapter", "import transclip", "import cross-modal",
                  "import lpclip", "import clip-benchmark", "import clip-retrieval",
                  "corpus", "corpus build", "corpus ls", "corpus info", "corpus rm",
                  "index", "index build", "index add", "index ls", "index rm", "index verify"],
    "heads": ["", "train", "list", "compare", "export"],
}  # fmt: skip


def run_help(program: str, command: str) -> dict[str, object]:
    code = (
        "import json, sys, io, contextlib\n"
        f"sys.argv = {[program, *command.split(), '--help']!r}\n"
        "out = io.StringIO()\n"
        "from importlib import import_module\n"
        f"main = import_module('cli.{program}.app').main\n"
        "with contextlib.redirect_stdout(out):\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as stop:\n"
        "        code = stop.code\n"
        f"loaded = [m for m in {HEAVY!r} if m in sys.modules]\n"
        "print(json.dumps({'help': out.getvalue(), 'loaded': loaded, 'code': code}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize(
    ("program", "command"), [(p, c) for p, commands in COMMANDS.items() for c in commands]
)
def test_help_is_light_and_has_an_example(program: str, command: str) -> None:
    answer = run_help(program, command)
    assert answer["code"] in (0, None)
    assert answer["loaded"] == []
    assert "Example:" in str(answer["help"])


def test_every_command_is_listed_here() -> None:
    for program, commands in COMMANDS.items():
        shown = str(run_help(program, "")["help"])
        names = {
            line.split()[0]
            for line in shown.partition("Commands:")[2].splitlines()
            if line.startswith("  ") and not line.startswith("   ")
        }
        assert names == {c.split()[0] for c in commands if c}

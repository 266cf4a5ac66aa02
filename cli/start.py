"""Entry points of both commands; an interruption while they load gives no traceback.

Only fast modules are imported here; everything else is loaded inside the `try`.
"""

import sys
from importlib import import_module

INTERRUPTED = 130
"""The exit code, as everywhere in the shell."""


def featcache() -> None:
    """Run `featcache`."""
    _run("cli.featcache.app")


def heads() -> None:
    """Run `heads`."""
    _run("cli.heads.app")


def _run(module: str) -> None:
    try:
        import_module(module).main()
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        sys.exit(INTERRUPTED)

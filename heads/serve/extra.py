"""The packages of the extra `serve`."""

from importlib.util import find_spec

from featcache.errors import FeatcacheError

MODULES = ("fastapi", "uvicorn", "python_multipart")


def check() -> None:
    """Tell whether the packages are there, without loading them.

    Raises:
        FeatcacheError: If one is missing.
    """
    missing = [name for name in MODULES if find_spec(name) is None]
    if missing:
        raise FeatcacheError(
            f"Serving needs {', '.join(missing)}, which is not installed. Install it with: "
            f"pip install 'featcache[serve]'"
        )

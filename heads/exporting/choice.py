"""The formats by name; read before torch is loaded, so that a wrong word is told at once."""

from featcache.errors import UnknownNameError, UsageError
from featcache.wording import Argument

FORMATS = ("onnx", "torch", "numpy")
"""Formats by name; `heads.exporting.formats` writes them."""


def check_format(to: str, *, with_backbone: bool) -> None:
    """Refuse unknown formats, and arrays with a tower.

    Raises:
        UnknownNameError: If there is no such format.
        UsageError: If an image tower is to be written as arrays.
    """
    if to not in FORMATS:
        raise UnknownNameError("format", to, FORMATS)
    if to == "numpy" and with_backbone:
        raise UsageError(
            "An image tower is no matrix, so ",
            Argument("to", "numpy"),
            " has none. Leave ",
            Argument("with_backbone"),
            " out, or use ",
            Argument("to", "onnx"),
            ".",
        )

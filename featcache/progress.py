"""How long work tells how far it is."""

from collections.abc import Callable
from typing import TypeAlias

Report: TypeAlias = Callable[[str, int, int], None]
"""Called with (what is being done, how much is done, of how much); from any thread, often."""

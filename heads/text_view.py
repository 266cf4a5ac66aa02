"""The class texts as a method may see them."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int64
from torch import Tensor


@runtime_checkable
class TextView(Protocol):
    """The class texts as a method may see them; `featcache.types.TextBank` is one."""

    @property
    def logit_scale(self) -> float:
        """Factor on cosines."""
        ...

    @property
    def logit_bias(self) -> float:
        """Added to scaled cosines."""
        ...

    @property
    def norms(self) -> str:
        """raw, or unit where the texts were imported normalised."""
        ...

    def anchors(self, text: str | None = None) -> Float[Tensor, "c d"]:
        """Return one unit vector a class."""
        ...

    def classifier(self, text: str | None = None) -> Float[Tensor, "c d"]:
        """Return T of the zero-shot scores x T^T: the anchors, or plain means (dclip, waffle)."""
        ...

    def raw_anchors(self, text: str | None = None) -> Float[Tensor, "c d"]:
        """Return the un-normalised mean a class."""
        ...

    def texts(self, text: str | None = None) -> tuple[Float[Tensor, "m d"], Int64[Tensor, " m"]]:
        """Return every single text as a unit vector, and the class that each belongs to."""
        ...

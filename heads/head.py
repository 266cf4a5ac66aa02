"""A trained head that is kept: what a method learned, and for which features and classes.

    head.save("pets.head");  head = Head.load("pets.head")
    head.logits(rows), head.probabilities(rows), head.predict(rows)

A head answers features made as those that it was trained on, and refuses others. Classes are
labels: their names may repeat.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from featcache.errors import HeadError, UsageError
from featcache.keys import FeatureKey
from heads.contract import AnyMethod, Rows
from heads.fitted import Fitted
from heads.text_view import TextView


@dataclass(frozen=True, kw_only=True)
class Head:
    """A fitted method with its classes and the key of the features it was trained on.

    Example:
        >>> import torch
        >>> from heads.contract import Rows, TaskView
        >>> from heads.methods.nearest_mean import METHOD
        >>> shots = Rows.of(torch.eye(2), labels=torch.tensor([0, 1]))
        >>> task = TaskView(support=shots, pool=None, text=None, classes=("cat", "dog"), seed=1)
        >>> params, fixed = METHOD.prepare(task, METHOD.config(), METHOD.hyper())
        >>> fitted = Fitted(method=METHOD, config=METHOD.config(), hyper=METHOD.hyper(),
        ...                 params=params, fixed=fixed)
        >>> Head(fitted=fitted, classes=("cat", "dog")).predict(torch.tensor([[0.1, 3.0]])).tolist()
        [1]
    """

    fitted: Fitted
    classes: tuple[str, ...]
    """Names by label; they may repeat."""
    key: FeatureKey | None = None
    """Of the features it was trained on; None where these were plain arrays."""
    dataset: str = ""
    backbone: str = ""
    texts: str = ""
    """Digest of the class texts that it was trained with; empty without any."""
    reads: tuple[str, ...] = ()
    """Components of the cache that it reads of a row beside `global`: crops.lazsl-60."""
    temperature: float = 1.0
    """Divides the logits before they become probabilities."""
    about: dict[str, Any] = field(default_factory=dict)
    """How it came about, plain JSON: protocol, shots, seed, run."""

    @property
    def method(self) -> AnyMethod:
        """Return the method."""
        return self.fitted.method

    @property
    def holds(self) -> tuple[str, ...]:
        """Name the tensors that are features of the training images, or hold them."""
        there = self.fitted.params.keys() | self.fitted.fixed.keys()
        return tuple(name for name in self.method.holds if name in there)

    @property
    def width(self) -> int | None:
        """Return the length d of the rows that it answers; None where nothing tells."""
        return int(self.about["width"]) if "width" in self.about else None

    @property
    def dtype(self) -> torch.dtype:
        """Return the type in which it computes: float32, or float64 after float64 arrays."""
        tensors = (*self.fitted.params.values(), *self.fitted.fixed.values())
        return next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)

    def logits(self, rows: Rows | Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Return the logits of every row.

        Args:
            rows: Rows of features, or a tensor of global features of any length.

        Raises:
            HeadError: If rows are not as wide as those of training, lack something that the method
                reads, or are not finite.
        """
        return self.fitted.logits(self._checked(rows))

    def probabilities(self, rows: Rows | Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Return softmax(logits / temperature) of every row; errors as `logits`."""
        return torch.softmax(self.logits(rows) / self.temperature, dim=-1)

    def predict(self, rows: Rows | Float[Tensor, "n d"]) -> Int64[Tensor, " n"]:
        """Return the label of every row, a position in `classes`; errors as `logits`.

        Raises:
            TrainingError: If the logits of a row are not finite.
        """
        return self.fitted.predict(self._checked(rows))

    def to(self, device: torch.device) -> "Head":
        """Return the head with its tensors on a device."""
        params, fixed = (
            {name: tensor.to(device) for name, tensor in tensors.items()}
            for tensors in (self.fitted.params, self.fitted.fixed)
        )
        return replace(self, fitted=replace(self.fitted, params=params, fixed=fixed))

    def check_key(self, key: FeatureKey, whose: str) -> None:
        """Refuse features that were made in another way than those of training.

        Args:
            key: Of the features to be answered.
            whose: Names them in the message.

        Raises:
            HeadError: If weights, preprocessing or numerics differ.
        """
        if self.key is None or self.key == key:
            return
        differ = [
            f"{name} {getattr(self.key, name)} and {getattr(key, name)}"
            for name in FeatureKey.__dataclass_fields__
            if getattr(self.key, name) != getattr(key, name)
        ]
        raise HeadError(
            f"This head of {self.method.name} was trained on features of key "
            f"{self.key.digest()}, and {whose} has key {key.digest()}: {'; '.join(differ)}. Train "
            f"it on these features, or give it rows of its own kind."
        )

    def rebind(self, text: TextView, classes: tuple[str, ...]) -> "Head":
        """Return the head for other classes, by their texts.

        Args:
            text: Texts of the other classes, in their order.
            classes: Their names.

        Raises:
            HeadError: If what the method learned belongs to the classes of training.
        """
        if self.method.rebind is None:
            raise HeadError(
                f"What {self.method.name} learned belongs to its {len(self.classes)} classes; it "
                f"has nothing to say of others. Train it on them."
            )
        fitted = self.method.rebind(self.fitted.params, self.fitted.fixed, text, self.fitted.config)
        params, fixed = fitted
        return replace(
            self, fitted=replace(self.fitted, params=params, fixed=fixed), classes=classes, texts=""
        )

    def __reduce__(self) -> tuple[Any, tuple[bytes, str]]:
        """Pickle and copy the head as its file, which other processes can read."""
        from heads.head_file import pack, unpack

        return unpack, (pack(self), "The pickled head")

    def save(self, path: Path | str) -> Path:
        """Write the head to a file; `heads.head_file` says how.

        Raises:
            HeadError: If the method is transductive: it learns nothing that could be kept.
        """
        from heads.head_file import write  # a file knows heads, not the other way round

        return write(self, Path(path))

    @staticmethod
    def load(path: Path | str) -> "Head":
        """Read a head from a file; nothing in it is executed.

        Raises:
            HeadError: If the file is not what `save` wrote, or this program lacks its method.
        """
        from heads.head_file import read

        return read(Path(path))

    def _checked(self, rows: Rows | Float[Tensor, "n d"]) -> Rows:
        """Return rows as the method reads them."""
        x = rows.x if isinstance(rows, Rows) else rows
        if x.dim() != 2 or (self.width is not None and x.shape[1] != self.width):
            raise HeadError(
                f"This head of {self.method.name} answers rows [n, {self.width or 'd'}], got "
                f"{list(x.shape)}."
            )
        strange = (~torch.isfinite(x).all(1)).nonzero().flatten().tolist()
        if strange:
            first = ", ".join(map(str, strange[:5])) + (", ..." if len(strange) > 5 else "")
            raise UsageError(
                f"{len(strange)} of {len(x)} rows hold NaN or infinite values (rows {first}); "
                f"leave them out, or extract their features again."
            )
        if not isinstance(rows, Rows):
            rows = rows.to(self.dtype)
            norms = rows.norm(dim=-1)
            rows = Rows(x=F.normalize(rows, dim=-1), norms=norms)
        for need in self.method.needs(self.fitted.config):
            missing = need.role == "query" and need.kind != "global" and not need.optional
            if missing and need.key not in rows.kinds:
                raise HeadError(
                    f"This head of {self.method.name} reads {need.key} of every image, and these "
                    f"rows have {', '.join(map(str, rows.kinds)) or 'global features alone'}."
                )
        return rows


def fitted_head(fitted: Fitted, classes: tuple[str, ...], width: int, **facts: Any) -> Head:
    """Make a head of what was trained, without the tensors that training alone reads.

    Args:
        fitted: What was trained.
        classes: Names by label.
        width: Length of the rows of training.
        facts: Further fields of `Head`.
    """
    # in one piece of memory each, as a file gives them back: else products differ in the last bit
    params = {n: t.contiguous() for n, t in fitted.params.items()}
    kept = {n: t for n, t in fitted.fixed.items() if n not in fitted.method.training_only}
    fixed = {n: t.contiguous() for n, t in kept.items()}
    about = {"width": width, **facts.pop("about", {})}
    fitted = replace(fitted, params=params, fixed=fixed)
    return Head(fitted=fitted, classes=classes, about=about, **facts)

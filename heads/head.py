"""Trained heads: what a method learned, and for which features and classes.

    head.save("pets.head");  head = Head.load("pets.head")
    head.logits(rows), head.probabilities(rows), head.predict(rows)

A head accepts features made like those it was trained on, and refuses others. Classes are
identified by label; their names may repeat.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from featcache.counts import counted
from featcache.errors import HeadError
from featcache.keys import FeatureKey
from heads import registry
from heads.answering import Answerable, checked, given
from heads.answers import answers_of
from heads.certainty.calibration import Calibration
from heads.contract.members import Member
from heads.contract.method import AnyMethod
from heads.contract.rows import Rows
from heads.fitted import Fitted
from heads.ops.novelty import novelty
from heads.text_view import TextView


@dataclass(frozen=True, kw_only=True)
class Head:
    """A fitted method with its classes and the key of the features it was trained on.

    Example:
        >>> import torch
        >>> from heads.contract.rows import Rows, TaskView
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
    """Key of the features it was trained on; None where these were plain arrays."""
    dataset: str = ""
    backbone: str = ""
    texts: str = ""
    """Digest of the class texts that it was trained with; empty without any."""
    reads: tuple[str, ...] = ()
    """Components that it reads of an image beside `global`, e.g. crops.lazsl-60."""
    temperature: float = 1.0
    """Divides the logits before they become probabilities; 1 where nothing calibrated it."""
    calibration: Calibration | None = None
    """Labelled rows that neither trained nor selected it, for `sets` and `rejects`."""
    about: dict[str, Any] = field(default_factory=dict)
    """How it was trained, as plain JSON: protocol, shots, seed, run, encoding of the features."""
    is_foreign: bool = False
    """Whether it was read from a file that somebody else may have made."""

    @property
    def method(self) -> AnyMethod:
        """Return the method."""
        return self.fitted.method

    @property
    def holds(self) -> tuple[str, ...]:
        """Return the names of tensors that hold features of training images."""
        there = self.fitted.params.keys() | self.fitted.fixed.keys()
        inside = tuple(
            f"{member.label}/{part}/{name}"
            for member in self.members
            for name in registry.get(member.name).holds
            for part in ("params", "fixed")
        )
        return tuple(name for name in (*self.method.holds, *inside) if name in there)

    @property
    def members(self) -> tuple[Member, ...]:
        """Return the members of a method made of others; () of any other.

        Example:
            >>> import featcache, heads
            >>> cache = featcache.open("fieldguide", "tiny")
            >>> head = heads.fit("ensemble", cache, shots=4, members="gda,ridge")
            >>> [member.name for member in head.members]
            ['gda', 'ridge']
        """
        made = self.method.composition
        return () if made is None else made.members(self.fitted.config)

    @property
    def width(self) -> int | None:
        """Return the length d of the rows that it accepts; None where it is not recorded."""
        return int(self.about["width"]) if "width" in self.about else None

    @property
    def dtype(self) -> torch.dtype:
        """Return the type in which it computes: float32, or float64 after float64 arrays."""
        tensors = (*self.fitted.params.values(), *self.fitted.fixed.values())
        return next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)

    @property
    def device(self) -> torch.device:
        """Return the device of its tensors."""
        tensors = (*self.fitted.params.values(), *self.fitted.fixed.values())
        return next((t.device for t in tensors), torch.device("cpu"))

    def __repr__(self) -> str:
        data = f" on {self.dataset} ({self.backbone})" if self.dataset else ""
        return f"<Head: {self.method.name}{data}, {counted(len(self.classes), 'class', 'classes')}>"

    def logits(
        self, rows: Answerable, *, split: str | None = None, strict: bool = True
    ) -> Float[Tensor, "n c"]:
        """Return the logits of every row.

        Args:
            rows: Rows; global features [n d], of any norm, as a tensor or an array of floats; a
                cache; images, as `featcache.embed` takes them, encoded like those of training; or
                its result. To encode often, keep a `heads.predicting.Predictor`.
            split: Split of a cache whose usable images are answered, in order; None is `test`.
            strict: Whether an unreadable image is an error; else its logits are NaN.

        Raises:
            HeadError: If features were not made like those of training, have another length, lack
                something that the method reads, or the head does not say how to encode images.
            UsageError: If rows are not finite, or something is no image.
            SourceError: If an image is unreadable under `strict`.

        Example:
            >>> import featcache, heads
            >>> cache = featcache.open("fieldguide", "tiny")
            >>> head = heads.fit("ridge", cache, shots=4)
            >>> head.logits(cache, split="val").shape[1]
            24
        """
        inputs = given(self, rows, split=split, strict=strict)
        return inputs.spread(self._logits(checked(self, inputs.rows)), float("nan"))

    def probabilities(
        self, rows: Answerable, *, split: str | None = None, strict: bool = True
    ) -> Float[Tensor, "n c"]:
        """Return softmax(logits / temperature) of every row; arguments and errors as `logits`.

        Example:
            >>> import featcache, heads
            >>> cache = featcache.open("fieldguide", "tiny")
            >>> head = heads.fit("ridge", cache, shots=4)
            >>> sums = head.probabilities(cache, split="val").sum(1)
            >>> bool((sums - 1).abs().max() < 1e-5)
            True
        """
        return self.softened(self.logits(rows, split=split, strict=strict))

    def softened(self, logits: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        """Return softmax(logits / temperature), the probabilities of logits of this head.

        Example:
            >>> import featcache, heads
            >>> cache = featcache.open("fieldguide", "tiny")
            >>> head = heads.fit("ridge", cache, shots=4)
            >>> logits = head.logits(cache, split="val")
            >>> head.softened(logits).equal(head.probabilities(cache, split="val"))
            True
        """
        return torch.softmax(logits / self.temperature, dim=-1)

    def predict(
        self, rows: Answerable, *, split: str | None = None, strict: bool = True
    ) -> Int64[Tensor, " n"]:
        """Return the label of every row, a position in `classes`; arguments and errors as `logits`.

        With strict=False an unreadable image gets -1: check for it before indexing `classes`.

        Raises:
            TrainingError: If the logits of a row are not finite.

        Example:
            >>> import featcache, heads
            >>> cache = featcache.open("fieldguide", "tiny")
            >>> head = heads.fit("ridge", cache, shots=4)
            >>> photo = f"{cache.listing.root}/{cache.listing.ids[0]}"
            >>> labels = head.predict([photo])
            >>> head.classes[labels[0]] == cache.classes[cache.labels[0]]
            True
        """
        inputs = given(self, rows, split=split, strict=strict)
        x = checked(self, inputs.rows)
        if not len(x):
            return inputs.spread(torch.zeros(0, dtype=torch.int64, device=x.x.device), -1)
        return inputs.spread(self.fitted.predict(x), -1)

    def sets(
        self, rows: Answerable, coverage: float = 0.9, rule: str = "lac", **how: Any
    ) -> Bool[Tensor, "n c"]:
        """Return which classes belong to the prediction set of every row.

        The label is in it with probability `coverage` or more over images like the calibration
        rows; where folds calibrated the head, less is guaranteed (`Calibration.guarantee`).

        Args:
            rows: As `logits`.
            coverage: In (0, 1).
            rule: lac, aps or raps; `heads.ops.conformal` has their equations.
            how: split and strict, as `logits`; the set of an unreadable image is empty.

        Raises:
            HeadError: If the head has no calibration rows, or too few for this coverage.
            UsageError: If the coverage is not in (0, 1).

        Example:
            >>> import featcache, heads
            >>> cache = featcache.open("fieldguide", "tiny")
            >>> head = heads.fit("ridge", cache, shots=4, calibrate_on="folds")
            >>> bool(head.sets(cache, coverage=0.8).any(1).all())
            True
        """
        sets = answers_of(self, rows, coverage=coverage, rule=rule, **how).sets
        assert sets is not None  # asked for
        return sets

    def novelty(
        self, rows: Answerable, measure: str = "max-logit", **how: Any
    ) -> Float[Tensor, " n"]:
        """Return how little every row looks like any class; larger is stranger.

        Args:
            rows: As `logits`.
            measure: max-logit or energy; `heads.ops.novelty` has their equations.
            how: split and strict, as `logits`; NaN for an unreadable image.

        Raises:
            UnknownNameError: If the measure is unknown.

        Example:
            >>> import featcache, heads
            >>> cache = featcache.open("fieldguide", "tiny")
            >>> heads.fit("ridge", cache, shots=4).novelty(cache, split="val").dim()
            1
        """
        return novelty(self.logits(rows, **how), measure, self.temperature)

    def rejects(
        self, rows: Answerable, share: float = 0.05, measure: str = "max-logit", **how: Any
    ) -> Bool[Tensor, " n"]:
        """Return which rows look like no class.

        Args:
            rows: As `logits`.
            share: Of images of the classes that may be rejected, in (0, 1).
            measure: As `novelty`.
            how: split and strict, as `logits`; an unreadable image is not rejected.

        Raises:
            HeadError: If the head has no calibration rows, or too few for this share.
            UsageError: If the share is not in (0, 1).

        Example:
            >>> import featcache, heads
            >>> cache = featcache.open("fieldguide", "tiny")
            >>> head = heads.fit("ridge", cache, shots=4, calibrate_on="folds")
            >>> float(head.rejects(cache, share=0.1).float().mean()) < 0.3
            True
        """
        rejected = answers_of(self, rows, reject=share, measure=measure, **how).rejected
        assert rejected is not None, "they were asked for"
        return rejected

    def to(self, device: torch.device) -> "Head":
        """Return the head with its tensors on a device.

        Example:
            >>> import featcache, heads, torch
            >>> head = heads.fit("ridge", featcache.open("fieldguide", "tiny"), shots=4)
            >>> head.to(torch.device("cpu")).device.type
            'cpu'
        """
        calibration = None if self.calibration is None else self.calibration.to(device)
        return replace(self, fitted=self.fitted.to(device), calibration=calibration)

    def check_key(self, key: FeatureKey, whose: str) -> None:
        """Refuse features that were not made like those of training.

        Args:
            key: Key of the features to be answered.
            whose: Name of these features in the message.

        Raises:
            HeadError: If weights, preprocessing or numerics differ.

        Example:
            >>> import featcache, heads
            >>> cache = featcache.open("fieldguide", "tiny")
            >>> head = heads.fit("ridge", cache, shots=4)
            >>> head.check_key(cache.key, "the cache")
        """
        if self.key is None or self.key == key:
            return
        names = FeatureKey.__dataclass_fields__
        pairs = ((name, getattr(self.key, name), getattr(key, name)) for name in names)
        differ = [f"{n} {a!s:.16} and {b!s:.16}" for n, a, b in pairs if a != b]  # digests are long
        raise HeadError(
            f"This head of {self.method.name} was trained on features of {self.backbone} (key "
            f"{self.key.digest()}), and {whose} has key {key.digest()}: {'; '.join(differ)}. Train "
            f"it on these features, or give it rows of its own kind."
        )

    def rebind(self, text: TextView, classes: tuple[str, ...]) -> "Head":
        """Return the head for other classes, given their texts; it is not calibrated for them.

        Args:
            text: Texts of the other classes, in their order.
            classes: Their names.

        Raises:
            HeadError: If what the method learned is specific to the classes of training.

        Example:
            >>> import featcache, heads, torch
            >>> cache = featcache.open("fieldguide", "tiny")
            >>> head = heads.fit("zero-shot", cache)
            >>> some = head.rebind(cache.text.of_classes(torch.tensor([3, 1])), ("three", "one"))
            >>> some.logits(cache).shape[1]
            2
        """
        if self.method.rebind is None:
            raise HeadError(
                f"What {self.method.name} learned is specific to its {len(self.classes)} classes. "
                f"Train it on the others."
            )
        was = self.fitted
        params, fixed = self.method.rebind(was.params, was.fixed, text, was.config)
        claimed = None if was.claimed is None else len(classes)
        fitted = replace(was, params=params, fixed=fixed, claimed=claimed)
        return replace(self, fitted=fitted, classes=classes, texts="", calibration=None)

    def __reduce__(self) -> tuple[Any, tuple[bytes, str]]:
        """Pickle and copy the head as the bytes of its file, which other processes can read."""
        from heads.head_file import pack, unpack

        return unpack, (pack(self), "The pickled head")

    def save(self, path: Path | str) -> Path:
        """Write the head to a file; `heads.head_file` says how.

        Raises:
            HeadError: If the method is transductive: it learns nothing that can be saved.

        Example:
            >>> import featcache, heads
            >>> head = heads.fit("ridge", featcache.open("fieldguide", "tiny"), shots=4)
            >>> head.save("moths.head").name
            'moths.head'
        """
        from heads.head_file import write  # which imports this module

        return write(self, Path(path))

    @staticmethod
    def load(path: Path | str) -> "Head":
        """Read a head from a file; nothing in it is executed, and nothing is fetched for it.

        Raises:
            HeadError: If the file is not what `save` wrote, or this program lacks its method.

        Example:
            >>> import featcache, heads
            >>> head = heads.fit("ridge", featcache.open("fieldguide", "tiny"), shots=4)
            >>> heads.Head.load(head.save("moths.head")).method.name
            'ridge'
        """
        from heads.head_file import read

        return read(Path(path))

    def _logits(self, rows: Rows) -> Float[Tensor, "n c"]:
        return self.fitted.logits(rows) if len(rows) else rows.x.new_zeros(0, len(self.classes))


def fitted_head(fitted: Fitted, classes: tuple[str, ...], width: int, **facts: Any) -> Head:
    """Make a head from a fitted method, without the tensors that only training reads.

    Args:
        fitted: The fitted method.
        classes: Names by label.
        width: Length of the rows of training.
        facts: Further fields of `Head`.
    """
    about = {"width": width, **facts.pop("about", {})}
    return Head(fitted=fitted.kept(), classes=classes, about=about, **facts)

"""Summary of an extraction, forecast or finished, as text and as JSON."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from featcache.keys import Listing
from featcache.pipeline.forecast import human_range
from featcache.pipeline.plan import Plan
from featcache.units import human_bytes, rough_seconds
from featcache.wording import Argument, Part, in_python

SHOWN = 10
"""Unreadable images that are listed by name."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One extraction, finished or forecast."""

    dataset: str
    backbone: str
    key: str
    """Digest of the feature key."""
    path: Path
    images: int
    """Number of images in the data set."""
    encoded: Mapping[str, int]
    """Component -> rows encoded; in a forecast, rows that would be."""
    held: Mapping[str, int]
    """Component -> requested rows that were stored already."""
    passed: int = 0
    """Number of images that were decoded."""
    bad: tuple[tuple[str, str], ...] = ()
    """(image, reason) for images that could not be read, in this pass or before."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Stage -> seconds: list, load, text, pass; within the pass decode and write (waiting), encode,
    total, and cpu of all threads."""
    images_per_s: float | None = None
    bytes: int = 0
    """Bytes of the rows written; in a forecast, predicted."""
    component_bytes: Mapping[str, int] = field(default_factory=dict)
    """In a forecast: component -> bytes that would be written."""
    complete: bool = False
    """Whether every requested row is stored, without a limit."""
    dry_run: bool = False
    texts: Mapping[str, int] | None = None
    """Kind -> texts that the cache lacked, from `missing_texts`; None if it lacked none."""
    profile: Path | None = None
    """Path of the timeline, if one was requested."""
    verdict: Part = ""
    """Advice on the stage that limits the speed, or why there is no timeline; empty if none was
    requested."""
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> bool:
        """Whether texts were encoded; in a forecast, whether they would be."""
        return self.texts is not None

    def to_json(self, phrase: Callable[[Sequence[Part]], str] = in_python) -> dict[str, Any]:
        """Return plain values.

        Args:
            phrase: Writes a message as text.
        """
        bad = [{"id": name, "reason": reason} for name, reason in self.bad]
        seconds = {k: round(v, 3) for k, v in self.seconds.items()}
        profile = None if self.profile is None else str(self.profile)
        plain = {"path": str(self.path), "profile": profile, "bad": bad, "seconds": seconds}
        return {**asdict(self), "text": self.text, **plain, "verdict": phrase([self.verdict])}

    def missing(self) -> str:
        """List the rows and texts that a forecast names; empty where there are none."""
        rows = [f"{name} {count} rows" for name, count in self.encoded.items()]
        texts = [f"{kind} {count} texts" for kind, count in (self.texts or {}).items()]
        return ", ".join(rows + texts)

    def sentences(self, phrase: Callable[[Sequence[Part]], str] = in_python) -> list[str]:
        """Describe the extraction line by line.

        Args:
            phrase: Writes a message as text.
        """
        counts = _counted(self.encoded)
        have = _counted({name: rows for name, rows in self.held.items() if rows})
        lines = []
        if self.dry_run:
            seconds = human_range(self.seconds.get("forecast", 0.0))
            what = f"about {human_bytes(self.bytes)}, {seconds}"
            if counts:
                lines.append(f"Would encode: {what}.")
            lines += [
                f"  {name}: {rows} rows, {human_bytes(self.component_bytes[name])}"
                for name, rows in self.encoded.items()
            ]
        elif counts:
            duration = rough_seconds(self.seconds.get("pass", 0.0))
            rate = f", {self.images_per_s:.0f} images/s" if self.images_per_s else ""
            lines.append(
                f"Encoded {self.passed} images of {self.dataset} with {self.backbone} in "
                f"{duration}{rate}: {counts} rows, {human_bytes(self.bytes)}."
            )
        if self.text:
            done, are = ("Would encode", "are") if self.dry_run else ("Encoded", "were")
            alone = "" if counts else f"; all image features {are} there"
            lines.append(
                f"{done} the texts of {self.dataset}{_in_brackets(self.texts or {})}{alone}."
            )
        elif not counts:
            lines.append(
                f"Nothing to encode: {self.dataset} with {self.backbone} has everything asked for."
            )
        if have:
            lines.append(f"Already there: {have} rows.")
        if self.bad:
            of = f"{len(self.bad)} of {self.images} images"
            lines.append(f"{of} could not be read and are marked as such:")
            lines += [f"  {name} {reason}" for name, reason in self.bad[:SHOWN]]
            if len(self.bad) > SHOWN:
                lines.append(f"  and {len(self.bad) - SHOWN} more; `featcache info` lists them")
        if not self.complete and not self.dry_run:
            lines.append(
                phrase(
                    [
                        "The cache is incomplete; the same request without ",
                        Argument("limit"),
                        " adds the rest.",
                    ]
                )
            )
        if self.verdict:
            where = "" if self.profile is None else f" Timeline: {self.profile}"
            lines.append(f"{phrase([self.verdict])}{where}")
        lines.append(str(self.path))
        return lines


def listed(listing: Listing) -> str:
    """Describe the listed images, so that a wrong folder is noticed before the pass."""
    few, others = ", ".join(listing.classes[:5]), len(listing.classes) - 5
    few += f" and {others} more" if others > 0 else ""
    splits = _counted({name: len(rows) for name, rows in listing.splits.items()})
    return f"{listing.dataset}: {splits}; classes ({len(listing.classes)}): {few}."


def to_encode(plan: Plan, texts: Mapping[str, int] | None) -> str:
    """Describe what a pass will encode.

    Args:
        plan: Plan of the pass.
        texts: Kind -> missing texts, from `missing_texts`.
    """
    if texts is None:
        return plan.sentence()
    if len(plan.rows):
        return f"{plan.sentence()} Texts too{_in_brackets(texts)}."
    return f"To encode: texts{_in_brackets(texts)}; all image features are there already."


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _in_brackets(counts: Mapping[str, int]) -> str:
    return f" ({_counted(counts)})" if counts else ""

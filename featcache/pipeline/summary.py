"""What an extraction did, for people and as JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from featcache.pipeline.plan import human_duration, human_size

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
    """In the data set now."""
    encoded: Mapping[str, int]
    """Component -> rows encoded; in a forecast, rows that would be."""
    held: Mapping[str, int]
    """Component -> rows asked for that were there already."""
    passed: int = 0
    """Images that were decoded."""
    bad: tuple[tuple[str, str], ...] = ()
    """Image and reason, for those that could not be read in this pass."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """list, load, text, pass; and of the pass: decode, encode, write, as waited for,
    total, and cpu of all threads."""
    images_per_s: float | None = None
    bytes: int = 0
    """Of the rows written; in a forecast, predicted."""
    component_bytes: Mapping[str, int] = field(default_factory=dict)
    """In a forecast: component -> bytes that would be written."""
    complete: bool = False
    """Whether every row asked for is there, with no limit."""
    dry_run: bool = False
    text: bool = False
    """Whether texts were encoded."""
    profile: Path | None = None
    """The stage timeline, if one was asked for."""
    verdict: str = ""
    """Which stage binds, and what would make this pass faster; only with a profile."""
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        bad = [{"id": name, "reason": reason} for name, reason in self.bad]
        seconds = {k: round(v, 3) for k, v in self.seconds.items()}
        profile = None if self.profile is None else str(self.profile)
        plain = {"path": str(self.path), "profile": profile, "bad": bad, "seconds": seconds}
        return {**asdict(self), **plain}

    def sentences(self) -> list[str]:
        """Say it line by line."""
        counts = ", ".join(f"{name} {rows}" for name, rows in self.encoded.items())
        have = ", ".join(f"{name} {rows}" for name, rows in self.held.items() if rows)
        lines = []
        if self.dry_run:
            seconds = human_duration(self.seconds.get("forecast", 0.0))
            what = f"about {human_size(self.bytes)}, roughly {seconds}"
            lines.append(f"Would encode: {what}." if counts else "Nothing to encode.")
            lines += [
                f"  {name}: {rows} rows, {human_size(self.component_bytes[name])}"
                for name, rows in self.encoded.items()
            ]
        elif counts:
            duration = human_duration(self.seconds.get("pass", 0.0))
            rate = f", {self.images_per_s:.0f} images/s" if self.images_per_s else ""
            lines.append(
                f"Encoded {self.passed} images of {self.dataset} with {self.backbone} in "
                f"{duration}{rate}: {counts} rows, {human_size(self.bytes)}."
            )
        elif self.text:
            lines.append(f"Encoded the texts of {self.dataset}; all image features were there.")
        else:
            lines.append(
                f"Nothing to encode: {self.dataset} with {self.backbone} has everything asked for."
            )
        if have:
            lines.append(f"Already there: {have} rows.")
        if self.bad:
            lines.append(f"{len(self.bad)} images could not be read and are marked as such:")
            lines += [f"  {name} {reason}" for name, reason in self.bad[:SHOWN]]
            if len(self.bad) > SHOWN:
                lines.append(f"  and {len(self.bad) - SHOWN} more; `featcache info` lists them")
        if not self.complete and not self.dry_run:
            lines.append("The cache is incomplete; the same command without --limit adds the rest.")
        if self.profile is not None:
            lines.append(f"{self.verdict} Timeline: {self.profile}")
        lines.append(str(self.path))
        return lines

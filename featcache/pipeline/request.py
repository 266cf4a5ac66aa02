"""What a user may ask of an extraction."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asks for; one field a flag of `featcache extract`."""

    dataset: str
    """folder:PATH or a name."""
    backbone: str
    weights: str | None = None
    patches: str | None = None
    """Variants, comma-separated, or none; None is the backbone's default."""
    views: int = 0
    """Augmented views of each image in the scope."""
    view_recipe: str = "rrc50"
    view_scope: str = "few-shot"
    """few-shot, train, query, pool or all."""
    name: str | None = None
    dataset_root: Path | None = None
    templates: Path | None = None
    descriptions: Path | None = None
    limit: int | None = None
    """Images at most, evenly over classes and splits."""
    device: str = "auto"
    compute: str = "auto"
    """auto, fp32 or bf16."""
    micro_batch: int | None = None
    """Images in one forward pass; None goes by the backbone's work and the kind of device."""
    root: Path | None = None
    """Folder of the caches; None is the user's."""
    moved: bool = False
    """The folder was moved: accept its new place."""
    strict: bool = False
    """Stop at the first unreadable image."""
    allow_bad: bool = False
    """Go on however many images are unreadable."""
    yes: bool = False
    """Write more than 20 GB unasked."""
    dry_run: bool = False
    max_pixels: int | None = None
    """Largest picture to decode; None is the environment's or Pillow's limit."""

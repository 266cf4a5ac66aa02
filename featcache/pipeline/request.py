"""What a user may request of an extraction."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from featcache.paths import expand


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user requests: the arguments of `featcache.extract`."""

    dataset: str
    """A prefix and a path, as folder:PATH or zip:PATH, or a name."""
    backbone: str | None = None
    """None is that of the data set's cache, else tiny."""
    weights: str | None = None
    patches: Sequence[str] | None = None
    """Variants, e.g. clearclip or vanilla:int8@train, or none; None is the backbone's default."""
    views: Sequence[str] = ()
    """Augmented views, e.g. 10 or 8:strong@pool; the grammar is in `featcache.recipes`."""
    crops: Sequence[str] = ()
    """Crops with their boxes, e.g. 60 or 16:fair."""
    view_patches: Sequence[str] = ()
    """Patch tokens of augmented views, e.g. 4 or 4:cdfsl:vanilla."""
    seed: int = 0
    """Seed of views and crops; components of another seed stand beside each other."""
    name: str | None = None
    dataset_root: Path | None = None
    """Where the files of a named data set already are."""
    data_root: Path | None = None
    """Where named data sets keep their images; None is $FEATCACHE_DATA, else beside the caches."""
    splits: str | None = None
    """Which splits of a named data set that has several; None is its default."""
    words: str | None = None
    """Whose class names and templates a named data set gets: coop (the default) or openai."""
    templates: Path | None = None
    descriptions: Path | None = None
    cupl: Path | None = None
    dclip: Path | None = None
    waffle: int | None = None
    """Seed of the random words."""
    limit: int | None = None
    """Images at most, evenly over classes and splits."""
    device: str = "auto"
    compute: str = "auto"
    """auto, fp32 or bf16."""
    compiled: bool = False
    """Put the image tower through torch.compile."""
    micro_batch: int | None = None
    """Images in one forward pass; None goes by the backbone's work and the kind of device."""
    root: Path | None = None
    """Folder of the caches; None is the user's."""
    moved: bool = False
    """The folder was moved: accept its new place."""
    rehash: bool = False
    """Read every image again, whatever is remembered of it."""
    ignore_inode: bool = False
    """Take a file with another inode for unchanged if size and times are the same."""
    strict: bool = False
    """Stop at the first unreadable image."""
    allow_bad: bool = False
    """Go on however many images are unreadable."""
    yes: bool = False
    """Write more than 20 GB unasked."""
    dry_run: bool = False
    max_pixels: int | None = None
    """Largest image to decode; None is the environment's or Pillow's limit."""
    profile: bool | Path = False
    """Write a stage timeline: True beside the cache, a path there."""

    def weights_anywhere(self) -> str:
        """Return the weights, a file as an absolute path; empty if none were named."""
        if self.weights is None or not expand(self.weights).is_file():
            return self.weights or ""
        return str(expand(self.weights).absolute())

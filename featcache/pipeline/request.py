"""Request of an extraction."""

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
    """Name of a backbone; None for that of the data set's cache, else tiny."""
    weights: str | None = None
    tokenizer: Path | None = None
    """File or folder of the tokenizer, for a text tower that does not use CLIP's own."""
    image_size: int | None = None
    """Pixels of the encoder's square input; None is the size its model was trained on."""
    patches: Sequence[str] | None = None
    """Variants, e.g. clearclip or vanilla:int8@train, or none; None is the backbone's default."""
    views: Sequence[str] = ()
    """Augmented views, e.g. 10 or 8:strong@pool; the grammar is in `featcache.recipes`."""
    crops: Sequence[str] = ()
    """Crops with their boxes, e.g. 60 or 16:fair."""
    view_patches: Sequence[str] = ()
    """Patch tokens of augmented views, e.g. 4 or 4:cdfsl:vanilla."""
    tokens: Sequence[str] = ()
    """Tokens before the last block, e.g. last-block or last-block:int8@train; [p+1 w] an image."""
    seed: int = 0
    """Seed of views and crops; components of several seeds can be in one cache."""
    name: str | None = None
    dataset_root: Path | None = None
    """Where the files of a named data set already are."""
    data_root: Path | None = None
    """Where named data sets keep their images; None is $FEATCACHE_DATA, else beside the caches."""
    splits: str | None = None
    """Name of published splits of a named data set; None for its default."""
    words: str | None = None
    """Class names and templates of a named data set: coop (the default) or openai."""
    templates: Path | None = None
    descriptions: Path | None = None
    cupl: Path | None = None
    dclip: Path | None = None
    waffle: int | None = None
    """Seed of the random words."""
    prompts: Path | None = None
    """File of sentences that belong to no class, one a line."""
    limit: int | None = None
    """Maximum number of images, spread over classes and splits."""
    device: str = "auto"
    compute: str = "auto"
    """auto, fp32 or bf16."""
    compiled: bool = False
    """Whether to compile the image tower with torch.compile."""
    micro_batch: int | None = None
    """Images in one forward pass; None chooses by backbone and device."""
    root: Path | None = None
    """Folder of all caches; None for the default."""
    moved: bool = False
    """Whether to accept that the images are at another place than before."""
    rehash: bool = False
    """Whether to hash every image again, changed or not."""
    ignore_inode: bool = False
    """Whether a file with another inode counts as unchanged if size and times are the same."""
    strict: bool = False
    """Whether to stop at the first unreadable image."""
    allow_bad: bool = False
    """Whether to continue with any number of unreadable images."""
    yes: bool = False
    """Whether to write more than 20 GB without asking."""
    dry_run: bool = False
    max_pixels: int | None = None
    """Largest image to decode; None is the environment's or Pillow's limit."""
    profile: bool | Path = False
    """Whether to write a timeline beside the cache, or the path of the timeline."""

    def weights_anywhere(self) -> str:
        """Return the weights, a file as an absolute path; empty if none were named."""
        if self.weights is None or not expand(self.weights).is_file():
            return self.weights or ""
        return str(expand(self.weights).absolute())

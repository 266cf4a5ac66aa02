"""An extraction before its cache is looked at: images, texts, backbone, components and folder."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from featcache.backbones.base import Backbone
from featcache.backbones.registry import load_backbone
from featcache.caution import caution
from featcache.encoding.components import ComponentSpec, component_specs
from featcache.paths import as_text
from featcache.pipeline.opening import Opened
from featcache.pipeline.plan import Plan
from featcache.pipeline.progress import Progress, reporter
from featcache.pipeline.request import Request
from featcache.progress import Report
from featcache.sources.base import Dataset
from featcache.sources.listing import check_root
from featcache.store.format.identity import Identity
from featcache.store.library import cache_root, image_roots
from featcache.text.encode import with_texts
from featcache.wording import Part


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """What is extracted and where to; nothing has been written yet."""

    request: Request
    dataset: Dataset
    """Images and the requested texts."""
    backbone: Backbone
    """Loaded in the requested compute type."""
    specs: tuple[ComponentSpec, ...]
    """Requested components."""
    path: Path
    """Folder of the cache, which may not exist yet."""
    load: Callable[[str], Backbone]
    """Loads the backbone in another compute type: auto, fp32 or bf16."""
    progress: Callable[[Progress], None] | None
    say: Callable[[Part], None]
    confirm: Callable[[Plan], bool] | None
    """Asks the user to agree to a large pass; None if nobody can be asked."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Stage -> seconds so far."""

    @property
    def root(self) -> Path:
        """Folder of all caches."""
        return self.path.parent.parent

    @property
    def report(self) -> Report:
        """Reports the stages before the pass."""
        return reporter(self.progress)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the duration of the block to a stage."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def prepare(
    opened: Opened,
    *,
    progress: Callable[[Progress], None] | None,
    say: Callable[[Part], None],
    confirm: Callable[[Plan], bool] | None,
) -> Extraction:
    """Add the requested texts, load the backbone and choose the components.

    Args:
        opened: Checked request with its images.
        progress: Called several times a second; None ignores progress.
        say: Called with sentences that the user should read.
        confirm: Asked before a large pass; None if nobody can be asked.

    Raises:
        SourceError: If the name belongs to a cached data set at another place, or a file of texts
            cannot be used.
        BackboneError: If the backbone cannot be loaded.
        UsageError: If it does not have the requested components.
    """
    request = opened.request
    root = cache_root(request.root)
    dataset = with_texts(
        opened.dataset,
        templates=request.templates,
        descriptions=request.descriptions,
        cupl=request.cupl,
        dclip=request.dclip,
        waffle=request.waffle,
        prompts=request.prompts,
    )
    roots = image_roots(root, dataset.name, request.data_root)
    if roots and as_text(dataset.root) not in roots:
        check_root(dataset, roots[0], moved=request.moved)
    start = time.perf_counter()

    def load(compute: str) -> Backbone:
        return load_backbone(
            opened.backbone,
            weights=request.weights,
            device=request.device,
            compute=compute,
            compiled=request.compiled,
            tokenizer=request.tokenizer,
            image_size=request.image_size,
        )

    backbone = load(request.compute)
    seconds = {"list": opened.seconds, "load": time.perf_counter() - start}
    specs, notes = component_specs(
        backbone,
        patches=request.patches,
        views=request.views,
        crops=request.crops,
        view_patches=request.view_patches,
        tokens=request.tokens,
        seed=request.seed,
    )
    for note in filter(None, (caution(backbone.key, as_text(dataset.root)), *notes)):
        say(note)
    return Extraction(
        request=request,
        dataset=dataset,
        backbone=backbone,
        specs=specs,
        path=Identity(dataset.name, backbone.name, backbone.key).folder(root),
        load=load,
        progress=progress,
        say=say,
        confirm=confirm,
        seconds=seconds,
    )

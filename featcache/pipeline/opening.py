"""Checks and defaults of a request that need no torch.

Loading torch takes seconds, so wrong names, missing files and unknown layouts are reported first.
The default backbone is chosen here: that of the cache of the images, or `tiny` for drawn worlds.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from featcache.backbones.names import COMPUTE, TINY, check_known, choose
from featcache.errors import FeatcacheError, SourceError, UnknownNameError, UsageError
from featcache.paths import as_text, expand
from featcache.pipeline.request import Request
from featcache.pipeline.timeline import check_place
from featcache.recipes import LARGEST_SEED, parse_requests
from featcache.sources.base import Dataset, Report
from featcache.sources.named import datasets
from featcache.sources.registry import (
    IMAGES,
    image_folder,
    is_drawn,
    is_path,
    name_of,
    open_dataset,
    spec_of,
)
from featcache.store.format.identity import read_identity
from featcache.store.library import (
    CacheSummary,
    cache_root,
    caches,
    check_name,
    image_roots,
    image_sources,
    made_with,
)
from featcache.store.moved import may_be_there
from featcache.text.descriptions import read_descriptions
from featcache.text.prompts import read_prompts
from featcache.text.templates import read_templates
from featcache.wording import Argument, Call, Part, Placeholder

NOTHING_STORED = "No features were stored yet; the same command starts again."
"""Said when an extraction is interrupted before it has stored anything."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A checked request with its images."""

    request: Request
    """The request with its defaults filled in."""
    backbone: str
    dataset: Dataset
    seconds: float
    """Seconds spent on listing the images."""


def open_request(
    request: Request,
    *,
    report: Report | None = None,
    say: Callable[[Part], None] = lambda _: None,
) -> Opened:
    """Check a request, fill in its defaults and list its images.

    Args:
        request: What the user requests.
        report: Called with progress of drawing and downloading.
        say: Called with the backbone that was chosen by default.

    Raises:
        UsageError: If a value is invalid, or the user has to choose the backbone.
        SourceError: If the images cannot be listed.
        BackboneError: If the weights file does not exist.
    """
    _check_words(request)
    root = cache_root(request.root)
    if request.name is not None and request.name.strip():
        check_name(root, request.name)
    spec, name = _spec(request, root)
    backbone, weights = request.backbone, request.weights
    if backbone is None:
        backbone, weights = _usual(request, root, spec, name_of(spec, name), say)
    check_known(backbone, weights)
    if not is_path(spec):
        choose(backbone, weights)  # loads torch; but nothing is drawn or fetched for a wrong name
    start = time.perf_counter()
    dataset = open_dataset(
        spec,
        root=root,
        name=name,
        dataset_root=request.dataset_root,
        data_root=request.data_root,
        download=not request.dry_run,
        splits=request.splits,
        words=request.words,
        report=report,
    )
    return Opened(
        request=replace(request, backbone=backbone, weights=weights),
        backbone=backbone,
        dataset=dataset,
        seconds=time.perf_counter() - start,
    )


def _check_words(request: Request) -> None:
    """Check the values that do not depend on data set or backbone."""
    if request.limit is not None and request.limit < 1:
        raise UsageError(Argument("limit"), f" must be at least 1 image, got {request.limit}.")
    if isinstance(request.profile, Path):
        check_place(expand(request.profile))
    parse_requests(
        request.patches, request.views, request.crops, request.view_patches, request.tokens
    )
    if not 0 <= request.seed < LARGEST_SEED:
        raise UsageError(Argument("seed"), f" must be 0 to {LARGEST_SEED - 1}, got {request.seed}.")
    if request.compute not in COMPUTE:
        raise UnknownNameError("compute dtype", request.compute, COMPUTE)
    if request.templates is not None:
        read_templates(request.templates)
    if request.prompts is not None:
        read_prompts(request.prompts)
    for argument in ("descriptions", "cupl", "dclip"):
        if (path := getattr(request, argument)) is not None:
            read_descriptions(path, argument)


def _spec(request: Request, root: Path) -> tuple[str, str | None]:
    """Return the spec and the name of a data set; the name of a cached one means its images."""
    spec, name = request.dataset, request.name
    if ":" in spec or any(spec == d.name for d in datasets()):
        return spec, name
    drawn = (as_text(root / IMAGES), as_text(image_folder(root, request.data_root)))
    _refuse_imported(request, root)
    sources = {
        s
        for s in image_sources(root, spec, request.data_root)
        if s[1] or not any(Path(s[0]).is_relative_to(d) for d in drawn)
    }
    if len(sources) != 1:
        return spec, name
    place, own = sources.pop()
    if not may_be_there(place):
        raise _gone(spec, place, own or spec_of(place))
    return own or spec_of(place), name or spec


def _gone(name: str, place: str, spec: str) -> SourceError:
    """Compose the error for images that are no longer where a cache read them."""
    suffix = Path(place).suffix.lower().removeprefix(".")
    prefix = suffix if suffix in ("zip", "tar") else spec.partition(":")[0]
    return SourceError(
        f"The images of '{name}' were in {place}, and nothing is there now. If they moved, write ",
        Argument("dataset", Placeholder(f"{prefix}:NEW")),
        ", ",
        Argument("name", name),
        " and ",
        Argument("moved", True),
        ", where NEW is their new place.",
    )


def _refuse_imported(request: Request, root: Path) -> None:
    """Raise if only imported features have this name: they have no images."""
    named = [c for c in caches(root) if c.dataset == request.dataset]
    if named and not image_roots(root, request.dataset) and all(_is_imported(c) for c in named):
        raise UsageError(
            f"'{request.dataset}' was imported ({named[0].weights}): there are no images to "
            "extract from. Train on it with: ",
            Call(
                "heads.evaluate",
                {
                    "method": Placeholder("METHOD"),
                    "cache": Call("featcache.open", {"dataset": request.dataset}),
                },
            ),
            ". For images write ",
            Argument("dataset", Placeholder("folder:PATH")),
            ".",
        )


def _is_imported(cache: CacheSummary) -> bool:
    try:
        return read_identity(cache.path).key.is_imported
    except FeatcacheError:
        return False


def _usual(
    request: Request, root: Path, spec: str, name: str, say: Callable[[Part], None]
) -> tuple[str, str | None]:
    """Return the default backbone and its weights.

    Raises:
        UsageError: If the data set has caches of several backbones.
    """
    if is_drawn(spec):
        return TINY, request.weights
    made = made_with(root, name)
    if request.weights is not None:
        made = sorted({(backbone, "") for backbone, _ in made})
    if not made:
        return TINY, request.weights
    if len(made) > 1:
        choices: list[Part] = []
        for backbone, weights in made:
            choices += ["; "] if choices else []
            choices += [Argument("backbone", backbone)]
            choices += [" ", Argument("weights", weights)] if weights else []
        raise UsageError(
            f"'{name}' has caches of {len(made)} backbones; say which one is meant: ", choices, "."
        )
    ((backbone, weights),) = made
    of = f" with {weights}" if weights else ""
    say(("No ", Argument("backbone"), f" was named: {backbone}{of}, as in the cache of {name}."))
    return backbone, request.weights or weights or None

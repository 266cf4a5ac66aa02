"""What `featcache doctor` looks at, one check a function; none writes or fetches anything."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from cli.ui.errors import text_of
from cli.ui.flags import in_flags
from cli.ui.units import human_bytes
from cli.ui.version import FAISS, device_text, faiss_version, version_of
from featcache.errors import FeatcacheError

LOW, TOO_LOW = 2e9, 100e6
"""Bytes free below which a pass of some size will not end, and below which none will."""
GPU_KINDS = {
    "GpuIndexFlat": "flat",
    "GpuIndexIVFFlat": "ivf-flat",
    "GpuIndexIVFPQ": "ivf-pq",
    "GpuIndexCagra": "cagra",
}
"""Class of faiss -> kind of index that it puts on a GPU."""
OPEN_CLIP = ((3, 2), (4,))
"""First version that will do, and first that may not."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found."""

    check: str
    state: Literal["ok", "note", "broken"]
    """A note is worth knowing and stops nothing."""
    what: str
    """One sentence or less."""
    cure: str = ""
    """What to do about it; empty where all is well."""

    def to_json(self) -> dict[str, Any]:
        """Return one plain object."""
        return asdict(self)


def findings(root: Path) -> Iterator[Finding]:
    """Make every check, each as it is asked for; one that fails itself is broken.

    Args:
        root: Folder of all caches.
    """
    checks: Sequence[tuple[str, Callable[[], Sequence[Finding]]]] = (
        ("torch", check_torch),
        ("open_clip", check_open_clip),
        ("faiss", check_faiss),
        ("isal", check_isal),
        ("disk", lambda: check_disk(root)),
        ("weights", check_embedded),
        ("weights", lambda: check_weights(root)),
        ("caches", lambda: check_caches(root)),
    )
    for name, check in checks:
        try:
            yield from check()
        except FeatcacheError as error:
            yield Finding(check=name, state="broken", what=text_of(error))
        except Exception as error:  # whatever a library raises: the other checks still help
            what = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            yield Finding(check=name, state="broken", what=what, cure=f"{REINSTALL}.")


REINSTALL = "Install featcache and what it needs again: pip install --force-reinstall featcache"


def check_torch() -> list[Finding]:
    """Compute something on the device that `auto` stands for."""
    import torch

    device, version = device_text(), version_of("torch")
    target = torch.device("cuda" if device.startswith("cuda") else "cpu")
    four = (torch.ones(2, 2, device=target) @ torch.ones(2, 2, device=target)).sum().item() / 2
    if four != 4:
        return [
            Finding(
                check="torch",
                state="broken",
                what=f"{version} on {device} computes 4 as {four}.",
                cure="Check the driver, or use --device cpu.",
            )
        ]
    found = [Finding(check="torch", state="ok", what=f"{version}, device {device}")]
    if target.type == "cpu" and Path("/proc/driver/nvidia/version").exists():
        cure = "Install a build of torch for the CUDA version that nvidia-smi shows."
        what = "There is an NVIDIA driver, and torch sees no GPU."
        found.append(Finding(check="torch", state="note", what=what, cure=cure))
    return found


def check_open_clip() -> list[Finding]:
    """Look at the version of open_clip."""
    version = version_of("open_clip_torch")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if find_spec("open_clip") and OPEN_CLIP[0] <= numbers < OPEN_CLIP[1]:
        return [Finding(check="open_clip", state="ok", what=version)]
    what = f"Version {version} is here." if version else "open_clip is not installed."
    cure = "Install one that fits: pip install 'open_clip_torch>=3.2,<4'"
    return [Finding(check="open_clip", state="broken", what=what, cure=cure)]


def check_faiss() -> list[Finding]:
    """Load faiss where it is installed, and name what it can put on a GPU."""
    installed = [name for name in FAISS if version_of(name)]
    if len(installed) > 1:
        what = "faiss-cpu and faiss-gpu are both installed and overwrite each other."
        cure = "Keep one: pip uninstall faiss-cpu faiss-gpu, then pip install 'featcache[cpu]'"
        return [Finding(check="faiss", state="broken", what=what, cure=cure)]
    if find_spec("faiss") is None:
        what = "Not installed; neighbours are found by torch, which gives the same."
        cure = "For faiss: pip install 'featcache[cpu]' ([gpu] on NVIDIA)"
        return [Finding(check="faiss", state="note", what=what, cure=cure)]
    import faiss

    kinds = [kind for name, kind in GPU_KINDS.items() if hasattr(faiss, name)]
    gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    on_gpu = f"{', '.join(kinds) or 'none'} on {gpus} GPUs" if kinds else "none"
    what = f"{faiss_version() or 'unknown version'}, GPU kinds: {on_gpu}"
    return [Finding(check="faiss", state="ok", what=what)]


def check_isal() -> list[Finding]:
    """Tell whether checksums are computed at the speed of memory."""
    try:
        from isal.isal_zlib import crc32  # noqa: F401
    except ImportError:
        what = "Not installed; zlib computes the same checksums, five times slower."
        return [Finding(check="isal", state="note", what=what, cure="Add it: pip install isal")]
    return [Finding(check="isal", state="ok", what=version_of("isal"))]


def check_disk(root: Path) -> list[Finding]:
    """Look for room, and for leave to write, where the caches are or will be."""
    place = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    what = f"{human_bytes(free)} free in {root}"
    another = "choose another folder with --cache DIR or $FEATCACHE_HOME."
    if not os.access(place, os.W_OK | os.X_OK):
        what = f"{place} cannot be written."
        return [Finding(check="disk", state="broken", what=what, cure=f"Permit it, or {another}")]
    if free < LOW:
        state: Literal["note", "broken"] = "broken" if free < TOO_LOW else "note"
        cure = f"Free some, or {another}"
        return [Finding(check="disk", state=state, what=f"{what}.", cure=cure)]
    return [Finding(check="disk", state="ok", what=what)]


def check_embedded() -> list[Finding]:
    """Read the heads of the embedded weights, which tell whether the files are whole."""
    from safetensors import SafetensorError, safe_open

    from featcache.backbones.names import EMBEDDED, embedded_weights

    found = []
    for name in EMBEDDED:
        file = embedded_weights(name)
        try:
            with safe_open(str(file), framework="np") as opened:
                count = len(list(opened.keys()))
        except (SafetensorError, OSError) as error:
            what = f"The embedded weights {file} cannot be read ({error})."
            found.append(Finding(check="weights", state="broken", what=what, cure=REINSTALL))
        else:
            what = f"{name}: embedded, {count} tensors"
            found.append(Finding(check="weights", state="ok", what=what))
    return found


def check_weights(root: Path) -> list[Finding]:
    """Look for the weights of every backbone that has a cache; they are needed to encode more."""
    from featcache.backbones.names import EMBEDDED, choose
    from featcache.store.library import caches, made_with

    datasets = {summary.dataset for summary in caches(root)}
    wanted = {made for dataset in datasets for made in made_with(root, dataset)}
    found = []
    for backbone, weights in sorted(wanted):
        name = f"{backbone}{f' with {weights}' if weights else ''}"
        if backbone in EMBEDDED and not weights:
            continue
        try:
            choice = choose(backbone, weights or None)
            is_here = choice.seed is not None or choice.file is not None or _is_here(choice.entry)
        except FeatcacheError as error:
            found.append(
                Finding(
                    check="weights",
                    state="note",
                    what=f"{name}: {text_of(error)}",
                    cure="Cached features are not affected.",
                )
            )
            continue
        what = f"{name}: {'on this machine' if is_here else 'not on this machine.'}"
        cure = "" if is_here else "The next pass fetches them, or give a file with --weights FILE."
        state: Literal["ok", "note"] = "ok" if is_here else "note"
        found.append(Finding(check="weights", state=state, what=what, cure=cure))
    return found


def _is_here(entry: Any) -> bool:
    from featcache.backbones.weights import find_cached

    return find_cached(entry) is not None


def check_caches(root: Path) -> list[Finding]:
    """Open every cache and compare its records with the sizes of its files."""
    from featcache.store.library import caches
    from featcache.store.removal import all_left
    from featcache.store.repair.glance import glance

    summaries = caches(root)
    found = [
        Finding(check="caches", state="broken", what=in_flags([problem]))
        for summary in summaries
        for problem in glance(summary.path)
    ]
    for path in all_left(root):
        what = f"{path} is what an interrupted removal has left."
        cure = "`featcache ls` says how to delete it."
        found.append(Finding(check="caches", state="note", what=what, cure=cure))
    if not any(finding.state == "broken" for finding in found):
        what = f"{len(summaries)} in {root} open and have their sizes"
        more = "; `featcache verify` reads every byte" if summaries else ""
        found.insert(0, Finding(check="caches", state="ok", what=what + more))
    return found

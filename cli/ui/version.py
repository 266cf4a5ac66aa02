"""What `--version` prints: this program, what it computes with, and where.

    featcache 0.1.0
    torch 2.14.1
    open_clip 3.3.0
    faiss 1.15.1 (faiss-cpu)
    device cpu

Versions are those of the installed packages, none of which is imported; the device needs torch.
"""

FAISS = ("faiss-cpu", "faiss-gpu")
"""Packages that bring the module `faiss`; only one of them should be there."""


def version_of(package: str) -> str:
    """Return the version of an installed package; empty where it is not installed."""
    from importlib import metadata  # a sixth of the time of --help

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def faiss_version() -> str:
    """Return the version of faiss and the package it came with; empty where there is none."""
    found = [(version_of(name), name) for name in FAISS]
    return ", ".join(f"{version} ({name})" for version, name in found if version)


def device_text() -> str:
    """Say which device `auto` stands for here. Loads torch.

    Raises:
        ImportError: If torch cannot be loaded.
    """
    import torch

    if torch.cuda.is_available():
        return f"cuda ({torch.cuda.get_device_name()})"
    return "cpu"


def version_lines() -> list[str]:
    """Say each version, and the device last, one line each."""
    found = {
        "featcache": version_of("featcache"),
        "torch": version_of("torch"),
        "open_clip": version_of("open_clip_torch"),
        "faiss": faiss_version(),
    }
    lines = [f"{name} {version or 'not installed'}" for name, version in found.items()]
    try:
        return [*lines, f"device {device_text()}"]
    except ImportError as error:  # the versions are what helps then
        return [*lines, f"device unknown ({error})"]

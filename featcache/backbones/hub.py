"""Files of the Hugging Face hub: those on this machine, and whether the rest can be had."""

import http.client
import os
import threading
import urllib.error
import urllib.request
from pathlib import Path

from featcache.errors import WeightsMissingError
from featcache.wording import Argument, Placeholder

NAME = r"[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?"
"""Pattern of an organisation's or repository's name: no path leads out of it."""
PROBE_SECONDS = 6.0
"""Timeout for the first answer of the hub."""


def hub_file(repository: str, name: str) -> Path | None:
    """Return a file of a repository from the cache of the hub's client; None if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(repository, name)
    return Path(cached) if isinstance(cached, str) else None


def fetch_file(repository: str, name: str) -> Path:
    """Return a file of a repository, downloaded if it is not on this machine.

    Raises:
        WeightsMissingError: If it cannot be had.
    """
    local = hub_file(repository, name)
    if local is not None:
        return local
    reason = offline_reason(repository)
    if reason is None:
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(repository, name))
        except Exception as error:  # the client fails in many ways
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    raise WeightsMissingError(
        f"{name} of {repository} is not on this machine and could not be fetched from "
        f"{address_of(repository)}: {reason}. Run the command once with network, or copy the "
        f"repository and give its folder with ",
        Argument("backbone", Placeholder("local-dir:PATH")),
        ".",
    )


def address_of(repository: str) -> str:
    """Return the address of a repository's page."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repository}"


def offline_reason(repository: str) -> str | None:
    """Return why nothing can be fetched from a repository; None if the hub answers."""
    return unreachable(address_of(repository))


def unreachable(url: str) -> str | None:
    """Return why a host cannot or must not be reached; None if it answers within seconds."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE is set"
    return _unanswered(url)


def _unanswered(url: str) -> str | None:
    """Return why a host does not answer; None if it does.

    A name server that never answers ignores the timeout, hence the thread.
    """
    reasons: list[str | None] = []

    def probe() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(request, timeout=PROBE_SECONDS - 1).close()
            reasons.append(None)
        except urllib.error.HTTPError:
            reasons.append(None)  # the host is up; the download checks the file
        except (OSError, ValueError, http.client.HTTPException) as error:
            reasons.append(f"no network ({getattr(error, 'reason', error)})")

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return reasons[0] if reasons else "no network (no answer within seconds)"

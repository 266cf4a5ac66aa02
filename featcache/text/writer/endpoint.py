"""One question to an OpenAI-compatible chat endpoint: https, a key, retries and bounded waits."""

import ipaddress
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit, urlunsplit

from featcache.errors import SourceError, UsageError
from featcache.sources.fetch.connect import (
    BrokenTransferError,
    Reply,
    TransferError,
    check_address,
    number,
    post,
)
from featcache.wording import Argument, Placeholder

KEYS = ("FEATCACHE_API_KEY", "OPENAI_API_KEY")
"""Environment variables that hold the key; the first that is set counts."""
MOST_ANSWER = 1 << 20
"""Most bytes of an answer."""
PATIENCE = 120.0
"""Seconds until an answer has begun, and again until it is whole."""
ATTEMPTS = 6
"""How often one question is asked where the server is busy or the connection breaks."""
LONGEST_WAIT = 300.0
"""Most seconds between two attempts, whatever the server asks for."""

_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_PATH = "/chat/completions"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where questions go. The key is never shown, written or sent to another address."""

    url: str
    """Address of chat completions, as `checked_url` returns it."""
    model: str
    key: str = field(default="", repr=False)
    pause: Callable[[float], None] = field(default=time.sleep, repr=False)
    patience: float = PATIENCE

    @property
    def host(self) -> str:
        """Name and port of the server."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}" + (f":{parts.port}" if parts.port else "")

    def ask(self, system: str, question: str, *, most_tokens: int) -> bytes:
        """Ask once, again where the server is busy; return the body of the answer.

        Args:
            system: Instructions.
            question: Message of the user.
            most_tokens: Most tokens of the answer, which bounds its cost.

        Raises:
            SourceError: If the server refuses, cannot be reached, or stays busy.
        """
        content = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": system},
                {"role": "user", "content": question},
            ],
        }
        limit = "max_tokens"
        why, wait = "", 0.0
        for attempt in range(ATTEMPTS):
            if attempt:
                self.pause(min(max(wait, 2.0 ** (attempt - 1)), LONGEST_WAIT))
            wait = 0.0
            try:
                reply = self._send({**content, limit: most_tokens})
            except BrokenTransferError as error:
                why = str(error)
                continue
            except TransferError as error:
                raise SourceError(
                    f"{self.host} cannot be asked: {self._safe(str(error))}."
                ) from error
            if reply.status == 200:
                return reply.body
            why = f"the server answered {reply.status}{self._said(reply)}"
            if (
                reply.status == 400
                and limit == "max_tokens"
                and b"max_completion_tokens" in reply.body
            ):
                limit = "max_completion_tokens"  # what newer models call it
            elif reply.status in _PASSING:
                wait = retry_after(reply.headers.get("retry-after", ""))
            else:
                raise SourceError(f"{self.host} refused: {why}. ", *_advice(reply.status))
        raise SourceError(
            f"{self.host} gave no answer in {ATTEMPTS} attempts; the last time, "
            f"{self._safe(why)}. Try again later."
        )

    def _send(self, content: Mapping[str, object]) -> Reply:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        body = json.dumps(content).encode()
        return post(self.url, headers, body, most=MOST_ANSWER, patience=self.patience)

    def _said(self, reply: Reply) -> str:
        """Return what an error says, in one short line."""
        text = " ".join(reply.body[:4000].decode("utf-8", "replace").split())
        return f" ({self._safe(text)[:300]})" if text else ""

    def _safe(self, text: str) -> str:
        """Return a text of the server without the key, which it may repeat."""
        return text.replace(self.key, "[key]") if self.key else text


def open_endpoint(url: str, model: str, environ: Mapping[str, str] = os.environ) -> Endpoint:
    """Check an address and find the key for it.

    Args:
        url: Address of the API, such as https://api.openai.com/v1.
        model: Name of the model there.
        environ: Where the key is looked for.

    Raises:
        UsageError: If the address is not https (http on this machine is accepted), the model has no
            name, or there is no key. An address on this machine needs none.

    Example:
        >>> open_endpoint("http://localhost:8000/v1", "llama", {}).url
        'http://localhost:8000/v1/chat/completions'
    """
    address = checked_url(url)
    if not model.strip() or not model.isprintable():
        raise UsageError(
            Argument("model"),
            " takes the name of a model as the server knows it, e.g. gpt-4o-mini.",
        )
    variable = key_variable(environ)
    key = environ.get(variable, "").strip()
    if not key and not _is_local(address):
        raise UsageError(
            f"There is no key for {urlsplit(address).hostname}. Set {KEYS[0]} or {KEYS[1]} in the "
            "environment."
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(f"{variable} holds characters that no key has. Set it again.")
    return Endpoint(url=address, model=model.strip(), key=key)


def key_variable(environ: Mapping[str, str] = os.environ) -> str:
    """Return the name of the environment variable that holds the key; empty if none is set."""
    return next((name for name in KEYS if environ.get(name, "").strip()), "")


def checked_url(url: str) -> str:
    """Return the address of chat completions below the address of an API.

    Raises:
        UsageError: If it is no address, has a password in it, or is http of another machine.

    Example:
        >>> checked_url("https://api.openai.com/v1/")
        'https://api.openai.com/v1/chat/completions'
    """
    if "://" not in url:
        raise UsageError(
            Argument("url"),
            f" takes an address with its scheme, got '{url[:200]}'. Write e.g. ",
            Argument("url", f"https://{url[:200]}" if url else Placeholder("https://HOST/v1")),
            ".",
        )
    try:
        check_address(url)
        parts = urlsplit(url)
        _ = parts.port  # raises if it is no number
    except (TransferError, ValueError) as error:
        raise UsageError(Argument("url"), f" cannot be used: {error}.") from error
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            Argument("url"), f" has a name or password in it. Put the key into {KEYS[0]} instead."
        )
    if parts.scheme == "http" and not _is_local(url):
        raise UsageError(
            f"http sends the key to {parts.hostname} in the clear. Use https; http is for servers "
            "on this machine."
        )
    path = parts.path.rstrip("/")
    path = path if path.endswith(_PATH) else path + _PATH
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def retry_after(text: str) -> float:
    """Read the header Retry-After, seconds or a date; 0 if it is neither.

    Example:
        >>> retry_after("7"), retry_after("soon")
        (7.0, 0.0)
    """
    seconds = number(text)
    if seconds is not None:
        return float(seconds)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return 0.0
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _advice(status: int) -> tuple[str | Argument, ...]:
    if status in (401, 403):
        return (f"Check the key in {KEYS[0]} or {KEYS[1]}.",)
    if status in (301, 302, 303, 307, 308):
        return ("It leads elsewhere, where no key is sent. Give the final address with ",
                Argument("url"), ".")  # fmt: skip
    if status == 404:
        return ("Check ", Argument("url"), " and ", Argument("model"), ".")
    return ("Check ", Argument("model"), " and what the server says.")

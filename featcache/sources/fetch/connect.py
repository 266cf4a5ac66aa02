"""One request over http or https: bounded redirects, bounded waits, no other protocol."""

import http.client
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

SILENCE = 30.0
"""Seconds to wait for a connection, and for each next byte."""
ANSWER = 60.0
"""Seconds until the whole header of an answer is there; a name server may hang longer."""
SLOWEST, SLOW_FOR = 1_000, 60.0
"""Bytes a second below which a transfer counts as standing still, after so many seconds."""
MOST_REDIRECTS = 8
CHUNK = 1 << 20

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""What a server answers that may answer otherwise in a moment."""
_AGENT = "featcache"


class TransferError(Exception):
    """This address does not give the file; another may."""

    status: int = 0
    """What the server answered, e.g. 404; 0 where it did not answer."""


class BrokenTransferError(TransferError):
    """A transfer that may be continued, or repeated, at the same address."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        """Keep the reason.

        Args:
            reason: Readable reason.
            wait: Seconds that the server asks for; 0 where it says nothing.
        """
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered; its body is read by `chunks`."""

    status: int
    headers: Mapping[str, str]
    """Names are in lower case."""
    response: http.client.HTTPResponse

    def number(self, name: str) -> int | None:
        """Return a header that holds a number; None where it is missing or holds something else."""
        return number(self.headers.get(name, ""))


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    """Names are in lower case."""
    body: bytes


@contextmanager
def request(url: str, headers: Mapping[str, str]) -> Iterator[Answer]:
    """Ask for a file, redirects followed; its connection is closed in the end.

    Args:
        url: http or https.
        headers: Headers of the request. `Authorization` goes to the server of `url` alone: a
            redirect to another one does not take it along.

    Raises:
        BrokenTransferError: If the connection breaks, or the server is busy.
        TransferError: If the server cannot be reached, or refuses.
    """
    response = _within(ANSWER, lambda: _follow(url, headers))
    try:
        status = response.status
        if status in _PASSING:
            wait = number(response.headers.get("Retry-After", "")) or 0
            raise BrokenTransferError(_said(response), float(wait))
        if status not in (200, 206, 416):
            refused = TransferError(_said(response))
            refused.status = status
            raise refused
        fields = {name.lower(): value for name, value in response.headers.items()}
        yield Answer(status, fields, response)
    finally:
        response.close()


def chunks(answer: Answer) -> Iterator[bytes]:
    """Read the body of an answer; it ends where the server ends it, whole or not.

    Raises:
        BrokenTransferError: If the connection breaks or stands still.
    """
    begin, count = time.monotonic(), 0
    while True:
        with _told():
            data = answer.response.read1(CHUNK)
        if not data:
            return
        count += len(data)
        if (now := time.monotonic()) - begin > SLOW_FOR:
            if count < SLOWEST * (now - begin):
                raise BrokenTransferError(f"only {count} bytes came in {now - begin:.0f} s")
            begin, count = now, 0
        yield data


def post(url: str, headers: Mapping[str, str], body: bytes, *, most: int, patience: float) -> Reply:
    """Send a body and read the whole answer, whatever its status.

    Redirects are not followed: they could take the headers, which may hold a key, elsewhere. Plain
    http goes through no proxy for the same reason.

    Args:
        url: http or https.
        headers: Headers of the request.
        body: What is sent.
        most: Most bytes of an answer.
        patience: Seconds until the answer has begun, and again until it is whole.

    Raises:
        BrokenTransferError: If the connection breaks or takes too long.
        TransferError: If the server cannot be reached, or its answer is too large.
    """
    check_address(url)
    asked = urllib.request.Request(
        url,
        data=body,
        headers={"User-Agent": _AGENT, "Accept-Encoding": "identity", **headers},
        method="POST",
    )
    opener = _opener(proxied=urlsplit(url).scheme == "https")

    def send() -> http.client.HTTPResponse:
        with _told(patience):
            opened: http.client.HTTPResponse = opener.open(asked, timeout=patience)
        return opened

    response = _within(patience, send)
    try:
        end, data = time.monotonic() + patience, bytearray()
        while True:
            with _told(patience):
                part = response.read1(CHUNK)
            if not part:
                break
            data += part
            if len(data) > most:
                raise TransferError(f"the answer has more than {most} bytes")
            if time.monotonic() > end:
                raise BrokenTransferError(f"the answer was not whole after {patience:.0f} s")
        if response.length:  # fewer bytes than the header promised
            raise BrokenTransferError("the connection broke in the middle of the answer")
        fields = {name.lower(): value for name, value in response.headers.items()}
        return Reply(response.status, fields, bytes(data))
    finally:
        response.close()


def number(text: str) -> int | None:
    """Read a number of a header; None where it is none."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None


def check_address(url: str, before: str = "") -> None:
    """Refuse addresses that are neither http nor https, and redirects from https to http.

    Args:
        url: Where the next request goes.
        before: What led there.

    Raises:
        TransferError: If the address may not be asked.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError as error:
        raise TransferError(f"'{url[:200]}' is no address") from error
    if parts.scheme not in ("http", "https") or not host:
        raise TransferError(f"'{url[:200]}' is no http or https address")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise TransferError(f"'{url[:200]}' has characters that no address has")
    if parts.scheme == "http" and urlsplit(before).scheme == "https":
        raise TransferError(f"it leads from https to http, to {url[:200]}")


def _opener(*, proxied: bool = True) -> urllib.request.OpenerDirector:
    """Return an opener for http, https and the proxies of the environment, without redirects."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        *([urllib.request.ProxyHandler()] if proxied else []),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
    ):
        opener.add_handler(handler)
    opener.addheaders = []
    return opener


def _follow(url: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
    opener, before = _opener(), ""
    for _ in range(MOST_REDIRECTS + 1):
        check_address(url, before)
        asked = urllib.request.Request(
            url, headers={"User-Agent": _AGENT, "Accept-Encoding": "identity", **headers}
        )
        with _told():
            response: http.client.HTTPResponse = opener.open(asked, timeout=SILENCE)
        target = response.headers.get("Location", "")
        if response.status not in _REDIRECTS:
            return response
        response.close()  # its body is of no interest, and may have no end
        if not target:
            raise TransferError(f"{_said(response)}, without saying where to")
        try:
            before, url = url, urljoin(url, target)
            if _server(before) != _server(url):
                headers = {k: v for k, v in headers.items() if k.lower() != "authorization"}
        except ValueError as error:
            raise TransferError(f"it leads to '{target[:200]}', which is no address") from error
    raise TransferError(f"it leads from address to address more than {MOST_REDIRECTS} times")


def _server(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _within(
    seconds: float, call: Callable[[], http.client.HTTPResponse]
) -> http.client.HTTPResponse:
    """Give up on a call that takes too long: name servers and headers have no time limit."""
    outcome: list[http.client.HTTPResponse | BaseException] = []
    lock, late = threading.Lock(), False

    def run() -> None:
        try:
            made: http.client.HTTPResponse | BaseException = call()
        except BaseException as error:
            made = error
        with lock:
            if not late:
                outcome.append(made)
            elif isinstance(made, http.client.HTTPResponse):
                made.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        thread.join(seconds)
    finally:
        with lock:
            late = True
    if not outcome:
        raise BrokenTransferError(f"no answer within {seconds:.0f} s")
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


@contextmanager
def _told(silence: float = SILENCE) -> Iterator[None]:
    """Turn network errors into `TransferError`, temporary ones into `BrokenTransferError`."""
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        text = " ".join(str(cause).split())[:200] or type(cause).__name__
        if isinstance(cause, TimeoutError):
            raise BrokenTransferError(f"nothing came for {silence:.0f} s") from error
        if isinstance(
            cause, socket.gaierror | ssl.SSLCertVerificationError | ConnectionRefusedError
        ):
            raise TransferError(text) from error
        if isinstance(cause, ConnectionError | http.client.IncompleteRead | ssl.SSLError):
            raise BrokenTransferError(f"the connection broke ({text})") from error
        raise TransferError(text) from error


def _said(response: http.client.HTTPResponse) -> str:
    return f"the server answered {response.status} {' '.join(response.reason.split())[:80]}".strip()

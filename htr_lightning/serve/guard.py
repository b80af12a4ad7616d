"""Refuse requests that are too large, too slow, too many, or not from this page or an allowed client."""

import asyncio
import hmac
from collections.abc import Collection, Mapping
from contextlib import suppress
from ipaddress import ip_address
from time import perf_counter
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from htr_lightning.errors import printable
from htr_lightning.serve.limits import HEADER_BYTES, Limits, RateLimit
from htr_lightning.serve.metrics import Metrics

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
SAFE = ("GET", "HEAD", "OPTIONS")  # methods that change nothing
SHOWN = 80  # characters of a value in a message


class Refusal(NamedTuple):
    """An answer instead of that of the application."""

    status: int
    error: str
    headers: Mapping[str, str] = MappingProxyType({})


class Guard:
    """An ASGI application around another one, which adds security headers, measures, and enforces limits.

    Args:
        app: application that answers.
        limits: limits on requests.
        metrics: counters of requests.
        paths: paths that are counted by name; all others are counted as one.
        hosts: names by which the server may be called, in addition to addresses and localhost. A page of another site
            that lets its name point to this server (DNS rebinding) calls it by that name.
        token: token that calls of the API need; None for none.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        metrics: Metrics,
        paths: Collection[str] = (),
        hosts: Collection[str] = (),
        token: str | None = None,
    ) -> None:
        self.app, self.limits, self.metrics, self.token = app, limits, metrics, token
        self.paths, self.hosts = frozenset(paths), frozenset(host.lower() for host in hosts)
        self.running = 0  # calls of the API in progress
        self._rate = RateLimit(limits.rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self._answer(scope, receive, sending)
        finally:
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.metrics.observe(path, status, perf_counter() - start)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_api = scope["path"].startswith("/api/")
        if refusal := self._refusal(scope, is_api):
            error = {"error": printable(refusal.error)}
            await JSONResponse(error, refusal.status, refusal.headers)(scope, receive, send)
            return
        self.running += is_api
        try:
            await self.app(scope, _bounded(receive, self.limits), send)
        finally:
            self.running -= is_api

    def _refusal(self, scope: Scope, is_api: bool) -> Refusal | None:
        """Return why a request is refused before its body is received, or None."""
        headers = Headers(scope=scope)
        if (size := len(scope["path"]) + sum(len(name) + len(value) for name, value in headers.raw)) > HEADER_BYTES:
            return Refusal(431, f"header: {size:,} bytes (maximum {HEADER_BYTES:,}); send a shorter header")
        host = headers.get("host", "")
        if not _is_allowed(host, self.hosts):
            return Refusal(403, f"Host {host[:SHOWN]!r}: not a name of this server; call it by its address, or start "
                           "it with --allow-host NAME")  # fmt: skip
        client = scope["client"][0] if scope.get("client") else ""
        if is_api and (seconds := self._rate.wait(client)):
            return Refusal(429, f"more than {self.limits.rate:g} requests/s from {client}; retry in {seconds} s",
                           {"Retry-After": str(seconds)})  # fmt: skip
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        if scope["method"] not in SAFE and (
            (origin is not None and _netloc(origin) != host.lower()) or site not in ("same-origin", "none")
        ):
            return Refusal(403, f"Origin {(origin or site)[:SHOWN]!r}: posts from pages of other sites are refused; "
                           "use the page of this server")  # fmt: skip
        if self.token is not None and (is_api or scope["path"] == "/metrics"):
            kind, _, given = headers.get("authorization", "").partition(" ")
            if kind.lower() != "bearer" or not hmac.compare_digest(given.encode(), self.token.encode()):
                return Refusal(401, "no valid token; send the header Authorization: Bearer TOKEN with the token that "
                               "htr serve printed", {"WWW-Authenticate": "Bearer"})  # fmt: skip
        length = headers.get("content-length", "0")
        if length.isascii() and length.isdigit() and len(length) < 20 and int(length) > self.limits.body_bytes:
            return Refusal(413, _too_large(int(length), self.limits), {"Connection": "close"})
        if is_api and self.running >= self.limits.requests:
            return Refusal(503, f"busy with {self.running} requests; retry in 1 s", {"Retry-After": "1"})
        return None


def _bounded(receive: Receive, limits: Limits) -> Receive:
    """Return `receive` with limits on the size of a body and on the time in which it arrives."""
    size, complete = 0, False
    deadline = asyncio.get_running_loop().time() + limits.body_seconds

    async def bounded() -> Message:
        nonlocal size, complete
        if complete:  # what is left is that the client hangs up
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise HTTPException(
                408, f"body: incomplete after {limits.body_seconds:g} s; send it faster", {"Connection": "close"}
            ) from None
        size += len(message.get("body", b""))
        if size > limits.body_bytes:
            raise HTTPException(413, _too_large(size, limits), {"Connection": "close"})
        complete = not message.get("more_body", False)
        return message

    return bounded


def _too_large(size: int, limits: Limits) -> str:
    return f"body: at least {size:,} bytes (maximum {limits.body_bytes:,}); send fewer or smaller files at a time"


def _is_allowed(host: str, hosts: Collection[str]) -> bool:
    name = None
    with suppress(ValueError):
        name = urlsplit(f"//{host}").hostname
    if not name:
        return False
    if name == "localhost" or name in hosts:
        return True
    with suppress(ValueError):
        return bool(ip_address(name))
    return False


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""

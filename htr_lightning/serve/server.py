"""Run the server until it is told to stop."""

import asyncio
import json
import math
import secrets
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from ipaddress import ip_address
from pathlib import Path

import h11
import numpy as np
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from htr_lightning.data.corrections import CorrectionStore
from htr_lightning.errors import InputError
from htr_lightning.reading.journal import digest
from htr_lightning.reading.open import load_all
from htr_lightning.serve.app import make_app
from htr_lightning.serve.batching import Batcher
from htr_lightning.serve.limits import HEADER_BYTES, Limits
from htr_lightning.serve.uploads import Served
from htr_lightning.transcription import Transcriber

BLANK = np.full((64, 64), 255, np.uint8)
CONNECTIONS = 1000
MIN_TOKEN = 16  # characters
EXPOSED_RATE = 10.0  # requests in a second from one address, unless the server is local


class Protocol(H11Protocol):
    """HTTP of uvicorn, with a limit on the time in which a header arrives, and with refusals as JSON.

    The header may take as long as a connection without a request may stay open.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._awaited: object = self  # the request after which a header is awaited
        self._await_header()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:  # a part of a header
            self._await_header()

    def _await_header(self) -> None:
        if self._awaited is not self.cycle:
            self._awaited = self.cycle
            self.loop.call_later(self.timeout_keep_alive, self._check_header, self.cycle)

    def _check_header(self, last: object) -> None:
        if self.conn.their_state is h11.IDLE and self.cycle is last and not self.transport.is_closing():
            self.send_400_response(f"header: incomplete after {self.timeout_keep_alive} s; send it faster")

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, or a header of more than `HEADER_BYTES`."""
        if msg.startswith("Invalid"):
            msg = f"not an HTTP request, or a header of more than {HEADER_BYTES} bytes; send a shorter header"
        with suppress(h11.LocalProtocolError):  # the answer to an earlier request has begun
            body = json.dumps({"error": msg}).encode()
            headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))),
                       ("X-Content-Type-Options", "nosniff"), ("Connection", "close")]  # fmt: skip
            for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def serve(
    models: Sequence[str],
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    hosts: Sequence[str] = (),
    device: str = "auto",
    greedy: bool = False,
    limits: Limits | None = None,
    corrections: Path | None = None,
    ready: Callable[[str], None] = print,
) -> None:
    """Serve a web page and an API until SIGTERM or Ctrl-C, and finish the requests that are running.

    Args:
        models: exported recognizers, checkpoints or names of recognizers that ship with the package.
        host: address to listen on; any but a local one requires a token.
        port: port; 0 for any free one.
        token: token that calls of the API need; None for none, or for a new one if the address is not local.
        hosts: names by which the server may be called.
        device: see `reading.open.load`.
        greedy: whether to decode without beam search, language model or lexicon.
        limits: limits on requests; `EXPOSED_RATE` is meant for addresses that are not local.
        corrections: file in which confirmed lines are stored, created if needed; None to store nothing.
        ready: function called with messages for the user, once the server can be reached.

    Raises:
        InputError: if a recognizer cannot be loaded, the address cannot be used or the token is too short.
    """
    limits = limits or Limits()
    local = is_local(host)
    if token is not None and (len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable()):
        raise InputError(f"--token: {len(token)} characters; use at least {MIN_TOKEN} printable ASCII characters, or "
                         "leave it out to have one made")  # fmt: skip
    made = token is None and not local
    if made:
        token = secrets.token_urlsafe(24)
    store = None if corrections is None else CorrectionStore(corrections, create=True)
    with _listening(host, port) as listener, ExitStack() as stack:
        served = [_load(name, path, device, greedy, stack) for name, path in _named(models).items()]
        app = make_app(served, limits, (socket.gethostname(), *hosts), token, store)
        config = uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            loop="asyncio",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=HEADER_BYTES,
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=math.ceil(limits.body_seconds),
        )
        name = socket.gethostname() if host in ("0.0.0.0", "::") else host
        shown = f"[{name}]" if ":" in name else name
        address = f"http://{shown}:{listener.getsockname()[1]}/"
        names = " and ".join(one.name for one in served)
        ready(f"serving {names} at {address}{f'#token={token}' if made else ''} (stop with Ctrl-C)")
        # uvicorn repeats the signal that stopped it; by then, everything is done, and the exit code is 0
        signal.signal(signal.SIGTERM, lambda *_: None)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


def _named(models: Sequence[str]) -> dict[str, str]:
    """Return the paths of recognizers by the names that they are offered under, which are short if they are unique."""
    stems = [Path(model).stem for model in models]
    return {stem if stems.count(stem) == 1 else model: model for stem, model in zip(stems, models, strict=True)}


def _load(name: str, path: str, device: str, greedy: bool, stack: ExitStack) -> Served:
    recognizer = load_all([path], device, greedy)
    workers = stack.enter_context(recognizer.workers())
    return Served(name, recognizer, Batcher(workers), _has_alternatives(recognizer), digest(path))


def _has_alternatives(recognizer: Transcriber) -> bool:
    try:
        recognizer.read([BLANK], 2)
    except InputError:
        return False
    return True


def is_local(host: str) -> bool:
    """Return whether an address can be reached only from this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise InputError(
            f"--host {host} --port {port}: {error.strerror or error}; choose another --port or --host"
        ) from None
    except OverflowError:
        raise InputError(f"--port {port}: expected a number from 0 to 65535") from None

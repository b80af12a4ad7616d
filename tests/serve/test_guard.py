"""Requests are refused by host, origin, token, rate, size, time and number."""

import asyncio
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from htr_lightning.serve.app import make_app
from htr_lightning.serve.guard import Guard
from htr_lightning.serve.limits import BURST, Limits, RateLimit
from htr_lightning.serve.metrics import Metrics
from serve.conftest import picture

TOKEN = "correct horse battery"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200), ("localhost", 200), ("[::1]:8000", 200), ("192.168.1.7", 200), ("HTR.example:80", 200),
        ("evil.example", 403), ("127.0.0.1.evil.example", 403), ("", 403), ("[::1", 403), ("htr.example.evil", 403),
    ],
)  # fmt: skip
def test_only_names_of_the_server_are_answered(host: str, status: int, client_of: Callable[..., TestClient]) -> None:
    assert client_of(hosts=["htr.example"]).get("/health", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://127.0.0.1"}, 200),
        ({"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:9"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[::1"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_posts_from_other_sites_are_refused(headers: dict[str, str], status: int, client: TestClient) -> None:
    answer = client.post("/api/batch", files={"images": ("a.png", picture("7"))}, headers=headers)
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (None, 401),
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
        (f"Bearer {TOKEN}x", 401),
        (f"Basic {TOKEN}", 401),
        ("Bearer", 401),
        ("Bearer \xe9", 401),
    ],
)
def test_the_api_needs_the_token(given: str | None, status: int, client_of: Callable[..., TestClient]) -> None:
    client = client_of(token=TOKEN)
    headers = {} if given is None else {"Authorization": given.encode("latin-1")}
    assert client.get("/api/models", headers=headers).status_code == status
    assert client.get("/metrics", headers=headers).status_code == status
    assert client.get("/health", headers=headers).status_code == client.get("/").status_code == 200


def test_clients_are_slowed_down(client_of: Callable[..., TestClient]) -> None:
    client = client_of(Limits(rate=0.2))
    answers = [client.get("/api/models") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 429, 429]
    assert 1 <= int(answers[1].headers["retry-after"]) <= 5
    assert client.get("/health").status_code == 200


def test_the_rate_holds_in_any_time() -> None:
    rate, now, times = 3.0, 0.0, []
    limit = RateLimit(rate, lambda: now)
    for step in range(4000):
        now += 0.01 + (step % 700 == 0) * 20
        if not limit.wait("a"):
            times.append(now)
        assert limit.wait(f"other {step}") == 0
    for first in range(len(times)):
        for last in (first + 1, first + 10, first + 60):
            if last < len(times):
                assert last - first + 1 <= rate * BURST + rate * (times[last] - times[first]) + 1
    assert len(times) > rate * 40


def call(guard: Guard, messages: list[Message | float], headers: tuple[tuple[bytes, bytes], ...] = ()) -> list[Message]:
    """Send a request body in parts, with pauses in seconds between them, and return the answer."""
    sent: list[Message] = []
    parts = iter(messages)

    async def receive() -> Message:
        part = next(parts)
        while isinstance(part, float):
            await asyncio.sleep(part)
            part = next(parts)
        return part

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "http", "method": "POST", "path": "/api/batch", "raw_path": b"/api/batch", "query_string": b"",
        "headers": [(b"host", b"localhost"), *headers], "client": ("1.2.3.4", 5), "http_version": "1.1",
        "root_path": "",
    }  # fmt: skip
    asyncio.run(guard(scope, receive, send))
    return sent


def part(content: bytes, more: bool = True) -> Message:
    return {"type": "http.request", "body": content, "more_body": more}


def test_a_body_is_limited_whatever_its_header_says() -> None:
    form = ((b"content-type", b"multipart/form-data; boundary=x"),)
    limits = Limits(body_bytes=1000, body_seconds=0.2)
    guard = make_app([], limits)
    head = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
    large = call(guard, [part(head), *[part(bytes(100))] * 20], form)
    assert large[0]["status"] == 413
    slow = call(guard, [part(head), 1.0, part(b"--x--", more=False)], form)
    assert slow[0]["status"] == 408
    for answer in (large, slow):
        assert (b"connection", b"close") in [(name.lower(), value) for name, value in answer[0]["headers"]]
        assert answer[1]["body"].startswith(b'{"error":"body: ')


def test_no_more_requests_run_than_allowed() -> None:
    async def run() -> tuple[list[int], int]:
        free, most = asyncio.Event(), 0

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal most
            most = max(most, guard.running)
            await free.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        guard = Guard(app, Limits(requests=3), Metrics())
        statuses = []

        async def one() -> None:
            async def send(message: Message) -> None:
                if "status" in message:
                    statuses.append(message["status"])

            scope = {"type": "http", "method": "GET", "path": "/api/models", "headers": [(b"host", b"localhost")]}
            await guard(scope, lambda: asyncio.sleep(9), send)

        tasks = [asyncio.create_task(one()) for _ in range(5)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        free.set()
        await asyncio.gather(*tasks)
        assert guard.running == 0
        return statuses, most

    statuses, most = asyncio.run(run())
    assert (sorted(statuses), most) == ([200, 200, 200, 503, 503], 3)

"""`htr serve` as a process: it starts, withstands hostile clients, and ends after what is running."""

import json
import signal
import socket
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from conftest import Outcome

from serve.conftest import picture, running

Parts = list[tuple[str, str | None, bytes]]  # name, file name and content
BOUNDARY = b"x1y2z3"


def form(parts: Parts) -> bytes:
    body = b""
    for name, file, content in parts:
        named = f'; filename="{file}"'.encode() if file is not None else b""
        body += b'--%s\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n' % (BOUNDARY, name.encode(), named)
        body += content + b"\r\n"
    return body + b"--%s--\r\n" % BOUNDARY


def request(
    target: str, body: bytes | None = None, method: str | None = None, length: int | None = None, **headers: str
) -> bytes:
    head = {"Host": "localhost", "Connection": "close", **{k.replace("_", "-"): v for k, v in headers.items()}}
    if body is not None:
        head.setdefault("Content-Type", f"multipart/form-data; boundary={BOUNDARY.decode()}")
        head.setdefault("Content-Length", str(len(body) if length is None else length))
    lines = [f"{method or ('GET' if body is None else 'POST')} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in head.items() if value]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")


def answer(port: int, parts: list[bytes], pause: float = 0.0) -> tuple[int, bytes]:
    """Send bytes with pauses between them; return status and body of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
        except OSError:  # refused before the end
            pass
        received = b""
        try:
            while data := connection.recv(65536):
                received += data
        except ConnectionResetError:
            pass
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, body


def png(width: int, height: int, data: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def image(name: str, content: bytes, *more: tuple[str, str | None, bytes], target: str = "/api/transcribe") -> bytes:
    field = {"/api/transcribe": "files", "/api/batch": "images"}.get(target, "file")
    return request(target, form([(field, name, content), *more]))


def page(xml: str) -> bytes:
    return image("a.png", SEVEN, ("files", "a.xml", xml.encode()))


def corrected(lines: str | bytes) -> bytes:
    content = lines.encode("utf-8", "surrogatepass") if isinstance(lines, str) else lines
    return image("a.png", SEVEN, ("lines", None, content), target="/api/export")


SEVEN = picture("7")
LINE = '<TextLine id="l{}"><Coords points="1,1 9,1 9,9"/></TextLine>'
PAGE = (
    '<PcGts><Page imageFilename="a.png" imageWidth="70" imageHeight="60"><TextRegion id="r">{}</TextRegion></Page>'
    "</PcGts>"
)
OUTSIDE = PAGE.format('<TextLine id="l"><Coords points="900,900 990,900 990,990"/></TextLine>')
BOMB = png(16_000, 16_000, zlib.compress(bytes(2001 * 16_000), 9))
BMP = b"BM" + struct.pack("<IHHIIiiHHI", 54, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0) + bytes(20)
LAUGHS = '<!DOCTYPE l [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in pairwise("abcdefghij")
) + "]>"  # fmt: skip
HOSTILE: Mapping[str, list[bytes]] = {
    "header of a huge PNG": [image("a.png", png(60_000, 60_000))],
    "PNG bomb": [image("a.png", BOMB)],
    "PNG bomb in a batch": [image("a.png", BOMB, target="/api/batch")],
    "PNG bomb as a preview": [image("a.png", BOMB, target="/api/preview")],
    "GIF bomb": [image("a.gif", b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + b",\0\0\0\0\xff\xff\xff\xff\0\x02")],
    "BMP bomb": [image("a.bmp", BMP)],
    "truncated PNG": [image("a.png", SEVEN[:200])],
    "empty file": [image("a.png", b"")],
    "SVG with a script": [image("a.png", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')],
    "line without pixels": [image("a.png", png(1, 1, zlib.compress(bytes(2))))],
    "billion laughs": [page(LAUGHS + PAGE.format("&j;"))],
    "external entity": [page('<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + PAGE.format("&e;"))],
    "nested XML": [page(PAGE.format("<a>" * 5000 + "</a>" * 5000))],
    "other XML": [page("<html><body onload='alert(1)'/></html>")],
    "markup that is not XML": [page("<PcGts><script>alert(1)</PcGts>")],
    "page without its image": [image("a.xml", PAGE.format(LINE).encode())],
    "too many lines": [page(PAGE.format("".join(map(LINE.format, range(60)))))],
    "lines outside the image": [page(OUTSIDE)],
    "size of another image": [page(PAGE.format(LINE).replace("70", "7000000"))],
    "path above": [image("../../etc/passwd", SEVEN)],
    "absolute path": [image("/etc/passwd", SEVEN)],
    "path of Windows": [image(r"..\\x.png", SEVEN)],
    "hidden file": [image(".profile", SEVEN)],
    "control character in a name": [image("a\x07.png", SEVEN, target="/api/batch")],
    "long name": [image("a" * 5000 + ".png", SEVEN)],
    "markup in a name": [image("<img src=x onerror=alert(1)>.png", SEVEN)],
    "no name": [request("/api/transcribe", form([("files", None, SEVEN)]))],
    "one name twice": [image("a.png", SEVEN, ("files", "a.png", SEVEN))],
    "markup as model": [image("a.png", SEVEN, ("model", None, b"<script>alert(1)</script>"))],
    "path as model": [image("a.png", SEVEN, ("model", None, b"../../digits.ckpt"))],
    "huge number": [image("a.png", SEVEN, ("n_best", None, b"9" * 5000))],
    "negative number": [image("a.png", SEVEN, ("n_best", None, b"-1"))],
    "text for a number": [image("a.png", SEVEN, ("n_best", None, b"\xff\xfe<b>"))],
    "huge JSON": [corrected("[" + '{"id": "line_1", "text": "a"},' * 60_000 + "0]")],
    "nested JSON": [corrected("[" * 100_000)],
    "wrong types in JSON": [corrected('[{"id": {"a": 1}, "text": [2], "confidence": "high"}]')],
    "other JSON": [corrected('{"__proto__": {"x": 1}}')],
    "no JSON": [corrected(b"\xff\xfe\0")],
    "control character in a text": [corrected(r'[{"id": "line_1", "text": "a\u0000b"}]')],
    "half a character in a text": [corrected(r'[{"id": "line_1", "text": "\ud800"}]')],
    "confidence that is no number": [corrected('[{"id": "line_1", "text": "a", "confidence": NaN}]')],
    "long text": [corrected(json.dumps([{"id": "line_1", "text": "<b>" * 10_000}]))],
    "markup as line": [corrected('[{"id": "<script>alert(1)</script>", "text": "a"}]')],
    "unknown format": [image("a.png", SEVEN, ("lines", None, b"[]"), ("format", None, b"exe"), target="/api/export")],
    "plain text": [request("/api/transcribe", b"hello", Content_Type="text/plain")],
    "JSON instead of a form": [request("/api/batch", b'{"images": [1]}', Content_Type="application/json")],
    "form without boundary": [request("/api/batch", b"--x", Content_Type="multipart/form-data")],
    "form without end": [request("/api/batch", form([("images", "a.png", SEVEN)])[:-200])],
    "too many files": [request("/api/batch", form([("images", f"{n}.png", b"") for n in range(1100)]))],
    "too many images": [request("/api/batch", form([("images", f"{n}.png", SEVEN) for n in range(60)]))],
    "large body": [request("/api/batch", bytes(10), length=10**12)],
    "large body in chunks": [request("/api/batch", b"", Content_Length="", Transfer_Encoding="chunked"),
                             *[b"10000\r\n" + bytes(65536) + b"\r\n"] * 40],
    "negative length": [request("/api/batch", b"a", length=-5)],
    "two lengths": [request("/api/batch", b"aaa", X="1\r\nContent-Length: 5")],
    "slow body": [request("/api/batch", form([("images", "a.png", SEVEN)])[:-20], length=10_000)],
    "oversized header": [request("/health", X_Large="a" * 100_000)],
    "many headers": [request("/health", **{f"X{n}": "a" * 100 for n in range(500)})],
    "header without end": [request("/health")[:-2]],
    "name of another server": [request("/health", Host="evil.example")],
    "no name of a server": [request("/health", Host="")],
    "post from another site": [request("/api/batch", form([("images", "a.png", SEVEN)]), Origin="http://evil.example")],
    "post from a file": [request("/api/batch", form([("images", "a.png", SEVEN)]), Origin="null")],
    "post of a foreign page": [request("/api/batch", form([("images", "a.png", SEVEN)]), Sec_Fetch_Site="cross-site")],
    "path in the address": [request("/static/../../../../etc/passwd")],
    "encoded path": [request("/static/%2e%2e%2f%2e%2e%2fapp.py")],
    "markup in the address": [request("/<script>alert(1)</script>")],
    "other method": [request("/api/batch", b"", "DELETE")],
    "unknown method": [request("/api/models", None, "HACK")],
    "TLS": [b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(300)],
    "no HTTP": [b"hello\r\n\r\n"],
}  # fmt: skip


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a server that is patient for a second."""
    with running("digits", "--timeout", "1", "--max-mb", "2", "--max-lines", "50") as (process, number):
        yield number
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "Traceback" not in log


def test_hostile_requests_are_refused_and_the_server_lives(port: int) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda parts: answer(port, parts), HOSTILE.values())
        found = dict(zip(HOSTILE, answers, strict=True))
    wrong = {name: (status, body[:200]) for name, (status, body) in found.items() if not 400 <= status < 500}
    assert not wrong
    for name, (_, body) in found.items():
        error = json.loads(body)["error"]
        assert error.isprintable(), name
        assert len(error) < 1000, name
        assert "Traceback" not in error, name
        assert "/tmp" not in error, name
    status, body = answer(port, [image("a.png", SEVEN, target="/api/batch")])
    assert (status, json.loads(body)["lines"][0]["text"]) == (200, "7")


def test_a_slow_body_is_refused_although_it_never_stops(port: int) -> None:
    body = form([("images", "a.png", SEVEN)])
    drops = [body[start : start + 20] for start in range(0, len(body), 20)]
    start = time.monotonic()
    status, _ = answer(port, [request("/api/batch", b"", length=len(body)), *drops[:12]], pause=0.2)
    assert status == 408
    assert time.monotonic() - start < 20


def test_sigterm_ends_the_server_after_what_is_running() -> None:
    with running("digits") as (process, number):
        content = image("a.png", SEVEN, target="/api/batch")
        with socket.create_connection(("127.0.0.1", number), timeout=30) as connection:
            connection.sendall(content[:-100])
            assert json.loads(answer(number, [request("/health")])[1])["status"] == "ok"
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            connection.sendall(content[-100:])
            received = b""
            while data := connection.recv(65536):
                received += data
        assert json.loads(received.partition(b"\r\n\r\n")[2])["lines"][0]["text"] == "7"
        _, log = process.communicate(timeout=30)
        assert (process.returncode, log) == (0, "")


def test_other_addresses_need_a_token() -> None:
    with running("digits", "--host", "0.0.0.0") as (_, number):
        assert answer(number, [request("/health")])[0] == 200
        assert answer(number, [request("/api/models")])[0] == 401
    token = "0123456789abcdef"
    with running("digits", "--host", "0.0.0.0", "--token", token) as (_, number):
        assert answer(number, [request("/api/models", Authorization=f"Bearer {token}")])[0] == 200


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["none.onnx"], "none.onnx: checkpoint not found"),
        (["digits", "--token", "secret"], "--token: 6 characters; use at least 16"),
        (["digits", "--host", "203.0.113.1"], "--host 203.0.113.1 --port 8000: "),
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], expected: str, htr: object) -> None:
    outcome: Outcome = htr("serve", *arguments)  # type: ignore[operator]
    assert outcome.code == 1
    assert outcome.stderr.startswith(f"error: {expected}")
    assert outcome.stderr.count("\n") == 1

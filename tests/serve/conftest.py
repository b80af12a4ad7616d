"""Clients of a server that reads digits, and pictures for it."""

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from htr_lightning.serve.app import make_app
from htr_lightning.serve.batching import Batcher
from htr_lightning.serve.limits import Limits
from htr_lightning.serve.uploads import Served

ROOT = Path(__file__).parents[2]


def picture(text: str, form: str = "PNG") -> bytes:
    """Return an image file with printed characters."""
    pixels = np.full((60, 40 + 30 * len(text)), 235, np.uint8)
    cv2.putText(pixels, text, (15, 45), cv2.FONT_HERSHEY_SIMPLEX, 1.5, 30, 4, cv2.LINE_AA)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


@pytest.fixture(scope="session")
def digits() -> Served:
    from htr_lightning.reading.open import load_all

    recognizer = load_all(["digits"], "cpu")
    return Served("digits", recognizer, Batcher([recognizer.read]), alternatives=True)


@pytest.fixture
def client_of(digits: Served) -> Iterator[Callable[..., TestClient]]:
    """A function that returns a client of a server with the given limits, hosts and token."""
    opened = []

    def make(limits: Limits | None = None, **settings: Any) -> TestClient:
        served = digits._replace(batcher=Batcher([digits.recognizer.read]))  # its threads end with the client
        client = TestClient(make_app([served], limits, **settings), "http://127.0.0.1", raise_server_exceptions=False)
        opened.append(client.__enter__())
        return client

    yield make
    for client in opened:
        client.__exit__()


@pytest.fixture
def client(client_of: Callable[..., TestClient]) -> TestClient:
    return client_of()


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run `htr serve` on a free port; yield the process and the port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "htr_lightning", "serve", *arguments, "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r":(\d+)/", line)
        assert found, (line, process.stderr and process.stderr.read())
        yield process, int(found[1])
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()

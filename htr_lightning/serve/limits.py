"""What one client may ask of the server, and how often."""

import math
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

MAX_CLIENTS = 10_000  # addresses whose recent requests are remembered
HEADER_BYTES = 16_384
BURST = 5.0  # seconds whose requests may come at once


class Limits(NamedTuple):
    """Limits on requests; each one is an option of `htr serve`."""

    body_bytes: int = 50_000_000  # an A3 page in colour at 400 dpi has ten million as JPEG
    pixels: int = 100_000_000  # of an image; an A2 page at 400 dpi has 62 million
    lines: int = 1000  # in one request
    requests: int = 128  # received or transcribed at the same time
    rate: float = 0.0  # requests in a second from one address; 0 for any number
    body_seconds: float = 30.0  # for receiving a request
    seconds: float = 120.0  # for transcribing it


class RateLimit:
    """A token bucket for each client address.

    Args:
        rate: requests in a second; 0 for any number.
        clock: function that returns seconds.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = monotonic) -> None:
        self.rate, self.size, self._clock = rate, max(1.0, rate * BURST), clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens left, and when that was

    def wait(self, client: str) -> int:
        """Count a request; return 0 if it is allowed, or the number of seconds after which it will be."""
        if not self.rate:
            return 0
        now = self._clock()
        left, then = self._buckets.pop(client, (self.size, now))
        left = min(self.size, left + (now - then) * self.rate)
        allowed = left >= 1
        self._buckets[client] = (left - allowed, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return 0 if allowed else math.ceil((1 - left) / self.rate)

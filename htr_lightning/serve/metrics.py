"""Counters of the server, written in the text format of Prometheus."""

import sys
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds


class Metrics:
    """Counters of requests, their latencies and transcribed lines."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()  # by path and status
        self.lines: Counter[str] = Counter()  # by recognizer
        self._latencies: dict[str, list[int]] = defaultdict(lambda: [0] * (len(BUCKETS) + 1))
        self._seconds: dict[str, float] = defaultdict(float)

    def observe(self, path: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            path: path of its route; anything else would let clients create any number of series.
            status: status code of the response.
            seconds: time from the request's header to the end of the response.
        """
        self.requests[path, status] += 1
        self._latencies[path][bisect_left(BUCKETS, seconds)] += 1
        self._seconds[path] += seconds

    def text(self, gauges: Mapping[str, tuple[str, int]]) -> str:
        """Return all counters and the given gauges, each with its help text and value."""
        rows = ["# HELP htr_requests_total Requests.", "# TYPE htr_requests_total counter"]
        for (path, status), count in sorted(self.requests.items()):
            rows.append(f'htr_requests_total{{path="{path}",status="{status}"}} {count}')
        rows += ["# HELP htr_lines_total Transcribed lines.", "# TYPE htr_lines_total counter"]
        rows += [f'htr_lines_total{{model="{_escaped(model)}"}} {count}' for model, count in sorted(self.lines.items())]
        rows += ["# HELP htr_request_seconds Time to answer.", "# TYPE htr_request_seconds histogram"]
        for path, counts in sorted(self._latencies.items()):
            total = 0
            for limit, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
                total += count
                rows.append(f'htr_request_seconds_bucket{{path="{path}",le="{limit}"}} {total}')
            rows.append(f'htr_request_seconds_sum{{path="{path}"}} {self._seconds[path]:.6f}')
            rows.append(f'htr_request_seconds_count{{path="{path}"}} {total}')
        for name, (meaning, value) in gauges.items():
            rows += [f"# HELP {name} {meaning}", f"# TYPE {name} gauge", f"{name} {value}"]
        return "\n".join(rows) + "\n"


def resident_bytes() -> int:
    """Return the memory that this process occupies, or its maximum so far where the system does not tell."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()
    except ImportError:  # Windows
        return 0
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

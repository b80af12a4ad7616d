"""Thousands of damaged files read under the limits of time and memory, and what must be true of a refusal."""

import faulthandler
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

SECONDS, MEMORY = 5, 1_000_000_000  # that one input may take


def refused(message: str) -> str:
    """The outcome of a refusal, which is one line of a sane length."""
    assert message
    assert len(message.splitlines()) == 1, message
    assert len(message) < 2000
    return "refused"


def check(script: str, count: int, folder: Path) -> None:
    """Read `count` inputs in a process of its own, which an alarm ends where an input hangs, in C as well."""
    done = subprocess.run(
        [sys.executable, script, str(count)], capture_output=True, text=True, cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )  # fmt: skip
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stdout[-300:]} {done.stderr[-3000:]}"
    assert re.search(rf"{count} inputs: \d{{4,5}} read, \d{{4,5}} refused", done.stdout), done.stdout[-300:]


def run(prepare: Callable[[Path], Path], read: Callable[[Path, int], str], count: int) -> None:
    """Read inputs 0 to `count` under the limits; print how many were read and refused, or die of the first fault."""
    folder = prepare(Path(tempfile.mkdtemp()))
    for seed in range(40):
        read(folder, seed)  # whatever is imported late
    taken = int(re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    for signals in (signal.SIGPROF, signal.SIGALRM):
        faulthandler.register(signals, chain=True)  # tells where it hangs, and the process ends
    outcomes, slowest = Counter(), (0.0, -1)
    for seed in range(count):
        print(f"\rseed {seed}", end="", flush=True)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of the processor: a busy machine is no hang
        signal.alarm(20 * SECONDS)  # but a process that waits for ever is
        start = time.process_time()
        outcomes[read(folder, seed)] += 1
        slowest = max(slowest, (time.process_time() - start, seed))
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.alarm(0)
    shutil.rmtree(folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"\r{count} inputs: {outcomes['read']} read, {outcomes['refused']} refused; slowest {slowest[0]:.2f} s "
          f"(seed {slowest[1]}), peak {peak} MiB")  # fmt: skip

"""Watch a folder for files to transcribe. Does not import torch."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from htr_lightning.data.files import files_below
from htr_lightning.data.image import SUFFIXES

PERIOD = 0.5  # seconds between two looks at the folder


def new_files(
    folder: Path, period: float = PERIOD, sleep: Callable[[float], None] = time.sleep
) -> Iterator[list[Path]]:
    """Yield the images and XML files in a folder as they come, each once, and never end.

    Files that are there at the start come first. A file that is still being written is left for later: it comes once
    its size and time have stayed the same between two looks.

    Args:
        folder: folder to watch, with its subfolders.
        period: seconds between two looks.
        sleep: function that waits.
    """
    done: set[Path] = set()
    before: dict[Path, tuple[int, int]] = {}
    while True:
        now: dict[Path, tuple[int, int]] = {}
        for path in files_below(folder):
            if path not in done and path.suffix.lower() in (*SUFFIXES, ".xml"):
                try:
                    stat = path.stat()
                except OSError:
                    continue  # removed or renamed since it was listed
                now[path] = (stat.st_size, stat.st_mtime_ns)
        ready = sorted(path for path, state in now.items() if state[0] and before.get(path) == state)
        done.update(ready)
        if ready:
            yield ready
        before = now
        sleep(period)

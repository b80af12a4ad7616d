"""Send the messages of a run to the screen and to its log file."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

log = logging.getLogger("htr_lightning")
console = Console(soft_wrap=True, highlight=False)


class _Screen(logging.Handler):
    """A logging handler that prints above the progress bar: information to stdout, warnings to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        if not getattr(record, "on_screen", True):
            return
        if record.levelno >= logging.WARNING:
            print(f"warning: {record.getMessage()}", file=sys.stderr)  # redirected by rich while a bar is shown
        else:
            console.print(record.getMessage(), markup=False)


class _File(logging.FileHandler):
    """A logging handler that reports once if its file cannot be written, instead of ending the run."""

    _reported = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:  # raised when the file is opened
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        if not self._reported:
            self._reported = True
            reason = getattr(sys.exc_info()[1], "strerror", None) or sys.exc_info()[1]
            print(f"warning: {self.baseFilename}: not written ({reason}); the run goes on", file=sys.stderr)

    def close(self) -> None:
        with suppress(OSError):  # reported when the last record was written
            super().close()


@contextmanager
def run_log(folder: Path) -> Iterator[None]:
    """Send log records from this package and Lightning, and all warnings, to the screen and to `train.log`.

    Does nothing on ranks other than the first.

    Args:
        folder: run folder, created if missing.
    """
    if getattr(rank_zero_only, "rank", 0):
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    file = _File(folder / "train.log", encoding="utf-8", delay=True)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    root = logging.getLogger()
    lightning = [logging.getLogger(name) for name in ("lightning", "lightning.pytorch", "lightning.fabric")]
    loggers = [root, log, *lightning]
    before = [(one.handlers[:], one.level, one.propagate) for one in loggers]
    shown = warnings.showwarning

    def show(message: Warning | str, *others: Any, **more: Any) -> None:
        log.warning("%s", message)

    try:
        for one in loggers:
            one.handlers = [_Screen(), file] if one is root else []
            one.propagate = True
            one.setLevel(logging.INFO if one is log else logging.WARNING)
        warnings.showwarning = show
        yield
    except BaseException as error:
        log.error("%s: %s", type(error).__name__, error, extra={"on_screen": False})  # the command prints the error
        raise
    finally:
        warnings.showwarning = shown
        for one, (handlers, level, propagate) in zip(loggers, before, strict=True):
            one.handlers, one.propagate = handlers, propagate
            one.setLevel(level)
        file.close()
